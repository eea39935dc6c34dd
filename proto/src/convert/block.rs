//! [`BlockMeta`] and the entry that catalogue and table of contents hold.

use cambium_model::block::{
    BlockMeta, Cover, DatasetMeta, LabelSummary, LogId, LogRange, Offset, Partition, RetentionClass,
    ScopeBound, SectionKind, SectionMeta,
};
use cambium_model::profile_type::ProfileType;
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};

use super::Error;
use crate::wire::metastore as wire;

impl From<&BlockMeta> for wire::BlockEntry {
    fn from(meta: &BlockMeta) -> Self {
        Self {
            path: meta.path.clone(),
            level: u32::from(meta.level),
            size_bytes: meta.size_bytes,
            toc_crc32c: meta.toc_crc32c,
            log_ranges: meta.log_ranges.iter().map(Into::into).collect(),
            epoch: meta.epoch,
            datasets: meta.datasets.iter().map(Into::into).collect(),
            sources: meta.sources.clone(),
            part: meta.part,
            parts: meta.parts,
        }
    }
}

impl TryFrom<wire::BlockEntry> for BlockMeta {
    type Error = Error;

    fn try_from(entry: wire::BlockEntry) -> Result<Self, Error> {
        let level = u8::try_from(entry.level).map_err(|_| Error::Range {
            field: "block.level",
            value: u64::from(entry.level),
            max: u64::from(u8::MAX),
        })?;
        Ok(Self {
            path: entry.path,
            level,
            size_bytes: entry.size_bytes,
            toc_crc32c: entry.toc_crc32c,
            log_ranges: entry.log_ranges.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            epoch: entry.epoch,
            datasets: entry.datasets.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            sources: entry.sources,
            part: entry.part,
            parts: entry.parts,
        })
    }
}

impl From<&LogRange> for wire::LogRange {
    fn from(range: &LogRange) -> Self {
        Self {
            partition: range.log.partition.0,
            log: range.log.log,
            first: range.first.0,
            next: range.next.0,
        }
    }
}

impl TryFrom<wire::LogRange> for LogRange {
    type Error = Error;

    fn try_from(range: wire::LogRange) -> Result<Self, Error> {
        if range.next < range.first {
            return Err(Error::Backwards {
                field: "block.log_ranges",
                begin: i128::from(range.first),
                end: i128::from(range.next),
            });
        }
        Ok(Self {
            log: LogId { partition: Partition(range.partition), log: range.log },
            first: Offset(range.first),
            next: Offset(range.next),
        })
    }
}

impl From<&Cover> for wire::Cover {
    fn from(cover: &Cover) -> Self {
        let bound =
            |bound: &ScopeBound| wire::ScopeBound { value: bound.value.clone(), label: bound.label.clone() };
        Self {
            range: Some((&cover.range).into()),
            from: cover.from.as_ref().map(bound),
            to: cover.to.as_ref().map(bound),
            class: cover.class.map(|class| wire::RetentionClass { rules: class.rules, index: class.index }),
        }
    }
}

impl TryFrom<wire::Cover> for Cover {
    type Error = Error;

    fn try_from(cover: wire::Cover) -> Result<Self, Error> {
        let bound = |bound: wire::ScopeBound| ScopeBound { value: bound.value, label: bound.label };
        Ok(Self {
            // An absent message is one of zeros, as everywhere in proto3.
            range: cover.range.unwrap_or_default().try_into()?,
            from: cover.from.map(bound),
            to: cover.to.map(bound),
            class: cover.class.map(|class| RetentionClass { rules: class.rules, index: class.index }),
        })
    }
}

impl From<&DatasetMeta> for wire::Dataset {
    fn from(meta: &DatasetMeta) -> Self {
        Self {
            tenant: meta.tenant.id.as_str().to_owned(),
            tenant_number: meta.tenant.number.0,
            first_ns: meta.first_ns,
            last_ns: meta.last_ns,
            series: meta.series,
            profiles: meta.profiles,
            samples: meta.samples,
            types: meta.types.iter().map(Into::into).collect(),
            scopes: meta.scopes.clone(),
            labels: meta.labels.iter().map(Into::into).collect(),
            sections: meta.sections.iter().map(Into::into).collect(),
            deletions_done: meta.deletions_done,
            covers: meta.covers.iter().map(Into::into).collect(),
            profiles_left_out: meta.profiles_left_out,
            retention_selector: meta.retention_selector.clone(),
        }
    }
}

impl TryFrom<wire::Dataset> for DatasetMeta {
    type Error = Error;

    fn try_from(dataset: wire::Dataset) -> Result<Self, Error> {
        let id = TenantId::new(&dataset.tenant)
            .map_err(|source| Error::Tenant { field: "block.datasets.tenant", source })?;
        if dataset.last_ns < dataset.first_ns {
            return Err(Error::Backwards {
                field: "block.datasets.first_ns",
                begin: i128::from(dataset.first_ns),
                end: i128::from(dataset.last_ns),
            });
        }
        Ok(Self {
            tenant: Tenant { id, number: TenantNumber(dataset.tenant_number) },
            first_ns: dataset.first_ns,
            last_ns: dataset.last_ns,
            series: dataset.series,
            profiles: dataset.profiles,
            samples: dataset.samples,
            types: dataset.types.into_iter().map(Into::into).collect(),
            scopes: dataset.scopes,
            labels: dataset.labels.into_iter().map(Into::into).collect(),
            sections: dataset.sections.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            deletions_done: dataset.deletions_done,
            covers: dataset.covers.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            profiles_left_out: dataset.profiles_left_out,
            retention_selector: dataset.retention_selector,
        })
    }
}

