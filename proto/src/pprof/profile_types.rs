//! What a profile measures: its name, and a type for each of its values.

use std::sync::Arc;

use cambium_model::profile_type::ProfileType;

use super::error::{Error, Place};

/// The well-known name for these sample types (type and unit) and this period type, else the first sample type.
///
/// Go's block and mutex profiles have the same types; both are `block` unless the sender names them.
pub fn default_name<'a>(sample_types: &[(&'a str, &'a str)], period_type: (&str, &str)) -> &'a str {
    let measures = |wanted: &[&str]| sample_types.iter().any(|(ty, _)| wanted.contains(ty));
    if measures(&["cpu"]) || period_type == ("cpu", "nanoseconds") {
        "process_cpu"
    } else if measures(&["inuse_space", "inuse_objects", "alloc_space", "alloc_objects", "space"]) {
        "memory"
    } else if measures(&["goroutine"]) {
        "goroutine"
    } else if measures(&["threadcreate"]) {
        "threadcreate"
    } else if measures(&["contentions"]) {
        "block"
    } else if sample_types == [("samples", "count"), ("time", "nanoseconds")] {
        "fgprof"
    } else {
        sample_types.first().map_or("", |(ty, _)| ty)
    }
}

/// A profile type for each sample type, in order. Values are of the profile's duration where it has one (Parca's
/// rule), else of an instant.
pub(super) fn profile_types(
    name: Option<&str>,
    sample_types: &[(&str, &str)],
    period_type: (&str, &str),
    duration_nanos: i64,
) -> Result<Vec<ProfileType>, Error> {
    let name: Arc<str> = match name {
        Some(name) => part(name, true, Place::Field("name"))?,
        // Where the name is not a well-known one, it is this sample type.
        None => {
            part(default_name(sample_types, period_type), true, Place::RowField("sample_type", 0, "type"))?
        }
    };
    let period_kind: Arc<str> = part(period_type.0, false, Place::Nested("period_type", "type"))?;
    let period_unit: Arc<str> = part(period_type.1, false, Place::Nested("period_type", "unit"))?;
    let mut types: Vec<ProfileType> = Vec::with_capacity(sample_types.len());
    for (index, (ty, unit)) in sample_types.iter().enumerate() {
        let ty = ProfileType {
            name: Arc::clone(&name),
            sample_type: part(ty, true, Place::RowField("sample_type", index, "type"))?,
            sample_unit: part(unit, false, Place::RowField("sample_type", index, "unit"))?,
            period_type: Arc::clone(&period_kind),
            period_unit: Arc::clone(&period_unit),
            delta: duration_nanos > 0,
        };
        if let Some(first) = types.iter().position(|other| *other == ty) {
            return Err(Error::SampleTypeRepeated { index, first });
        }
        types.push(ty);
    }
    Ok(types)
}

/// A part of a profile type, whose text is its parts joined by colons.
fn part(text: &str, required: bool, place: Place) -> Result<Arc<str>, Error> {
    if text.contains(':') || (required && text.is_empty()) {
        return Err(Error::TypePart { place, text: text.to_owned() });
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_profiles_have_names() {
        #[track_caller]
        fn check(sample_types: &[(&str, &str)], period_type: (&str, &str), name: &str) {
            assert_eq!(default_name(sample_types, period_type), name);
        }
        let samples = ("samples", "count");
        check(&[samples, ("cpu", "nanoseconds")], ("cpu", "nanoseconds"), "process_cpu");
        check(&[("cpu", "nanoseconds")], ("", ""), "process_cpu");
        check(&[samples], ("cpu", "nanoseconds"), "process_cpu");
        check(&[samples, ("time", "nanoseconds")], ("", ""), "fgprof");
        check(&[("alloc_objects", "count"), ("alloc_space", "bytes")], ("space", "bytes"), "memory");
        check(&[("inuse_objects", "count"), ("inuse_space", "bytes")], ("space", "bytes"), "memory");
        check(&[("goroutine", "count")], ("goroutine", "count"), "goroutine");
        check(&[("threadcreate", "count")], ("threadcreate", "count"), "threadcreate");
        check(&[("contentions", "count"), ("delay", "nanoseconds")], ("contentions", "count"), "block");
        check(&[("wall", "nanoseconds")], ("", ""), "wall");
    }
}
