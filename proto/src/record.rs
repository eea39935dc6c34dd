//! What the log carries: the profiles of one push to one partition, normalised, as bytes.
//!
//! ```text
//! version (1 byte) | tenant number | tenant name | count of profiles | profile …
//!
//! profile: id [16]
//!          count | (name, value) …                             labels, sorted by name
//!          count | (5 texts, delta [1]) …                      profile types
//!          time_ns, duration_ns, period                        signed
//!          count | id [16] …                                   locations
//!          count | parent column | location column             nodes; a parent as the distance back to it, 0 for none
//!          count | node + 1 column, 0 for no stack             samples
//!                  value columns, one per type                 signed
//!          count of label sets, 0 for none
//!                | (count | (name, kind [1], value …) …) …     all but the first set, which is empty
//!                | label set column
//! ```
//!
//! Numbers are varints, signed ones in zigzag; a text is its length and its bytes. A log is read by newer binaries
//! than those that wrote it, so a version, once released, is read for ever.
//!
//! [`decode`] trusts nothing: a count is believed only as far as the bytes behind it can fill it, and every position
//! is checked, so that the head may index without looking.

use std::sync::Arc;

use cambium_model::labels::{Labels, LabelsError};
use cambium_model::profile::{Profile, ProfileId, SampleLabelValue, SampleLabels};
use cambium_model::profile_type::ProfileType;
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use cambium_model::tenant::{Tenant, TenantId, TenantIdError, TenantNumber};

use crate::varint;

/// The version that [`encode`] writes.
pub const VERSION: u8 = 1;

const ID_BYTES: usize = 16;
const KIND_TEXT: u8 = 0;
const KIND_NUMBER: u8 = 1;

/// Why bytes are not a record. Every case means that the log was damaged or written by a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The record was written by a version that this one does not know.
    #[error("record has version {0}, this server reads version {VERSION}")]
    Version(u8),
    /// The bytes end, or a number does not, where this field should be.
    #[error("record is cut or garbled in {field} at byte {at}")]
    Cut {
        /// What was being read.
        field: &'static str,
        /// Position in the record.
        at: usize,
    },
    /// More of something than the bytes behind the count can hold.
    #[error("record claims {count} {field} at byte {at}, more than its bytes can hold")]
    Count {
        /// What is counted.
        field: &'static str,
        /// The claim.
        count: u64,
        /// Position behind the count.
        at: usize,
    },
    /// A position outside the table it points into, or a parent that does not come before its child.
    #[error("{field}[{index}] points to {target}, the table has {len}")]
    Index {
        /// The column.
        field: &'static str,
        /// The row in it.
        index: usize,
        /// Where it points to; for a parent, how far back.
        target: u64,
        /// What there is.
        len: usize,
    },
    /// A byte with no meaning.
    #[error("record has {value} for {field}")]
    Kind {
        /// What was being read.
        field: &'static str,
        /// What is there.
        value: u8,
    },
    /// A text that is not UTF-8.
    #[error("{field} at byte {at} is not UTF-8")]
    Text {
        /// What was being read.
        field: &'static str,
        /// Position in the record.
        at: usize,
    },
    /// A tenant's name that no tenant can have.
    #[error("record's tenant")]
    Tenant(#[source] TenantIdError),
    /// Labels that are no label set.
    #[error("record's labels")]
    Labels(#[source] LabelsError),
    /// Bytes after the last profile.
    #[error("record has {0} bytes after its last profile")]
    Trailing(usize),
}

/// The record of these profiles of one tenant.
pub fn encode(tenant: &Tenant, profiles: &[Profile]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + profiles.iter().map(size_hint).sum::<usize>());
    out.push(VERSION);
    varint::put(&mut out, u64::from(tenant.number.0));
    put_text(&mut out, tenant.id.as_str());
    put_len(&mut out, profiles.len());
    for profile in profiles {
        put_profile(&mut out, profile);
    }
    out
}

/// The tenant and the profiles of a record.
pub fn decode(bytes: &[u8]) -> Result<(Tenant, Vec<Profile>), Error> {
    let mut from = Cursor { bytes, at: 0 };
    let version = from.byte("version")?;
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let number = TenantNumber(from.small("tenant number")?);
    let id = TenantId::new(from.text("tenant")?).map_err(Error::Tenant)?;
    // The smallest profile: its id and nine fields of a byte each.
    let profiles = from.many("profiles", ID_BYTES + 9, take_profile)?;
    if from.left() > 0 {
        return Err(Error::Trailing(from.left()));
    }
    Ok((Tenant { id, number }, profiles))
}

/// Bytes that a profile takes at about: a guess that makes growing rare.
fn size_hint(profile: &Profile) -> usize {
    256 + profile.locations.len() * ID_BYTES
        + profile.nodes.len() * 4
        + profile.sample_nodes.len() * 3
        + profile.values.len() * 4
}

