//! Counters with a label: one cell for each value of it.

use signalbox_protocol::{CloseCode, ErrorCode, RecoveryFailure};

use super::{
    cells::Counter,
    labels::{
        AdminOutcome, DropReason, HttpRefusalReason, OnceOutcome, PostResult, SpanDropReason,
        UpgradeRefusalReason,
    },
    named::{Named, OTHER},
};

/// Maximum number of event types that are counted separately, including the built-in ones.
const EVENT_TYPES_MAX: usize = 100;

/// A counter for each event type that the server knows by name, and one for all others, because clients can make up any
/// type.
#[derive(Debug)]
pub struct ByEventType {
    known: Named<Counter, EVENT_TYPES_MAX>,
    other: Counter,
}

/// A counter for each [`ErrorCode`].
#[derive(Debug, Default)]
pub struct ByErrorCode([Counter; ErrorCode::ALL.len()]);

/// A counter for each [`DropReason`].
#[derive(Debug, Default)]
pub struct ByDropReason([Counter; DropReason::ALL.len()]);

/// A counter for each [`SpanDropReason`].
#[derive(Debug, Default)]
pub struct BySpanDropReason([Counter; SpanDropReason::ALL.len()]);

/// A counter for each [`UpgradeRefusalReason`].
#[derive(Debug, Default)]
pub struct ByUpgradeRefusal([Counter; UpgradeRefusalReason::ALL.len()]);

/// A counter for each [`HttpRefusalReason`].
#[derive(Debug, Default)]
pub struct ByHttpRefusal([Counter; HttpRefusalReason::ALL.len()]);

/// A counter for each [`AdminOutcome`].
#[derive(Debug, Default)]
pub struct ByAdminOutcome([Counter; AdminOutcome::ALL.len()]);

/// A counter for each [`OnceOutcome`].
#[derive(Debug, Default)]
pub struct ByOnceOutcome([Counter; OnceOutcome::ALL.len()]);

/// A counter for each [`PostResult`].
#[derive(Debug, Default)]
pub struct ByPostResult([Counter; PostResult::ALL.len()]);

/// A counter for each result of a recovery: the messages were sent, or the [`RecoveryFailure`].
#[derive(Debug, Default)]
pub struct ByRecovery([Counter; RecoveryFailure::ALL.len() + 1]);

/// A counter for each row of [`CloseCode::TABLE`], and one for all codes that plugins define.
#[derive(Debug, Default)]
pub struct ByCloseCode([Counter; CloseCode::TABLE.len() + 1]);

impl Default for ByEventType {
    /// Knows the built-in types that clients send.
    fn default() -> Self {
        let types = Self {
            known: Named::default(),
            other: Counter::default(),
        };
        types.know([
            "latency_report",
            "heartbeat",
            "join",
            "leave",
            "history",
            "token",
        ]);
        types
    }
}

impl ByEventType {
    /// Counts these types separately from now on, as far as there is room. A known type stays known.
    pub fn know<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        for name in names.into_iter().filter(|name| *name != OTHER) {
            self.known.get_or_make(name, Counter::default, |_| ());
        }
    }

    /// Counts a message of this type.
    pub fn count(&self, name: &str) {
        self.known
            .get(name, Counter::increment)
            .unwrap_or_else(|| self.other.increment());
    }

    pub(super) fn rows(&self) -> Vec<(String, u64)> {
        let known = self.known.all();
        let named = known
            .iter()
            .map(|(name, count)| (name.to_string(), count.get()));
        named
            .chain([(OTHER.to_owned(), self.other.get())])
            .collect()
    }
}

impl ByErrorCode {
    /// The counter of `code`.
    pub fn of(&self, code: ErrorCode) -> &Counter {
        &self.0[code as usize]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        ErrorCode::ALL
            .into_iter()
            .map(|code| (code.as_str(), self.of(code)))
    }
}

impl ByDropReason {
    /// The counter of `reason`.
    pub fn of(&self, reason: DropReason) -> &Counter {
        &self.0[reason as usize]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason.as_str(), self.of(reason)))
    }
}

impl BySpanDropReason {
    /// The counter of `reason`.
    pub fn of(&self, reason: SpanDropReason) -> &Counter {
        &self.0[reason as usize]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        SpanDropReason::ALL
            .into_iter()
            .map(|reason| (reason.as_str(), self.of(reason)))
    }
}

