//! Which rows of `rollup` are of which (type, scope, bucket).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::pages::{Pages, Pieces};
use crate::Error;
use crate::cache::Weigh;
use crate::dataset::RollupKey;

/// The rows of each key.
#[derive(Debug, Default)]
pub(crate) struct RollupIndex {
    pub(crate) rows: BTreeMap<RollupKey, Range<u64>>,
}

impl Weigh for RollupIndex {
    fn weight(&self) -> usize {
        self.rows.len() * (size_of::<RollupKey>() + size_of::<Range<u64>>())
    }
}

impl RollupIndex {
    /// The pieces that hold the key columns.
    pub(crate) fn wanted(pages: &Pages) -> Result<Vec<u32>, Error> {
        let mut wanted = Vec::new();
        for group in 0..pages.group_count() {
            for name in ["profile_type", "scope", "bucket_ns"] {
                let all = std::iter::once(pages.group_rows(group));
                pages.want(group, pages.column(name)?, all, &mut wanted)?;
            }
        }
        Ok(wanted)
    }

    pub(crate) fn read(pages: &Pages, pieces: &Arc<Pieces>) -> Result<Self, Error> {
        let mut index = Self::default();
        let mut last: Option<(RollupKey, Range<u64>)> = None;
        for group in 0..pages.group_count() {
            let rows = pages.group_rows(group);
            let (mut types, mut scopes, mut buckets) = (Vec::new(), Vec::new(), Vec::new());
            pages.u32_cursor(pieces, group, pages.column("profile_type")?)?.read(rows.clone(), &mut types)?;
            pages.u32_cursor(pieces, group, pages.column("scope")?)?.read(rows.clone(), &mut scopes)?;
            pages.i64_cursor(pieces, group, pages.column("bucket_ns")?)?.read(rows.clone(), &mut buckets)?;
            for (row, ((type_index, scope_index), bucket_ns)) in
                rows.zip(types.into_iter().zip(scopes).zip(buckets))
            {
                let key =
                    RollupKey { type_index: type_index as u32, scope_index: scope_index as u32, bucket_ns };
                match &mut last {
                    Some((held, rows)) if *held == key => rows.end = row + 1,
                    Some((held, _)) if *held > key => return Err(pages.place.corrupt("is not sorted")),
                    _ => index.rows.extend(last.replace((key, row..row + 1))),
                }
            }
        }
        index.rows.extend(last);
        Ok(index)
    }
}