fn put_profile(out: &mut Vec<u8>, profile: &Profile) {
    out.extend_from_slice(&profile.id.0);
    put_len(out, profile.labels.len());
    for (name, value) in profile.labels.iter() {
        put_text(out, name);
        put_text(out, value);
    }
    put_len(out, profile.types.len());
    for ty in &profile.types {
        for part in [&ty.name, &ty.sample_type, &ty.sample_unit, &ty.period_type, &ty.period_unit] {
            put_text(out, part);
        }
        out.push(u8::from(ty.delta));
    }
    for number in [profile.time_ns, profile.duration_ns, profile.period] {
        varint::put_signed(out, number);
    }
    put_len(out, profile.locations.len());
    for location in &profile.locations {
        out.extend_from_slice(&location.0);
    }
    put_len(out, profile.nodes.len());
    for (i, node) in profile.nodes.iter().enumerate() {
        let back = if node.parent == NO_PARENT { 0 } else { i as u64 - u64::from(node.parent) };
        varint::put(out, back);
    }
    for node in &profile.nodes {
        varint::put(out, u64::from(node.location));
    }
    put_len(out, profile.sample_nodes.len());
    for &node in &profile.sample_nodes {
        // Wraps NO_PARENT to 0.
        varint::put(out, u64::from(node.wrapping_add(1)));
    }
    for &value in &profile.values {
        varint::put_signed(out, value);
    }
    put_sample_labels(out, profile);
}