impl ByUpgradeRefusal {
    /// The counter of `refusal`.
    pub fn of(&self, refusal: UpgradeRefusalReason) -> &Counter {
        &self.0[refusal as usize]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        UpgradeRefusalReason::ALL
            .into_iter()
            .map(|refusal| (refusal.as_str(), self.of(refusal)))
    }
}

impl ByHttpRefusal {
    /// The counter of `refusal`.
    pub fn of(&self, refusal: HttpRefusalReason) -> &Counter {
        &self.0[refusal as usize]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        HttpRefusalReason::ALL
            .into_iter()
            .map(|refusal| (refusal.as_str(), self.of(refusal)))
    }
}

impl ByAdminOutcome {
    /// The counter of `outcome`.
    pub fn of(&self, outcome: AdminOutcome) -> &Counter {
        &self.0[outcome as usize]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        AdminOutcome::ALL
            .into_iter()
            .map(|outcome| (outcome.as_str(), self.of(outcome)))
    }
}

impl ByOnceOutcome {
    /// The counter of `outcome`.
    pub fn of(&self, outcome: OnceOutcome) -> &Counter {
        &self.0[outcome as usize]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        OnceOutcome::ALL
            .into_iter()
            .map(|outcome| (outcome.as_str(), self.of(outcome)))
    }
}

impl ByPostResult {
    /// The counter of `result`.
    pub fn of(&self, result: PostResult) -> &Counter {
        &self.0[result as usize]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        PostResult::ALL
            .into_iter()
            .map(|result| (result.as_str(), self.of(result)))
    }
}

impl ByRecovery {
    /// The counter of a recovery that sent messages, or failed.
    pub fn of(&self, failure: Option<RecoveryFailure>) -> &Counter {
        let place = failure.map_or(RecoveryFailure::ALL.len(), |failure| failure as usize);
        &self.0[place]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        let failures = RecoveryFailure::ALL.into_iter();
        failures
            .map(|failure| (failure.as_str(), self.of(Some(failure))))
            .chain([("recovered", self.of(None))])
    }
}

impl ByCloseCode {
    /// The counter of `code`.
    pub fn of(&self, code: CloseCode) -> &Counter {
        let row = CloseCode::TABLE.iter().position(|row| row.code == code);
        &self.0[row.unwrap_or(CloseCode::TABLE.len())]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        CloseCode::TABLE
            .iter()
            .map(|row| row.name)
            .chain(["plugin"])
            .zip(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_a_counter() {
        let rejected = ByErrorCode::default();
        for (index, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index);
            rejected.of(code).add(index as u64);
        }
        assert!(
            rejected
                .rows()
                .enumerate()
                .all(|(index, (_, counter))| counter.get() == index as u64)
        );
    }

    #[test]
    fn every_result_of_a_recovery_has_a_counter() {
        let recoveries = ByRecovery::default();
        for (index, failure) in RecoveryFailure::ALL.into_iter().enumerate() {
            recoveries.of(Some(failure)).add(index as u64);
        }
        recoveries.of(None).add(3);
        let rows: Vec<_> = recoveries
            .rows()
            .map(|(name, count)| (name, count.get()))
            .collect();
        assert_eq!(
            rows,
            [
                ("epoch", 0),
                ("expired", 1),
                ("too_many", 2),
                ("recovered", 3)
            ]
        );
    }

    #[test]
    fn types_that_a_client_makes_up_count_as_other() {
        let types = ByEventType::default();
        types.know(["chat_message"]);
        for name in ["chat_message", "heartbeat", "x", "y", "chat_message"] {
            types.count(name);
        }
        types.know([OTHER, "again", "again"]);
        let rows = types.rows();
        let counted: Vec<_> = rows.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(rows.len(), 9);
        assert_eq!(
            counted,
            [
                &("chat_message".to_owned(), 2),
                &("heartbeat".to_owned(), 1),
                &(OTHER.to_owned(), 2)
            ]
        );
    }

    #[test]
    fn a_plugins_own_close_code_counts_as_plugin() {
        let closes = ByCloseCode::default();
        closes.of(CloseCode::from_plugin(4777).unwrap()).add(1);
        closes.of(CloseCode::DRAIN).add(2);
        let rows: Vec<_> = closes
            .rows()
            .filter(|(_, counter)| counter.get() > 0)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(rows, ["drain", "plugin"]);
    }
}
