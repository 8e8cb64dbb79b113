//! Replaces the token of a connection before it expires (4.3 of SPEC.md).

use std::sync::Arc;
use std::time::Duration;

use super::calls::Reply;
use super::link::{Link, Renewal, Step};
use super::{Core, Effect, Ending, Timer, TokenOf};
use crate::error::{Error, TokenError, codes};
use crate::frames::{Answered, ExpiringPayload, OutgoingFrame};
use crate::options::Credentials;

/// A token that expires so soon after another was replaced lives no longer than that.
const SHORT_LIFE: Duration = Duration::from_secs(30);

impl Core {
    fn renewal(&mut self) -> Option<&mut Renewal> {
        match &mut self.link {
            Link::Up(connection) => Some(&mut connection.renewal),
            _ => None,
        }
    }

    /// The token of the connection expires soon.
    pub(super) fn on_expiring(&mut self, payload: &ExpiringPayload) {
        if !matches!(self.options.credentials, Credentials::Callback(_)) {
            return;
        }
        let Some(renewal) = self.renewal() else {
            return;
        };
        renewal.next = Some(Duration::from_millis(payload.expires_in_ms));
        if renewal.step == Step::Idle {
            self.begin_renewal();
        }
    }

    fn begin_renewal(&mut self) {
        let now = self.now.instant;
        let Some(renewal) = self.renewal() else {
            return;
        };
        renewal.step = Step::Idle;
        let Some(left) = renewal.next.take() else {
            return;
        };
        renewal.backoff.reset();
        let soon = |at| now.saturating_duration_since(at) < SHORT_LIFE;
        // The server announces the end of a short-lived token at once.
        let wait = if renewal.replaced.is_some_and(soon) {
            (left / 2).max(Duration::from_secs(1))
        } else {
            Duration::ZERO
        };
        self.token = None;
        self.renew_after(wait);
    }

    fn renew_after(&mut self, wait: Duration) {
        let alarm = self.after(wait, Timer::Renewal);
        if let Link::Up(connection) = &mut self.link {
            connection.renewal.step = Step::Waiting;
            connection.renewing = Some(alarm);
        }
    }

    pub(super) fn go_on_renewing(&mut self) {
        if let Some(token) = self.token.clone() {
            self.send_token(token);
        } else if let Some(renewal) = self.renewal() {
            renewal.step = Step::Fetching;
            self.fetch_token();
        }
    }

    fn send_token(&mut self, token: String) {
        if let Some(renewal) = self.renewal() {
            renewal.step = Step::Sent;
            let mut frame = OutgoingFrame::about("token", None);
            frame.payload = token.into();
            self.control(frame, Reply::Token);
        }
    }

    /// A token callback has ended while there was a connection.
    pub(super) fn on_new_token(&mut self, result: Result<String, TokenError>) {
        let fetching = self
            .renewal()
            .is_some_and(|renewal| renewal.step == Step::Fetching);
        match result {
            Ok(token) if fetching => self.send_token(token),
            Ok(_) => {}
            Err(TokenError::Final(reason)) => {
                let denied = true;
                self.lost(Ending {
                    denied,
                    ..Ending::because(reason)
                });
            }
            Err(TokenError::Later(reason)) => {
                self.report_token_failure(&reason);
                if fetching {
                    self.retry_renewal();
                }
            }
        }
    }

    fn retry_renewal(&mut self) {
        let Link::Up(connection) = &mut self.link else {
            return;
        };
        let wait = connection.renewal.backoff.next(&mut self.random);
        self.renew_after(wait);
    }

    pub(super) fn token_answered(&mut self, answer: Answered) {
        let now = self.now.instant;
        let Some(renewal) = self.renewal() else {
            return;
        };
        if renewal.step != Step::Sent {
            return;
        }
        match answer {
            Ok(_) => {
                renewal.replaced = Some(now);
                self.begin_renewal();
            }
            Err(error) => self.token_refused(error),
        }
    }

    fn token_refused(&mut self, error: Error) {
        if error.code == "invalid_token" {
            self.token = None;
        }
        if error.retryable {
            self.retry_renewal();
        } else {
            if let Some(renewal) = self.renewal() {
                renewal.step = Step::Idle;
                renewal.next = None;
            }
            self.report(error);
        }
    }

    pub(super) fn report_token_failure(&mut self, reason: &str) {
        let message = format!("the token callback failed: {reason}");
        self.report(Error::new(codes::TOKEN_FAILED, message));
    }

    /// Calls the token callback, unless it runs already.
    pub(super) fn fetch_token(&mut self) {
        let Credentials::Callback(callback) = &self.options.credentials else {
            return;
        };
        if self.fetching.is_none() {
            let callback = Arc::clone(callback);
            let fetch = Box::pin(async move { callback().await });
            self.effects
                .push_back(Effect::Fetch(TokenOf::Client, fetch));
            self.fetching = Some(self.after(self.options.token_timeout, Timer::Token));
        }
    }
}
