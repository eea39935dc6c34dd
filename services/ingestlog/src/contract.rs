//! What every log promises, as code: each implementation's tests run [`upholds`], those that keep records beyond
//! the process [`survives`] as well. They panic where a promise is broken.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tokio::task::JoinSet;

use cambium_model::block::Offset;

use crate::log::{Entry, Error, Log, RECORD_BYTES_MAX};

/// How many appends run at the same time in the concurrency law.
const APPENDERS: usize = 16;

/// How many appends each of them makes, one after the other.
const APPENDS_EACH: usize = 25;

/// Runs every law on a log of its own; `fresh` opens an empty log with this number.
pub async fn upholds(fresh: impl AsyncFn(u32) -> Arc<dyn Log>) {
    an_empty_log_holds_nothing(&*fresh(1).await).await;
    records_are_read_in_the_order_of_appends(&*fresh(2).await).await;
    reading_starts_anywhere_inside(&*fresh(3).await).await;
    reading_is_bounded_but_makes_progress(&*fresh(4).await).await;
    concurrent_appends_get_dense_offsets(fresh(5).await).await;
    truncation_keeps_the_rest_and_the_offsets(&*fresh(6).await).await;
    a_record_too_large_is_refused(&*fresh(7).await).await;
    a_closed_log_refuses(&*fresh(8).await).await;
    whoever_waits_hears_of_appends(fresh(9).await).await;
    whoever_waits_hears_of_the_end(fresh(10).await).await;
}

/// Runs the laws of durability; `open` opens the log with this number, be it new or closed before.
pub async fn survives(open: impl AsyncFn(u32) -> Arc<dyn Log>) {
    let log = open(1).await;
    append(&*log, 0..5).await;
    log.close().await;

    let log = open(1).await;
    assert_eq!(log.next(), Offset(5), "reopening keeps the end");
    assert_eq!(read_all(&*log, Offset(0)).await, records(0..5), "reopening keeps the records");
    append(&*log, 5..8).await;
    log.truncate(Offset(8)).await.expect("the end can be truncated to");
    log.close().await;

    let log = open(1).await;
    assert_eq!(log.next(), Offset(8), "a log that was emptied remembers its end");
    append(&*log, 8..10).await;
    assert_eq!(read_all(&*log, Offset(8)).await, records(8..10), "appends go on behind it");
    log.close().await;
}

async fn an_empty_log_holds_nothing(log: &dyn Log) {
    assert_eq!((log.first(), log.next()), (Offset(0), Offset(0)));
    assert_eq!(log.read(Offset(0), 1).await.expect("the end can be read from"), []);
    log.truncate(Offset(0)).await.expect("an empty log can be truncated");
    assert_eq!(log.next(), Offset(0));
}

async fn records_are_read_in_the_order_of_appends(log: &dyn Log) {
    append(log, 0..20).await;
    assert_eq!(log.next(), Offset(20));
    assert_eq!(read_all(log, Offset(0)).await, records(0..20));
    assert_eq!(log.stats().appended_records, 20);
}

async fn reading_starts_anywhere_inside(log: &dyn Log) {
    append(log, 0..10).await;
    for from in 0..=10 {
        assert_eq!(read_all(log, Offset(from)).await, records(from..10), "from {from}");
    }
    let beyond = log.read(Offset(11), 1).await;
    assert!(matches!(beyond, Err(Error::OutOfRange { next: Offset(10), .. })), "{beyond:?}");
}

async fn reading_is_bounded_but_makes_progress(log: &dyn Log) {
    append(log, 0..10).await;
    let size = payload(0).len();
    for (bytes_max, count) in [(0, 1), (1, 1), (size, 1), (2 * size - 1, 1), (2 * size, 2), (7 * size + 1, 7)]
    {
        let entries = log.read(Offset(0), bytes_max).await.expect("offset 0 is there");
        assert_eq!(entries, records(0..count), "at most {bytes_max} bytes");
    }
}

async fn concurrent_appends_get_dense_offsets(log: Arc<dyn Log>) {
    let mut appenders = JoinSet::new();
    for appender in 0..APPENDERS {
        let log = Arc::clone(&log);
        appenders.spawn(async move {
            let mut written = Vec::new();
            for number in 0..APPENDS_EACH {
                let record = Bytes::from(format!("appender {appender} record {number}"));
                let offset = log.append(record.clone()).await.expect("nothing fails here");
                written.push(Entry::Record { offset, payload: record });
            }
            assert!(written.is_sorted_by_key(Entry::next), "one appender's offsets rise");
            written
        });
    }
    let mut written = appenders.join_all().await.concat();
    written.sort_by_key(Entry::next);
    assert_eq!(written.len(), APPENDERS * APPENDS_EACH);
    assert_eq!(read_all(&*log, Offset(0)).await, written, "each record once, at its offset");
}

