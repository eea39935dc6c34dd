use std::collections::BTreeSet;

use cambium_blocks::testing::tenant;
use proptest::prelude::*;

use super::super::oracle::{Single, block_on, queries, ranges, worlds};
use super::*;

fn cut<T: Clone>(all: &[T], limit: usize) -> (Vec<T>, bool) {
    let kept = if limit == 0 { all.len() } else { limit.min(all.len()) };
    (all[..kept].to_vec(), kept < all.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lists_equal_the_naive_ones(
        world in worlds(), asked in prop::collection::vec(queries(), 0..3), any_type in any::<bool>(),
        range in ranges(), limit in 0..4_usize, prefix in prop::sample::select(vec!["", "pod", "p", "service", "x"]),
    ) {
        let sources = world.sources();
        let any_type = |query: &cambium_model::selector::ProfileQuery| SeriesMatch {
            profile_type: (!any_type).then(|| query.profile_type.clone()),
            selector: query.selector.clone(),
        };
        let matches: Vec<SeriesMatch> = asked.iter().map(any_type).collect();
        let query = ListQuery { tenant: tenant(1), matches: matches.clone(), range, limit, prefix: prefix.to_owned() };
        let is_wanted = |one: &&Single| {
            let named = |wanted: &SeriesMatch| wanted.profile_type.as_ref().is_none_or(|name| *name == one.profile_type);
            let matching = |wanted: &SeriesMatch| named(wanted) && wanted.selector.matches(&one.labels);
            range.contains(one.time_ns) && (matches.is_empty() || matches.iter().any(matching))
        };
        let singles = world.singles();
        let live: Vec<&Single> = singles.iter().filter(is_wanted).collect();
        let texts = |texts: BTreeSet<String>| -> Vec<String> {
            texts.into_iter().filter(|text| text.starts_with(prefix)).collect()
        };

        let got = block_on(label_names(&sources, &query)).unwrap();
        let names = live.iter().flat_map(|one| one.labels.iter().map(|(name, _)| name.to_owned())).collect();
        prop_assert_eq!((got.entries, got.truncated), cut(&texts(names), limit));

        for name in ["pod", "zone", "service_name", "nobody"] {
            let got = block_on(label_values(&sources, &query, name)).unwrap();
            let values = live.iter().filter_map(|one| one.labels.get(name).map(str::to_owned)).collect();
            prop_assert_eq!((got.entries, got.truncated), cut(&texts(values), limit), "{}", name);
        }

        let got = block_on(profile_types(&sources, &query)).unwrap();
        let types: BTreeSet<ProfileType> = live.iter().map(|one| one.profile_type.clone()).collect();
        let types: Vec<ProfileType> = types.into_iter().filter(|one| one.to_string().starts_with(prefix)).collect();
        prop_assert_eq!((got.entries, got.truncated), cut(&types, limit));

        let got = block_on(series(&sources, &query)).unwrap();
        let mut entries: Vec<SeriesEntry> = Vec::new();
        for one in &live {
            let entry = SeriesEntry { profile_type: one.profile_type.clone(), labels: one.labels.clone() };
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        entries.sort_by(|a, b| a.profile_type.cmp(&b.profile_type).then_with(|| a.labels.iter().cmp(b.labels.iter())));
        prop_assert_eq!((got.entries, got.truncated), cut(&entries, limit));
    }
}
