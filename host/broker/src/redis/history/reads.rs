//! Shares the reads of a history among concurrent callers.
//!
//! At most one read of its kind is under way for a history. Callers that come meanwhile share the next one, which covers what all
//! of them want. So the number of reads is bounded, however many clients join at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use signalbox_redis_client::Unavailable;
use tokio::sync::watch;

use crate::{HistoryPage, HistoryQuery, OwnedHistoryName, Retention};

/// The result of a read that several callers share.
pub(super) type SharedPage = Result<Option<Arc<HistoryPage>>, Unavailable>;

/// The read that a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WantedRead {
    pub(super) query: HistoryQuery,
    pub(super) retention: Retention,
    /// Whether the history is created if there is none.
    pub(super) creates: bool,
}

/// Reads with the same key can be shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReadKey {
    pub(super) name: OwnedHistoryName,
    /// See [`HistoryQuery::before`]. The newest messages before one number are not those before another.
    pub(super) before: Option<u64>,
}

/// The next read for each key. A key is present while reads are made for it.
#[derive(Debug, Default)]
pub(super) struct SharedReads(Mutex<HashMap<ReadKey, Option<SharedRead>>>);

/// A read for all callers that came before it began.
#[derive(Debug)]
pub(super) struct SharedRead {
    /// Covers the queries of all callers. The retention is that of the last one.
    pub(super) wanted: WantedRead,
    page: watch::Sender<Option<SharedPage>>,
}

/// A read that will be made.
#[derive(Debug)]
pub(super) struct PromisedPage(watch::Receiver<Option<SharedPage>>);

impl SharedReads {
    /// Joins the next read. If the second value is `true`, the caller must see to it that reads are made until
    /// [`SharedReads::begin`] returns `None`, each ended by [`SharedRead::finish`].
    pub(super) fn join(&self, key: &ReadKey, wanted: WantedRead) -> (PromisedPage, bool) {
        let mut reads = self.reads();
        let is_first = !reads.contains_key(key);
        let next = reads.entry(key.clone()).or_default();
        let read = next.get_or_insert_with(|| SharedRead {
            wanted,
            page: watch::Sender::new(None),
        });
        let WantedRead { query, creates, .. } = &mut read.wanted;
        query.after = query.after.min(wanted.query.after);
        query.limit = query.limit.max(wanted.query.limit);
        *creates |= wanted.creates;
        read.wanted.retention = wanted.retention;
        (PromisedPage(read.page.subscribe()), is_first)
    }

    /// The read to be made now. Later callers share another one.
    pub(super) fn begin(&self, key: &ReadKey) -> Option<SharedRead> {
        let mut reads = self.reads();
        let read = reads.get_mut(key).and_then(Option::take);
        if read.is_none() {
            reads.remove(key);
        }
        read
    }

    fn reads(&self) -> MutexGuard<'_, HashMap<ReadKey, Option<SharedRead>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedRead {
    /// Gives the result to all callers.
    pub(super) fn finish(self, page: SharedPage) {
        self.page.send_replace(Some(page));
    }
}

impl PromisedPage {
    /// The result of the read.
    pub(super) async fn wait(mut self) -> SharedPage {
        let page = self.0.wait_for(Option::is_some).await;
        let page = page.ok().and_then(|page| (*page).clone());
        page.unwrap_or_else(|| Err(Unavailable::new("a read of a history was cancelled")))
    }
}

