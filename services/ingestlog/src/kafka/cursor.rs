//! The one that reads a partition: a task that owns the consumer's place.
//!
//! ```text
//!   Read, Follow ─► cursor ─► elsewhere? assign anew ─► take what the client has read ahead ─► entries
//!                      │
//!                      └─ nobody reads: take one, keep it in hand ─► the end is past it ─► who waits is woken
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use cambium_model::block::Offset;
use cambium_runtime::clock::Clock;

use super::client::is_refusal;
use super::log::Bounds;
use super::mark;
use super::partition::KafkaPartition;
use crate::log::{Entry, Error};

/// What the cursor is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// A page of entries from `from` up to `next` at the latest, which is past it.
    Read { from: u64, next: u64, bytes_max: usize, answer: oneshot::Sender<Result<Vec<Entry>, Error>> },
    /// Somebody waits for more: whoever is nowhere goes to the end.
    Follow,
}

pub(super) struct Cursor {
    pub partition: KafkaPartition,
    pub bounds: watch::Sender<Bounds>,
    pub clock: Arc<dyn Clock>,
    /// The offset that the consumer gives next; none before it is assigned and after it has failed.
    pub place: Option<u64>,
    /// What it has given and nobody has read: an entry, and perhaps a gap before it.
    pub held: VecDeque<Entry>,
}

impl Cursor {
    /// Does what it is asked to, and looks ahead from where it is meanwhile.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, shutdown: CancellationToken) {
        loop {
            let ahead = self.place.filter(|_| self.held.is_empty());
            tokio::select! {
                () = shutdown.cancelled() => return,
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::Read { from, next, bytes_max, answer }) => {
                        let page = self.page(from, next, bytes_max).await;
                        if page.is_err() {
                            self.lose();
                        }
                        // Whoever has gone away reads again from the same place, or not at all.
                        let _ = answer.send(page);
                    }
                    Some(Command::Follow) => self.follow(),
                },
                received = self.receive(ahead.unwrap_or_default()), if ahead.is_some() => {
                    if let Err(error) = received {
                        self.look_ahead_ended(&error);
                    }
                }
            }
        }
    }

    fn follow(&mut self) {
        let end = self.bounds.borrow().next;
        if self.place.is_none()
            && let Err(error) = self.go_to(end)
        {
            self.look_ahead_ended(&error);
        }
    }

    /// The next read meets the error again, and returns it.
    fn look_ahead_ended(&mut self, error: &Error) {
        tracing::warn!(partition = self.partition.number, %error, "reading ahead has ended");
        self.lose();
    }

    fn lose(&mut self) {
        self.place = None;
        self.held.clear();
    }

    /// Entries of `from` up to `next`, until they have `bytes_max`.
    async fn page(&mut self, from: u64, next: u64, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        self.go_to(from)?;
        let clock = Arc::clone(&self.clock);
        let mut too_late = clock.sleep(self.partition.timeout);
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut reached = from;
        while reached < next {
            let Some(entry) = self.held.pop_front() else {
                tokio::select! {
                    received = self.receive(reached) => received?,
                    () = &mut too_late => match entries.is_empty() {
                        true => return Err(self.partition.unanswered()),
                        false => break,
                    },
                }
                continue;
            };
            bytes += payload_bytes(&entry);
            if bytes > bytes_max && !entries.is_empty() {
                self.held.push_front(entry);
                break;
            }
            reached = entry.next().0;
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Lets the entry at `offset` be the next one.
    fn go_to(&mut self, offset: u64) -> Result<(), Error> {
        if self.held.front().map(first).or(self.place) != Some(offset) {
            self.lose();
            self.partition.assign(offset)?;
            self.place = Some(offset);
        }
        Ok(())
    }

    /// Takes what stands at the consumer's place, `at`, in hand. Nothing is lost where this is dropped.
    async fn receive(&mut self, at: u64) -> Result<(), Error> {
        loop {
            let message = match self.partition.consumer.recv().await {
                Ok(message) => message,
                Err(error) if is_out_of_range(&error) => return Err(self.bounds.borrow().out_of_range(at)),
                Err(error) if is_refusal(&error) => return Err(self.partition.failed(error)),
                // The client tries again by itself.
                Err(error) => {
                    tracing::debug!(partition = self.partition.number, %error, "kafka consumer");
                    continue;
                }
            };
            let offset = u64::try_from(message.offset()).expect("messages have offsets");
            if offset < at {
                // Of a place that was left.
                continue;
            }
            if offset > at {
                self.held.push_back(Entry::Gap { first: Offset(at), next: Offset(offset) });
            }
            self.held.push_back(mark::entry(Offset(offset), &message));
            self.place = Some(offset + 1);
            drop(message);
            Bounds::raise(&self.bounds, 0, offset + 1);
            return Ok(());
        }
    }
}

/// The offset where an entry begins.
fn first(entry: &Entry) -> u64 {
    match entry {
        Entry::Record { offset, .. } | Entry::Poison { offset, .. } => offset.0,
        Entry::Gap { first, .. } => first.0,
    }
}

pub(super) fn payload_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Record { payload, .. } | Entry::Poison { payload, .. } => payload.len(),
        Entry::Gap { .. } => 0,
    }
}

/// Whether the partition does not hold the offset that was assigned: `auto.offset.reset` is `error`.
fn is_out_of_range(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error.rdkafka_error_code(), Some(Code::AutoOffsetReset | Code::OffsetOutOfRange))
}
