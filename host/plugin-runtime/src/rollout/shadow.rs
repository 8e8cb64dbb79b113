//! A version that runs alongside the live one on copies of its calls, and changes nothing.
//!
//! Its answers are compared and thrown away. Its writes to the store go nowhere
//! ([`ReadOnlyStore`](crate::store::ReadOnlyStore)), its counters are not reported, and its log lines are marked. Its
//! calls wait in a bounded queue for one task: a message that finds the queue full is not copied, and never waits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use futures_util::FutureExt;
use signalbox_protocol::ClientInfo;
use signalbox_telemetry::{
    metrics::{PluginMetrics, ShadowOutcome},
    supervise,
};
use tokio::sync::{Semaphore, mpsc};

use super::{
    compare::{AnswerDifference, ToVersionAnswer, VersionAnswer, difference},
    copy::CopiedCall,
};
use crate::{
    call::CallKind,
    evidence::{Evidence, EvidenceSummary},
    message::GuestMessage,
    response::PluginVerdict,
    version::PluginVersion,
};

/// The maximum number of waiting copies, and of their bytes in total.
const COPIES_MAX: usize = 256;
const BYTES_MAX: usize = 4 << 20;

/// The approximate cost of a copy in addition to its texts, in bytes.
const COPY_BYTES: usize = 256;

/// The maximum number of differences that are kept for reports; the oldest are dropped first.
const SAMPLES_MAX: usize = 5;

/// A version that runs on copies.
#[derive(Debug)]
pub struct Shadow {
    version: Arc<PluginVersion>,
    copies: mpsc::Sender<CopiedCall>,
    room: Arc<Semaphore>,
    found: Arc<Outcomes>,
}

/// The outcomes of the copies.
#[derive(Debug)]
struct Outcomes {
    /// The plugin's metrics. The shadow also has its own, which nobody reads.
    metrics: Arc<PluginMetrics>,
    seen: Mutex<ShadowFindings>,
    /// The evidence against the shadow.
    evidence: Evidence,
}

/// The outcomes of the copies of one shadow.
#[derive(Clone, Debug, Default)]
pub struct ShadowFindings {
    /// The number of calls with each outcome, in the order of [`ShadowOutcome::ALL`].
    pub outcomes: [u64; ShadowOutcome::ALL.len()],
    /// The latest differences.
    pub samples: VecDeque<AnswerDifference>,
}

impl Shadow {
    /// Runs `candidate` on copies until this is dropped.
    pub fn start(candidate: &PluginVersion) -> Self {
        let version = Arc::new(candidate.as_double("shadow"));
        let found = Arc::new(Outcomes {
            metrics: candidate.metrics().clone(),
            seen: Mutex::default(),
            evidence: Evidence::default(),
        });
        let (copies, waiting) = mpsc::channel(COPIES_MAX);
        let state = (version.clone(), waiting, found.clone());
        let server = version.server_metrics();
        supervise::spawn("shadow", server, state, |(version, waiting, found)| {
            run(version, waiting, found).boxed()
        });
        Self {
            version,
            copies,
            room: Arc::new(Semaphore::new(BYTES_MAX)),
            found,
        }
    }

    /// Copies a call together with the answer of the live version, if there is room for it. Does not wait.
    pub fn offer<T: ToVersionAnswer>(
        &self,
        asked: CallKind,
        client: Option<&Arc<ClientInfo>>,
        message: &GuestMessage<'_>,
        verdict: &PluginVerdict<T>,
    ) {
        // If there is no room, no copy is made at all.
        let Ok(place) = self.copies.try_reserve() else {
            return self.found.count(ShadowOutcome::QueueFull);
        };
        let answer = VersionAnswer::of(verdict);
        let bytes = COPY_BYTES + message.payload.len() + answer.bytes();
        let room = u32::try_from(bytes).ok();
        let room = room.and_then(|bytes| self.room.clone().try_acquire_many_owned(bytes).ok());
        match room {
            Some(room) => place.send(CopiedCall::new(asked, client, message, answer, room)),
            None => self.found.count(ShadowOutcome::QueueBytes),
        }
    }

    /// The version that runs on copies, with its own stats.
    pub fn version(&self) -> &Arc<PluginVersion> {
        &self.version
    }

    /// The evidence against it so far.
    pub fn found(&self) -> EvidenceSummary {
        self.found.evidence.found()
    }

    /// The outcomes of the copies so far.
    pub fn seen(&self) -> ShadowFindings {
        self.found.seen().clone()
    }
}

/// Repeats the calls of the live version on the shadow, copy by copy.
async fn run(
    version: &Arc<PluginVersion>,
    copies: &mut mpsc::Receiver<CopiedCall>,
    found: &Outcomes,
) {
    while let Some(copy) = copies.recv().await {
        let answer = copy.ask(version).await;
        found.compare(&copy, &answer);
        // Tasks that serve clients go first.
        tokio::task::yield_now().await;
    }
}

impl Outcomes {
    fn compare(&self, copy: &CopiedCall, answer: &VersionAnswer) {
        if let VersionAnswer::Failed(kind) = answer
            && let Some(case) = self.evidence.failed(copy.user(), *kind)
        {
            let survived = !matches!(copy.answer, VersionAnswer::Failed(_));
            self.evidence.asked(case, survived);
        }
        let Some((live, shadow, fields)) = difference(&copy.answer, answer) else {
            return self.count(ShadowOutcome::Same);
        };
        self.count(ShadowOutcome::Different);
        let message = copy.message();
        let difference = AnswerDifference {
            at: SystemTime::now(),
            message_id: message.id.to_owned(),
            event_type: message.event_type.to_owned(),
            call: copy.asked.as_str(),
            live,
            shadow,
            fields,
        };
        let samples = &mut self.seen().samples;
        samples.push_front(difference);
        samples.truncate(SAMPLES_MAX);
    }

    fn count(&self, outcome: ShadowOutcome) {
        self.metrics.shadow.of(outcome).increment();
        self.seen().outcomes[outcome as usize] += 1;
    }

    fn seen(&self) -> MutexGuard<'_, ShadowFindings> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
