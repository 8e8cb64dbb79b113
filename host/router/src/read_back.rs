//! The messages of a history that are read back, page by page.

use signalbox_broker::{HistoryPage, HistoryQuery};
use signalbox_protocol::{HistoryExcerpt, HistoryRequest};

use super::catch_up::ReplayLimits;

/// The part of a history that must be read.
pub(super) fn query(request: HistoryRequest, limits: ReplayLimits) -> HistoryQuery {
    HistoryQuery {
        after: 0,
        before: request.before,
        // One more, to see whether there are older ones.
        limit: most(request, limits).saturating_add(1),
    }
}

/// The answer to `request`, from the result of [`query`].
pub(super) fn excerpt(
    page: HistoryPage,
    request: HistoryRequest,
    limits: ReplayLimits,
) -> HistoryExcerpt {
    let mut bytes = 0;
    let newest = page.messages.iter().rev().take(most(request, limits));
    let count = newest
        .take_while(|kept| {
            bytes += kept.frame.len();
            bytes <= limits.bytes
        })
        .count();
    let first = page.messages.len() - count;
    let messages = page.messages.into_iter().skip(first);
    HistoryExcerpt {
        position: Some(page.position),
        has_older: first > 0,
        messages: messages.map(|kept| kept.frame).collect(),
    }
}

fn most(request: HistoryRequest, limits: ReplayLimits) -> usize {
    request.limit.min(limits.messages)
}
