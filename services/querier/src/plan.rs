//! Which blocks a query must open: decided from their catalogue entries alone, and pure.
//!
//! Law: a block is left out only when none of its profiles can be part of the answer.

use cambium_model::block::{BlockMeta, DatasetMeta};
use cambium_model::tenant::Tenant;
use cambium_model::time::TimeRange;

use crate::request::SeriesMatch;

/// Why a block need not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwanted {
    /// It holds nothing of the tenant or of the range.
    Range,
    /// None of its series can match.
    Series,
}

/// Position of the tenant's dataset in the block, where it may hold profiles of the range in series that match any
/// of `matches` (all series where there are none).
pub(crate) fn wanted(
    block: &BlockMeta,
    tenant: &Tenant,
    range: TimeRange,
    matches: &[SeriesMatch],
) -> Result<usize, Unwanted> {
    let position = block.datasets.iter().position(|dataset| dataset.tenant.number == tenant.number);
    let index = position.ok_or(Unwanted::Range)?;
    let dataset = &block.datasets[index];
    if !dataset.touches(range) {
        return Err(Unwanted::Range);
    }
    let matching = matches.is_empty() || matches.iter().any(|wanted| may_match(dataset, wanted));
    if matching { Ok(index) } else { Err(Unwanted::Series) }
}

fn may_match(dataset: &DatasetMeta, wanted: &SeriesMatch) -> bool {
    let has_type = wanted.profile_type.as_ref().is_none_or(|named| dataset.types.contains(named));
    has_type && dataset.may_select(&wanted.selector)
}

#[cfg(test)]
mod tests {
    use cambium_model::block::LabelSummary;
    use cambium_model::tenant::{TenantId, TenantNumber};

    use super::*;

    fn tenant(number: u32) -> Tenant {
        Tenant { id: TenantId::new("t").unwrap(), number: TenantNumber(number) }
    }

    fn label(name: &str, values: &[&str], on_every_series: bool) -> LabelSummary {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        LabelSummary { name: name.to_owned(), distinct: 300, on_every_series, values }
    }

    /// Tenant 1 with profiles from 100 to 200: `service` on all series, `pod` on some, `id` with too many values.
    fn block() -> BlockMeta {
        let dataset = |number| DatasetMeta {
            tenant: tenant(number),
            first_ns: 100,
            last_ns: 200,
            series: 1,
            profiles: 1,
            samples: 1,
            types: vec!["cpu:cpu:ns:cpu:ns:delta".parse().unwrap()],
            scopes: Vec::new(),
            labels: vec![
                label("id", &[], true),
                label("pod", &["a", "b"], false),
                label("service", &["api", "web"], true),
            ],
            sections: Vec::new(),
            deletions_done: 0,
            covers: Vec::new(),
            profiles_left_out: 0,
            retention_selector: None,
        };
        BlockMeta {
            path: "block".to_owned(),
            level: 0,
            size_bytes: 0,
            toc_crc32c: 0,
            log_ranges: Vec::new(),
            epoch: 0,
            datasets: vec![dataset(7), dataset(1)],
            sources: Vec::new(),
            part: 0,
            parts: 1,
        }
    }

    #[test]
    fn blocks_that_cannot_match_are_left_out() {
        let cases = [
            (r#"{}"#, true),
            (r#"{service="api"}"#, true),
            (r#"{service="db"}"#, false),
            (r#"{service=""}"#, false),
            (r#"{service!="api"}"#, true),
            (r#"{service!~"api|web"}"#, false),
            (r#"{service=~"w.*"}"#, true),
            (r#"{pod="a"}"#, true),
            (r#"{pod="c"}"#, false),
            (r#"{pod=""}"#, true),
            (r#"{pod!~"a|b"}"#, true),
            (r#"{id="9"}"#, true),
            (r#"{id=""}"#, true),
            (r#"{other="x"}"#, false),
            (r#"{other!="x"}"#, true),
            (r#"{other=""}"#, true),
            (r#"{service="api",pod="c"}"#, false),
            (r#"cpu:cpu:ns:cpu:ns:delta{service="api"}"#, true),
            (r#"cpu:cpu:ns:cpu:ns{service="api"}"#, false),
        ];
        for (text, expected) in cases {
            let matches = [text.parse().unwrap()];
            assert_eq!(wanted(&block(), &tenant(1), TimeRange::ALL, &matches).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn any_match_suffices_and_none_means_all() {
        let matches = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let block = block();
        let all = TimeRange::ALL;
        assert_eq!(wanted(&block, &tenant(1), all, &[]), Ok(1));
        let either = matches(&[r#"{service="db"}"#, r#"{service="web"}"#]);
        assert_eq!(wanted(&block, &tenant(1), all, &either), Ok(1));
    }

    #[test]
    fn other_tenants_and_other_times_are_left_out() {
        let cases = [
            (1, TimeRange::new(0, 100), Err(Unwanted::Range)),
            (1, TimeRange::new(0, 101), Ok(1)),
            (1, TimeRange::new(200, 300), Ok(1)),
            (1, TimeRange::new(201, 300), Err(Unwanted::Range)),
            (7, TimeRange::ALL, Ok(0)),
            (2, TimeRange::ALL, Err(Unwanted::Range)),
        ];
        for (number, range, expected) in cases {
            assert_eq!(wanted(&block(), &tenant(number), range, &[]), expected, "{number} {range:?}");
        }
    }
}
