//! Profiles of the past: read and checked as pushes are, but for limits that only mean something now (rate, series at a
//! time, the window of acceptance). What becomes of them is the caller's business.

use cambium_metastore::Symbols;
use cambium_model::limits::TenantLimits;
use cambium_model::profile::{Profile, ProfileId};
use cambium_model::stacktrace::{BuildRef, LocationId};
use cambium_model::symbols::{Location, Mapping};
use cambium_model::tenant::Tenant;
use cambium_proto::pprof;

use crate::decode::{Identified, Worker, identify, unknown_locations, unknown_objects};
use crate::error::Error;
use crate::service::Push;

/// Reads one profile after the other.
#[derive(Debug, Default)]
pub struct Reader {
    worker: Worker,
}

/// A profile that was read.
#[derive(Debug)]
pub struct Historic {
    /// The profile; its time is 0 where neither the push nor the profile itself has one.
    pub profile: Profile,
    /// Samples in it, as the sender counts them.
    pub samples: u64,
    /// Names that must be written before it.
    pub locations: Vec<(LocationId, Location)>,
    /// Objects that must be written before it.
    pub objects: Vec<(BuildRef, Mapping)>,
}

impl Historic {
    /// The profile's id: the same for the same bytes, labels and time.
    pub fn id(&self) -> ProfileId {
        self.profile.id
    }
}

impl Reader {
    /// Reads the push of this tenant.
    ///
    /// # Errors
    /// What a push would be refused with for good.
    pub fn read(
        &mut self,
        tenant: &Tenant,
        limits: &TenantLimits,
        symbols: &Symbols,
        push: &Push,
    ) -> Result<Historic, Error> {
        let bytes_max = limits.request_body_bytes_max;
        if push.body.len() as u64 > bytes_max {
            return Err(Error::BodyTooLarge { limit: bytes_max, name: "request_body_bytes_max" });
        }
        let Identified { id, labels, name } = identify(tenant, limits, push)?;
        let Worker { decompressor, decoder } = &mut self.worker;
        let profile_limits = pprof::Limits::from(limits);
        let raw = decompressor.decompress(&push.body, profile_limits.bytes_max)?;
        let addresses_relative = push.addresses_relative;
        let decoded = decoder.decode(
            raw,
            &profile_limits,
            pprof::Push { id, labels, name: name.as_deref(), addresses_relative },
        )?;
        let locations = unknown_locations(symbols, tenant, &decoded);
        let objects = unknown_objects(symbols, tenant, &decoded);
        let samples = decoded.samples as u64;
        let mut profile = decoded.profile;
        profile.time_ns = push.time_ns.unwrap_or(profile.time_ns);
        Ok(Historic { profile, samples, locations, objects })
    }
}
