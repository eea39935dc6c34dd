//! The series table.

use std::collections::btree_map::Entry;

use cambium_proto::wire::ingester as wire;

use super::{Malformed, all_below, has_length};
use crate::series_table::{LabelColumn, ScopeName, SeriesTable};

/// The table as a message.
pub fn encode_series(table: &SeriesTable) -> wire::SeriesTable {
    let scope = |scope: &ScopeName| wire::Scope {
        label: scope.label.as_ref().to_owned(),
        value: scope.value.as_ref().to_owned(),
    };
    let texts = |column: &LabelColumn| column.values.iter().map(|value| value.as_ref().to_owned()).collect();
    wire::SeriesTable {
        types: table.types.iter().map(Into::into).collect(),
        scopes: table.scopes.iter().map(scope).collect(),
        type_of: table.type_of.clone(),
        scope_of: table.scope_of.clone(),
        fingerprints: table.fingerprints.clone(),
        columns: table
            .columns
            .iter()
            .map(|(name, column)| wire::LabelColumn {
                name: name.as_ref().to_owned(),
                values: texts(column),
                codes: column.codes.clone(),
            })
            .collect(),
    }
}

/// A table of `series` rows.
///
/// # Errors
/// [`Malformed`]
pub fn decode_series(message: wire::SeriesTable, series: usize) -> Result<SeriesTable, Malformed> {
    let wire::SeriesTable { types, scopes, type_of, scope_of, fingerprints, columns } = message;
    has_length("type_of", type_of.len(), series)?;
    has_length("scope_of", scope_of.len(), series)?;
    has_length("fingerprints", fingerprints.len(), series)?;
    all_below("type_of", &type_of, types.len())?;
    all_below("scope_of", &scope_of, scopes.len())?;
    let scope = |scope: wire::Scope| ScopeName { value: scope.value.into(), label: scope.label.into() };
    let mut table = SeriesTable {
        types: types.into_iter().map(Into::into).collect(),
        scopes: scopes.into_iter().map(scope).collect(),
        type_of,
        scope_of,
        fingerprints,
        ..SeriesTable::default()
    };
    for wire::LabelColumn { name, values, codes } in columns {
        if codes.len() > series {
            has_length("codes", codes.len(), series)?;
        }
        all_below("codes", &codes, values.len())?;
        if values.first().is_none_or(|value| !value.is_empty()) {
            return Err(Malformed::NoEmpty("a label's list of values"));
        }
        let column = LabelColumn::new(values.into_iter().map(Into::into).collect(), codes);
        match table.columns.entry(name.as_str().into()) {
            Entry::Vacant(entry) if !name.is_empty() => entry.insert(column),
            _ => return Err(Malformed::LabelName(name)),
        };
    }
    Ok(table)
}