async fn truncation_keeps_the_rest_and_the_offsets(log: &dyn Log) {
    append(log, 0..10).await;
    for _again in 0..2 {
        log.truncate(Offset(4)).await.expect("offset 4 is inside");
        assert!(log.first() <= Offset(4));
        assert_eq!(read_all(log, Offset(4)).await, records(4..10));
    }
    log.truncate(Offset(2)).await.expect("what is truncated already can be truncated");
    assert_eq!(read_all(log, Offset(4)).await, records(4..10));

    log.truncate(Offset(10)).await.expect("all can be truncated");
    assert_eq!((log.first(), log.next()), (Offset(10), Offset(10)), "nothing is left but the end");
    let before = log.read(Offset(9), 1).await;
    assert!(matches!(before, Err(Error::OutOfRange { first: Offset(10), .. })), "{before:?}");

    append(log, 10..12).await;
    log.truncate(Offset(99)).await.expect("past the end means the end");
    append(log, 12..14).await;
    assert_eq!(read_all(log, Offset(12)).await, records(12..14));
}

async fn a_record_too_large_is_refused(log: &dyn Log) {
    // Zeroed pages cost nothing as long as nobody reads them.
    let refused = log.append(Bytes::from(vec![0; RECORD_BYTES_MAX + 1])).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert_eq!(log.append(Bytes::new()).await.expect("an empty record is a record"), Offset(0));
    let entries = log.read(Offset(0), 0).await.expect("offset 0 is there");
    assert_eq!(entries, [Entry::Record { offset: Offset(0), payload: Bytes::new() }]);
}

async fn a_closed_log_refuses(log: &dyn Log) {
    append(log, 0..1).await;
    log.close().await;
    log.close().await;
    let refused = log.append(payload(1)).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    assert_eq!(log.next(), Offset(1));
}

async fn whoever_waits_hears_of_appends(log: Arc<dyn Log>) {
    let waiting = |from| {
        let log = Arc::clone(&log);
        async move {
            log.wait(Offset(from)).await.expect("nothing fails here");
            assert!(log.next() > Offset(from), "the end is past {from}");
        }
    };
    let mut first = pin!(waiting(0));
    assert!(poll_once(first.as_mut()).await.is_none(), "nothing is there");
    let (mut again, mut third) = (pin!(waiting(0)), pin!(waiting(2)));
    assert!(poll_once(again.as_mut()).await.is_none(), "nothing is there");
    assert!(poll_once(third.as_mut()).await.is_none(), "nothing is there");

    append(&*log, 0..2).await;
    first.await;
    again.await;
    waiting(0).await;
    waiting(1).await;
    assert!(poll_once(third.as_mut()).await.is_none(), "two are not three");
    assert_eq!(read_all(&*log, Offset(0)).await, records(0..2), "waiting takes nothing away");
    append(&*log, 2..3).await;
    third.await;
    log.truncate(Offset(3)).await.expect("all can be truncated");
    waiting(0).await;
}

async fn whoever_waits_hears_of_the_end(log: Arc<dyn Log>) {
    let mut waiting = pin!(log.wait(Offset(0)));
    assert!(poll_once(waiting.as_mut()).await.is_none(), "nothing is there");
    log.close().await;
    let ended = waiting.await;
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    let late = log.wait(Offset(0)).await;
    assert!(matches!(late, Err(Error::Closed)), "{late:?}");
}

/// What a future says when it is asked once.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Appends the records of these offsets, one after the other.
async fn append(log: &dyn Log, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        let appended = log.append(payload(offset)).await.expect("nothing fails here");
        assert_eq!(appended, Offset(offset), "offsets are given in the order of appends");
    }
}

/// Everything from an offset on, page by page.
async fn read_all(log: &dyn Log, from: Offset) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let reached = entries.last().map_or(from, Entry::next);
        let page = log.read(reached, 100).await.expect("the end of a page is inside the log");
        if page.is_empty() {
            return entries;
        }
        entries.extend(page);
    }
}

fn records(offsets: std::ops::Range<u64>) -> Vec<Entry> {
    offsets.map(|offset| Entry::Record { offset: Offset(offset), payload: payload(offset) }).collect()
}

/// The record that the laws append at this offset; all have the same size.
fn payload(offset: u64) -> Bytes {
    format!("record number {offset:08}").into()
}
