//! Labels of samples.

use std::sync::Arc;

use cambium_model::profile::{SampleLabelValue, SampleLabels};
use cambium_proto::wire::ingester as wire;
use wire::sample_label::Value;

use super::{Malformed, has_length};

/// The sets as a message.
pub fn encode_label_sets(sets: &[SampleLabels]) -> wire::LabelSets {
    let label = |(name, value): &(Arc<str>, SampleLabelValue)| wire::SampleLabel {
        name: name.as_ref().to_owned(),
        value: Some(match value {
            SampleLabelValue::Text(text) => Value::Text(text.as_ref().to_owned()),
            SampleLabelValue::Number(value, unit) => {
                Value::Number(wire::Number { value: *value, unit: unit.as_ref().to_owned() })
            }
        }),
    };
    let set = |set: &SampleLabels| wire::LabelSet { labels: set.iter().map(label).collect() };
    wire::LabelSets { sets: sets.iter().map(set).collect() }
}

/// So many sets.
///
/// # Errors
/// [`Malformed`]
pub fn decode_label_sets(message: wire::LabelSets, expected: usize) -> Result<Vec<SampleLabels>, Malformed> {
    has_length("sets", message.sets.len(), expected)?;
    if message.sets.first().is_none_or(|set| !set.labels.is_empty()) {
        return Err(Malformed::NoEmpty("the list of label sets"));
    }
    let label = |label: wire::SampleLabel| {
        let value = match label.value.ok_or(Malformed::Missing("a label's value"))? {
            Value::Text(text) => SampleLabelValue::Text(text.into()),
            Value::Number(wire::Number { value, unit }) => SampleLabelValue::Number(value, unit.into()),
        };
        Ok((label.name.into(), value))
    };
    let set = |set: wire::LabelSet| set.labels.into_iter().map(label).collect();
    message.sets.into_iter().map(set).collect()
}