/// The part of a shared page that answers `query`.
pub(super) fn slice(page: &HistoryPage, query: HistoryQuery) -> HistoryPage {
    let messages = &page.messages;
    let newer = messages.partition_point(|message| message.offset <= query.after);
    let newest = messages.len().saturating_sub(query.limit);
    HistoryPage {
        position: page.position.clone(),
        messages: messages[newer.max(newest)..].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use signalbox_protocol::{Epoch, Frame, Position};

    use super::*;
    use crate::KeptMessage;

    const RETENTION: Retention = Retention {
        size: 9,
        time: Duration::from_secs(1),
    };

    fn key(before: Option<u64>) -> ReadKey {
        ReadKey {
            name: OwnedHistoryName::Room("r".into()),
            before,
        }
    }

    fn wanted(query: HistoryQuery) -> WantedRead {
        WantedRead {
            query,
            retention: RETENTION,
            creates: true,
        }
    }

    fn query(after: u64, limit: usize) -> HistoryQuery {
        HistoryQuery {
            after,
            before: None,
            limit,
        }
    }

    fn page(offsets: impl IntoIterator<Item = u64>) -> HistoryPage {
        let message = |offset| KeptMessage {
            offset,
            frame: Frame::from(offset.to_string()),
        };
        HistoryPage {
            position: Position {
                epoch: Epoch::random(1),
                offset: 9,
            },
            messages: offsets.into_iter().map(message).collect(),
        }
    }

    #[tokio::test]
    async fn callers_that_come_during_a_read_share_one_that_begins_later() {
        let reads = SharedReads::default();
        let key = key(None);
        let (first, must_read) = reads.join(&key, wanted(query(7, 1)));
        assert!(must_read);
        let read = reads.begin(&key).expect("the first caller waits");
        assert_eq!(read.wanted.query, query(7, 1));
        let later = [query(8, 2), query(3, 1), query(5, 4)].map(|query| {
            let (page, must_read) = reads.join(&key, wanted(query));
            assert!(!must_read);
            page
        });
        read.finish(Ok(Some(Arc::new(page([8])))));
        assert_eq!(first.wait().await, Ok(Some(Arc::new(page([8])))));
        let read = reads.begin(&key).expect("three callers wait");
        assert_eq!(read.wanted.query, query(3, 4));
        read.finish(Ok(Some(Arc::new(page(6..=9)))));
        for promised in later {
            assert_eq!(promised.wait().await, Ok(Some(Arc::new(page(6..=9)))));
        }
        assert!(reads.begin(&key).is_none());
        assert!(reads.join(&key, wanted(query(0, 1))).1, "all is over");
    }

    #[tokio::test]
    async fn a_read_that_fails_or_is_given_up_fails_for_all_its_callers() {
        let reads = SharedReads::default();
        let key = key(None);
        let (failed, _) = reads.join(&key, wanted(query(0, 1)));
        let read = reads.begin(&key).expect("a caller waits");
        let (given_up, _) = reads.join(&key, wanted(query(0, 1)));
        read.finish(Err(Unavailable::new("why")));
        assert_eq!(failed.wait().await, Err(Unavailable::new("why")));
        drop(reads.begin(&key));
        assert!(given_up.wait().await.is_err());
    }

    #[test]
    fn a_read_creates_the_history_if_any_of_its_callers_wants_that() {
        let reads = SharedReads::default();
        let only_look = WantedRead {
            creates: false,
            ..wanted(query(0, 1))
        };
        for (later, creates) in [(only_look, false), (wanted(query(0, 1)), true)] {
            reads.join(&key(None), only_look);
            reads.join(&key(None), later);
            let read = reads.begin(&key(None)).expect("two callers wait");
            assert_eq!(read.wanted.creates, creates);
        }
    }

    #[test]
    fn reads_with_different_ends_are_separate() {
        let reads = SharedReads::default();
        for before in [None, Some(5), Some(6)] {
            assert!(reads.join(&key(before), wanted(query(0, 1))).1);
        }
        assert!(!reads.join(&key(Some(5)), wanted(query(0, 1))).1);
    }

    #[test]
    fn each_caller_gets_the_part_that_answers_its_query() {
        let shared = page(4..=9);
        for (asked, expected) in [
            (query(3, 9), page(4..=9)),
            (query(7, 9), page(8..=9)),
            (query(0, 2), page(8..=9)),
            (query(8, 2), page(9..=9)),
            (query(9, 2), page([])),
            (query(0, 0), page([])),
        ] {
            assert_eq!(slice(&shared, asked), expected, "{asked:?}");
        }
    }
}