impl From<&ProfileType> for wire::ProfileType {
    fn from(ty: &ProfileType) -> Self {
        Self {
            name: ty.name.to_string(),
            sample_type: ty.sample_type.to_string(),
            sample_unit: ty.sample_unit.to_string(),
            period_type: ty.period_type.to_string(),
            period_unit: ty.period_unit.to_string(),
            delta: ty.delta,
        }
    }
}

impl From<wire::ProfileType> for ProfileType {
    fn from(ty: wire::ProfileType) -> Self {
        Self {
            name: ty.name.into(),
            sample_type: ty.sample_type.into(),
            sample_unit: ty.sample_unit.into(),
            period_type: ty.period_type.into(),
            period_unit: ty.period_unit.into(),
            delta: ty.delta,
        }
    }
}

impl From<&LabelSummary> for wire::LabelSummary {
    fn from(summary: &LabelSummary) -> Self {
        Self {
            name: summary.name.clone(),
            distinct: summary.distinct,
            on_every_series: summary.on_every_series,
            values: summary.values.clone(),
        }
    }
}

impl From<wire::LabelSummary> for LabelSummary {
    fn from(summary: wire::LabelSummary) -> Self {
        Self {
            name: summary.name,
            distinct: summary.distinct,
            on_every_series: summary.on_every_series,
            values: summary.values,
        }
    }
}

impl From<&SectionMeta> for wire::Section {
    fn from(meta: &SectionMeta) -> Self {
        Self {
            kind: meta.kind as u32,
            offset: meta.offset,
            length: meta.length,
            rows: meta.rows,
            crc32c: meta.crc32c,
        }
    }
}

impl TryFrom<wire::Section> for SectionMeta {
    type Error = Error;

    fn try_from(section: wire::Section) -> Result<Self, Error> {
        let kind = SectionKind::from_number(section.kind)
            .ok_or(Error::SectionKind { field: "block.datasets.sections.kind", value: section.kind })?;
        // A section that wraps around the end of all objects would defeat every check behind it.
        if section.offset.checked_add(section.length).is_none() {
            return Err(Error::Range {
                field: "block.datasets.sections.length",
                value: section.length,
                max: u64::MAX - section.offset,
            });
        }
        Ok(Self {
            kind,
            offset: section.offset,
            length: section.length,
            rows: section.rows,
            crc32c: section.crc32c,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> BlockMeta {
        BlockMeta {
            path: "l0/x.cbm".into(),
            level: 0,
            size_bytes: 123,
            toc_crc32c: u32::MAX,
            log_ranges: vec![LogRange {
                log: LogId { partition: Partition(3), log: 9 },
                first: Offset(10),
                next: Offset(20),
            }],
            epoch: 7,
            datasets: vec![DatasetMeta {
                tenant: Tenant { id: TenantId::anonymous(), number: TenantNumber(1) },
                first_ns: -5,
                last_ns: i64::MAX,
                series: 1,
                profiles: 2,
                samples: 3,
                types: vec!["process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta".parse().unwrap()],
                scopes: vec!["api".into()],
                labels: vec![LabelSummary {
                    name: "service_name".into(),
                    distinct: 1,
                    on_every_series: true,
                    values: vec!["api".into()],
                }],
                sections: SectionKind::ALL
                    .map(|kind| SectionMeta { kind, offset: 1, length: 2, rows: 3, crc32c: 4 })
                    .to_vec(),
                deletions_done: 5,
                covers: vec![Cover {
                    range: LogRange {
                        log: LogId { partition: Partition(3), log: 9 },
                        first: Offset(12),
                        next: Offset(18),
                    },
                    from: Some(ScopeBound { value: "api".into(), label: "service_name".into() }),
                    to: None,
                    class: Some(RetentionClass { rules: 4, index: 2 }),
                }],
                profiles_left_out: 6,
                retention_selector: Some("{namespace=\"ci\"}".into()),
            }],
            sources: vec!["l0/w.cbm".into()],
            part: 1,
            parts: 2,
        }
    }

    #[test]
    fn a_block_comes_back_whole() {
        let meta = example();
        assert_eq!(BlockMeta::try_from(wire::BlockEntry::from(&meta)), Ok(meta));
    }

    #[test]
    fn impossible_values_are_refused_by_field() {
        #[track_caller]
        fn check(spoil: impl FnOnce(&mut wire::BlockEntry), message: &str) {
            let mut entry = wire::BlockEntry::from(&example());
            spoil(&mut entry);
            assert_eq!(BlockMeta::try_from(entry).unwrap_err().to_string(), message);
        }
        check(|e| e.level = 256, "block.level is 256, at most 255 is possible");
        check(|e| e.log_ranges[0].next = 9, "block.log_ranges ends at 9, before its begin at 10");
        check(|e| e.datasets[0].tenant = "..".into(), "block.datasets.tenant is no tenant name");
        check(|e| e.datasets[0].last_ns = -6, "block.datasets.first_ns ends at -6, before its begin at -5");
        check(
            |e| e.datasets[0].sections[0].kind = 99,
            "block.datasets.sections.kind is 99, which is no kind of section",
        );
        check(
            |e| e.datasets[0].sections[0].length = u64::MAX,
            "block.datasets.sections.length is 18446744073709551615, at most 18446744073709551614 is possible",
        );
    }
}