fn put_sample_labels(out: &mut Vec<u8>, profile: &Profile) {
    put_len(out, profile.label_sets.len());
    for set in profile.label_sets.iter().skip(1) {
        put_len(out, set.len());
        for (name, value) in set {
            put_text(out, name);
            match value {
                SampleLabelValue::Text(text) => {
                    out.push(KIND_TEXT);
                    put_text(out, text);
                }
                SampleLabelValue::Number(number, unit) => {
                    out.push(KIND_NUMBER);
                    varint::put_signed(out, *number);
                    put_text(out, unit);
                }
            }
        }
    }
    for &set in &profile.sample_label_sets {
        varint::put(out, u64::from(set));
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    varint::put(out, len as u64);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn take_profile(from: &mut Cursor<'_>) -> Result<Profile, Error> {
    let id = ProfileId(from.array("profile id")?);
    let pairs = from.many("labels", 2, |from| Ok((from.text("label name")?, from.text("label value")?)))?;
    let labels = Labels::from_pairs(pairs).map_err(Error::Labels)?;
    let types = from.many("types", 6, take_type)?;
    let time_ns = from.signed("time_ns")?;
    let duration_ns = from.signed("duration_ns")?;
    let period = from.signed("period")?;
    let locations = take_locations(from)?;
    let nodes = take_nodes(from, locations.len())?;
    let samples = from.count("samples", 1)?;
    let sample_nodes = take_sample_nodes(from, samples, nodes.len())?;
    let claimed = (types.len() as u64).saturating_mul(samples as u64);
    let value_count = from.believe("values", claimed, 1)?;
    let mut values = Vec::with_capacity(value_count);
    for _ in 0..value_count {
        values.push(from.signed("value")?);
    }
    let (sample_label_sets, label_sets) = take_sample_labels(from, samples)?;
    Ok(Profile {
        id,
        labels,
        types,
        time_ns,
        duration_ns,
        period,
        locations,
        nodes,
        sample_nodes,
        values,
        sample_label_sets,
        label_sets,
    })
}

fn take_type(from: &mut Cursor<'_>) -> Result<ProfileType, Error> {
    let name = from.text("type name")?.into();
    let sample_type = from.text("sample type")?.into();
    let sample_unit = from.text("sample unit")?.into();
    let period_type = from.text("period type")?.into();
    let period_unit = from.text("period unit")?.into();
    let delta = match from.byte("delta")? {
        0 => false,
        1 => true,
        value => return Err(Error::Kind { field: "delta", value }),
    };
    Ok(ProfileType { name, sample_type, sample_unit, period_type, period_unit, delta })
}

fn take_locations(from: &mut Cursor<'_>) -> Result<Vec<LocationId>, Error> {
    let count = from.count("locations", ID_BYTES)?;
    let bytes = from.slice("locations", count * ID_BYTES)?;
    Ok(bytes.as_chunks().0.iter().map(|id| LocationId(*id)).collect())
}

fn take_sample_nodes(from: &mut Cursor<'_>, samples: usize, nodes: usize) -> Result<Vec<u32>, Error> {
    let mut sample_nodes = Vec::with_capacity(samples);
    for index in 0..samples {
        // The inverse of the wrapping on the way in: 0 is NO_PARENT.
        let node = from.small("sample node")?.wrapping_sub(1);
        if node != NO_PARENT && node as usize >= nodes {
            let (field, target) = ("sample_nodes", u64::from(node));
            return Err(Error::Index { field, index, target, len: nodes });
        }
        sample_nodes.push(node);
    }
    Ok(sample_nodes)
}

fn take_nodes(from: &mut Cursor<'_>, locations: usize) -> Result<Vec<Node>, Error> {
    let count = from.count("nodes", 2)?;
    let mut nodes = Vec::with_capacity(count);
    for index in 0..count {
        let back = from.small("node parent")?;
        let parent = match back {
            0 => NO_PARENT,
            _ => (index as u32).checked_sub(back).ok_or_else(|| Error::Index {
                field: "nodes.parent",
                index,
                target: u64::from(back),
                len: index,
            })?,
        };
        nodes.push(Node { parent, location: 0 });
    }
    for (index, node) in nodes.iter_mut().enumerate() {
        node.location = from.small("node location")?;
        if node.location as usize >= locations {
            let target = u64::from(node.location);
            return Err(Error::Index { field: "nodes.location", index, target, len: locations });
        }
    }
    Ok(nodes)
}

fn take_sample_labels(from: &mut Cursor<'_>, samples: usize) -> Result<(Vec<u32>, Vec<SampleLabels>), Error> {
    // The first set takes no bytes.
    let claimed = from.number("label sets")?;
    if claimed == 0 {
        return Ok((Vec::new(), Vec::new()));
    }
    let others = from.believe("label sets", claimed - 1, 1)?;
    let mut sets = Vec::with_capacity(others + 1);
    sets.push(SampleLabels::new());
    for _ in 0..others {
        sets.push(from.many("sample labels", 3, take_sample_label)?);
    }
    let samples = from.believe("label set column", samples as u64, 1)?;
    let mut column = Vec::with_capacity(samples);
    for index in 0..samples {
        let set = from.small("label set")?;
        if set as usize >= sets.len() {
            let (field, target) = ("sample_label_sets", u64::from(set));
            return Err(Error::Index { field, index, target, len: sets.len() });
        }
        column.push(set);
    }
    Ok((column, sets))
}

fn take_sample_label(from: &mut Cursor<'_>) -> Result<(Arc<str>, SampleLabelValue), Error> {
    let name = from.text("sample label name")?.into();
    let value = match from.byte("sample label kind")? {
        KIND_TEXT => SampleLabelValue::Text(from.text("sample label value")?.into()),
        KIND_NUMBER => {
            let number = from.signed("sample label number")?;
            SampleLabelValue::Number(number, from.text("sample label unit")?.into())
        }
        value => return Err(Error::Kind { field: "sample label kind", value }),
    };
    Ok((name, value))
}

/// A position in a record.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn cut(&self, field: &'static str) -> Error {
        Error::Cut { field, at: self.at }
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, Error> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.cut(field))?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn number(&mut self, field: &'static str) -> Result<u64, Error> {
        // Not `ok_or`, which would build and drop an error for every number.
        let Some(number) = varint::take(self.bytes, &mut self.at) else { return Err(self.cut(field)) };
        Ok(number)
    }

    #[inline]
    fn small(&mut self, field: &'static str) -> Result<u32, Error> {
        u32::try_from(self.number(field)?).map_err(|_| self.cut(field))
    }

    #[inline]
    fn signed(&mut self, field: &'static str) -> Result<i64, Error> {
        self.number(field).map(varint::unzigzag)
    }

    fn slice(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        let slice = rest.get(..len).ok_or_else(|| self.cut(field))?;
        self.at += len;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Error> {
        Ok(self.slice(field, N)?.try_into().expect("a slice of N bytes"))
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, Error> {
        let len = self.count(field, 1)?;
        let at = self.at;
        std::str::from_utf8(self.slice(field, len)?).map_err(|_| Error::Text { field, at })
    }

    /// A count of things that take at least `bytes_min` each.
    fn count(&mut self, field: &'static str, bytes_min: usize) -> Result<usize, Error> {
        let count = self.number(field)?;
        self.believe(field, count, bytes_min)
    }

    /// The count, if the bytes left can hold as many.
    fn believe(&self, field: &'static str, count: u64, bytes_min: usize) -> Result<usize, Error> {
        if count > (self.left() / bytes_min) as u64 {
            return Err(Error::Count { field, count, at: self.at });
        }
        Ok(count as usize)
    }

    fn many<T>(
        &mut self,
        field: &'static str,
        bytes_min: usize,
        mut take: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        (0..self.count(field, bytes_min)?).map(|_| take(self)).collect()
    }
}

#[cfg(test)]
mod tests;
