//! Messages that a client may repeat, and that are handled once.

use signalbox_broker::OnceKey;
use signalbox_protocol::{Envelope, Frame};
use tokio::time::Instant;

use super::{Answer, FrameContext};
use crate::session::{
    LiveConfig,
    actions::Actor,
    once::{self, OnceIdentity, OnceStart},
};

impl FrameContext<'_> {
    /// Handles a message of a type that is not built in, and answers it. A repetition gets the answer of the first one.
    pub(super) async fn custom_once(
        &self,
        envelope: &Envelope<'_>,
        arrived: Instant,
        live: &LiveConfig,
    ) {
        let (services, id) = (self.actor.services, self.id.unwrap_or_default());
        let key = OnceKey::of_user(self.connection.user(), id);
        let parts = [
            envelope.event_type.as_bytes(),
            envelope.receiver.as_deref().unwrap_or_default().as_bytes(),
            envelope.room.as_deref().unwrap_or_default().as_bytes(),
            envelope.payload.as_bytes(),
        ];
        let identity = OnceIdentity::new(key, &parts);
        let message = identity.message(0, 0);
        let claim = match once::begin(services, identity).await {
            Ok(OnceStart::First(claim)) => claim,
            Ok(OnceStart::Repetition(answer)) => {
                let table = services.router.table();
                table.push(self.connection, Frame::duplicate(&answer));
                return;
            }
            Err(error) => return self.answer(Err(error)),
        };
        let context = FrameContext {
            actor: Actor {
                once: Some(&message),
                ..self.actor
            },
            ..*self
        };
        let handled = claim.hold(context.custom(envelope, arrived, live)).await;
        let result = handled.map(Answer::from);
        let is_kept = result
            .as_ref()
            .err()
            .is_none_or(|error| !error.is_retryable());
        let answer = context.encode(&result);
        let kept = answer.as_ref().filter(|_| is_kept);
        claim.settle(kept.map(Frame::as_str)).await;
        self.send_answer(answer);
    }
}
