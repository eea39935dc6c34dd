//! Historic profiles straight into blocks, past the log and the window of acceptance.
//!
//! ```text
//!   file ─► read, checked ─► known? ─► names ─► head of its day ─► block of level 0 of the tenant's import log
//!                                                     │ files | bytes           │
//!                                                     └──── ONE transaction: entry + offset + which profiles are in it
//! ```
//!
//! An import is a log that nobody keeps: partition [`IMPORTS`], the tenant's number, an offset for each file. So blocks are
//! committed, merged, counted and found again in the bucket like an ingester's.
//!
//! Laws: a profile of the same bytes, labels and time is imported once, whenever the import is killed and however its files
//! are grouped the next time; memory is bounded by [`HEADS_BYTES_MAX`] and one file.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use cambium_blocks::layout;
use cambium_blocks::writer::{Compression, encode, put};
use cambium_distributor::history::{Historic, Reader};
use cambium_distributor::service::Push;
use cambium_ingester::head::Head;
use cambium_metastore::catalogue::FlushCommit;
use cambium_model::block::{IMPORTS, LogId, LogRange, Offset};
use cambium_model::limits::TenantLimits;
use cambium_model::profile::ProfileId;
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_model::time::DAY_NS;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::offline::Offline;

/// Memory of the heads of all days together, past which the largest becomes a block.
const HEADS_BYTES_MAX: usize = 128 << 20;

/// Memory of a head past which it becomes a block.
const HEAD_BYTES_MAX: usize = 32 << 20;

/// Files of a block: each has a key in its transaction, which stays under 200.
const FILES_MAX: usize = 180;

/// What became of a file.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is taken; it is in a block once the import has ended well.
    Taken {
        /// Samples in it.
        samples: u64,
    },
    /// It was imported before.
    Known,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Push(#[from] cambium_distributor::Error),
    #[error("it says no time: give one in a manifest")]
    NoTime,
    #[error("its time lies in the future")]
    Future,
    #[error("it is older than the tenant's retention (retention_secs): it would be removed at once")]
    TooOld,
}

/// Whether anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    /// Only read and checked.
    Check,
}

/// An import of one tenant's profiles.
pub(crate) struct Import<'a> {
    offline: &'a Offline,
    mode: Mode,
    tenant: Tenant,
    limits: TenantLimits,
    reader: Reader,
    log: LogId,
    epoch: u64,
    next: Offset,
    days: BTreeMap<i64, Day>,
    waiting: HashSet<ProfileId>,
    blocks: u64,
}

/// What is to become a block: a day's profiles.
struct Day {
    head: Head,
    ids: Vec<ProfileId>,
}

impl<'a> Import<'a> {
    /// Begins: whoever imported for the tenant before can commit nothing any more, and what it put without committing it is
    /// removed, so that no rebuilt catalogue finds it.
    pub(crate) async fn begin(offline: &'a Offline, id: &TenantId, mode: Mode) -> anyhow::Result<Self> {
        let tenant = match mode {
            Mode::Write => offline.tenants.resolve_or_create(id).await?,
            // A tenant that is not there has imported nothing: any number will do.
            Mode::Check => {
                let known = offline.tenants.resolve(id).await?;
                known.unwrap_or_else(|| Tenant { id: id.clone(), number: TenantNumber(u32::MAX) })
            }
        };
        let log = LogId { partition: IMPORTS, log: tenant.number.0 };
        let mut import = Self {
            offline,
            mode,
            limits: offline.limits.of(id).clone(),
            tenant,
            reader: Reader::default(),
            log,
            epoch: 0,
            next: Offset(0),
            days: BTreeMap::new(),
            waiting: HashSet::new(),
            blocks: 0,
        };
        if mode == Mode::Write {
            let state = offline.catalogue.open_log(log, "import").await?;
            (import.epoch, import.next) = (state.epoch, state.committed_next);
            import.remove_uncommitted().await?;
        }
        Ok(import)
    }

    async fn remove_uncommitted(&self) -> anyhow::Result<()> {
        let folder = Path::from(layout::flushed_folder(IMPORTS));
        let listed: Vec<_> = self.offline.store.list(Some(&folder)).try_collect().await?;
        for object in listed {
            let place = layout::flushed_place(object.location.as_ref());
            if place.is_some_and(|(log, first)| log == self.log && first >= self.next) {
                self.offline.store.delete(&object.location).await?;
            }
        }
        Ok(())
    }

    /// Takes a file. The outer error ends the import: what was committed before stays.
    pub(crate) async fn take(&mut self, push: &Push) -> anyhow::Result<Result<Outcome, Refused>> {
        let read = self.reader.read(&self.tenant, &self.limits, &self.offline.symbols, push);
        let historic = match read.map_err(Refused::from).and_then(|historic| self.check_time(historic)) {
            Ok(historic) => historic,
            Err(refused) => return Ok(Err(refused)),
        };
        let (id, number) = (historic.id(), self.tenant.number);
        if self.waiting.contains(&id) || self.offline.catalogue.imported(number, &[id]).await? == [true] {
            return Ok(Ok(Outcome::Known));
        }
        self.waiting.insert(id);
        let samples = historic.samples;
        if self.mode == Mode::Check {
            return Ok(Ok(Outcome::Taken { samples }));
        }
        self.offline.symbols.write_missing(number, &historic.locations).await?;
        self.offline.symbols.write_missing_objects(number, &historic.objects).await?;
        let place = historic.profile.time_ns.div_euclid(DAY_NS);
        let tenant = &self.tenant;
        let day = self
            .days
            .entry(place)
            .or_insert_with(|| Day { head: Head::new(tenant.clone()), ids: Vec::new() });
        day.head.add(&historic.profile, &self.limits.scope_labels);
        day.ids.push(id);
        if day.ids.len() >= FILES_MAX || day.head.bytes() >= HEAD_BYTES_MAX {
            self.cut(place).await?;
        } else if self.days.values().map(|day| day.head.bytes()).sum::<usize>() >= HEADS_BYTES_MAX {
            let largest = self.days.iter().max_by_key(|(_, day)| day.head.bytes()).map(|(place, _)| *place);
            self.cut(largest.unwrap_or(place)).await?;
        }
        Ok(Ok(Outcome::Taken { samples }))
    }

    fn check_time(&self, historic: Historic) -> Result<Historic, Refused> {
        let (time_ns, now_ns) = (historic.profile.time_ns, self.offline.clock.now_ns());
        match time_ns {
            0 => Err(Refused::NoTime),
            _ if time_ns > now_ns => Err(Refused::Future),
            _ if !self.limits.keeps(None, time_ns, now_ns) => Err(Refused::TooOld),
            _ => Ok(historic),
        }
    }

    /// Makes a block of a day's profiles.
    async fn cut(&mut self, place: i64) -> anyhow::Result<()> {
        let Some(Day { head, ids }) = self.days.remove(&place) else { return Ok(()) };
        let next = Offset(self.next.0 + ids.len() as u64);
        let range = LogRange { log: self.log, first: self.next, next };
        let block = encode(&[head.into_dataset()], range, self.epoch, 0, Compression::Hot)?;
        put(self.offline.store.as_ref(), &block).await?;
        fail::fail_point!("import-before-commit");
        let flush = FlushCommit { range, epoch: self.epoch, block: Some(block.meta), tenure: None };
        self.offline.catalogue.commit_import(&flush, self.tenant.number, &ids).await?;
        fail::fail_point!("import-after-commit");
        for id in &ids {
            self.waiting.remove(id);
        }
        self.next = next;
        self.blocks += 1;
        Ok(())
    }

    /// Makes blocks of what is left. Returns how many the import has made.
    pub(crate) async fn end(mut self) -> anyhow::Result<u64> {
        while let Some(place) = self.days.first_key_value().map(|(place, _)| *place) {
            self.cut(place).await?;
        }
        Ok(self.blocks)
    }
}

/// A file's bytes as the push that they would have been.
pub(crate) fn push(
    body: Vec<u8>,
    labels: cambium_model::labels::Labels,
    name: Option<String>,
    time_ns: Option<i64>,
) -> Push {
    Push { body: Bytes::from(body), labels, name, time_ns, id: None, addresses_relative: false }
}
