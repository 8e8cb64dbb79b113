//! The token of an open connection: its end, and its replacement.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use signalbox_auth::{AuthError, VerifiedToken};
use signalbox_broker::{Denial, TokenMark};
use signalbox_protocol::ErrorCode;
use signalbox_router::{Connection, GraceDelay};

use super::{Services, not_sent::NotSent};

/// How long before its end the client learns that its token expires.
const NOTICE: Duration = Duration::from_secs(30);

/// A token that replaces the one of a connection.
pub(super) struct Replacement {
    pub(super) claims: String,
    pub(super) expires_at: SystemTime,
    pub(super) mark: TokenMark,
}

/// When the token of a connection ends, by the system's clock. All times are arguments: it never reads the clock.
#[derive(Debug)]
pub(super) struct TokenClock {
    /// `None` without a token.
    expires_at: Option<SystemTime>,
    delay: GraceDelay,
    wants_notice: bool,
    /// Whether the client knows that its token is about to expire.
    is_announced: bool,
    /// Whether the token, or one for a room, is another one than at the last call of [`TokenClock::take_replaced`].
    is_replaced: bool,
}

/// The next step for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenStep {
    /// Nothing is due.
    Rest,
    /// Inform the client that its token expires after this time.
    Announce(Duration),
    /// Close the connection.
    Close,
}

impl TokenClock {
    /// A token that expires at `expires_at`. The client is informed of it if it `wants_notice`.
    pub(super) fn new(expires_at: Option<SystemTime>, wants_notice: bool) -> Self {
        Self {
            expires_at,
            delay: GraceDelay::default(),
            wants_notice,
            is_announced: false,
            is_replaced: false,
        }
    }

    /// A token that takes the place of another one.
    pub(super) fn replacing(expires_at: SystemTime, wants_notice: bool) -> Self {
        Self {
            is_replaced: true,
            ..Self::new(Some(expires_at), wants_notice)
        }
    }

    /// Makes the session look at all deadlines again, as after a replacement.
    pub(super) fn look_again(&mut self) {
        self.is_replaced = true;
    }

    /// Whether the token was replaced since the last call.
    pub(super) fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.is_replaced)
    }

    /// The time until it expires; `None` without a token.
    pub(super) fn left(&self, now: SystemTime) -> Option<Duration> {
        let expires_at = self.expires_at?;
        Some(expires_at.duration_since(now).unwrap_or_default())
    }

    /// The time until the next step may be due.
    pub(super) fn next_due(&self, now: SystemTime, grace: Duration) -> Option<Duration> {
        let expires_at = self.expires_at?;
        let due = if self.owes_notice() {
            expires_at.checked_sub(NOTICE).unwrap_or(now)
        } else {
            self.delay.grace_end(expires_at, grace)?
        };
        Some(due.duration_since(now).unwrap_or_default())
    }

    fn owes_notice(&self) -> bool {
        self.wants_notice && !self.is_announced
    }

    /// The step that is due at `now`. `was_stopped`: the process did not run until now, so that the client may have had no
    /// chance to replace the token. If the token expired meanwhile, or before the client was informed because the clock was set
    /// forward, the grace begins now, once.
    pub(super) fn next_step(
        &mut self,
        now: SystemTime,
        grace: Duration,
        was_stopped: bool,
    ) -> TokenStep {
        let Some(expires_at) = self.expires_at else {
            return TokenStep::Rest;
        };
        let could_not = was_stopped || self.owes_notice();
        self.delay.update(expires_at, now, could_not);
        let left = expires_at.duration_since(now).unwrap_or_default();
        if left > NOTICE * 2 {
            // The clock was set back: the client is informed again.
            self.is_announced = false;
        }
        if self.owes_notice() && left <= NOTICE {
            self.is_announced = true;
            return TokenStep::Announce(left);
        }
        let end = self.delay.grace_end(expires_at, grace);
        match end.is_some_and(|end| end <= now) {
            true => TokenStep::Close,
            false => TokenStep::Rest,
        }
    }
}

/// Checks the token in the payload of a frame, which should replace that of `connection`.
///
/// # Errors
/// Returns [`NotSent`] if it is not accepted, or cannot be checked now. The reason contains nothing of the token.
pub(super) async fn check(
    services: &Services,
    connection: &Connection,
    payload: &str,
) -> Result<Box<Replacement>, NotSent> {
    if !services.authenticator.uses_tokens() {
        return Err(NotSent::refused(
            ErrorCode::ReservedType,
            "the server uses no tokens (auth.mode = \"none\")",
        ));
    }
    let Ok(token) = serde_json::from_str::<String>(payload) else {
        return Err(NotSent::refused(
            ErrorCode::InvalidPayload,
            "the payload must be the token, as a string",
        ));
    };
    let Some(verified) = services.authenticator.verify(&token).await else {
        return Err(refused(AuthError::MissingToken));
    };
    let verified = verified.map_err(refused)?;
    let mark = check_owner(services, connection, &verified)?;
    Ok(Box::new(Replacement {
        claims: verified.claims_json,
        expires_at: verified.expires_at,
        mark,
    }))
}

/// Checks that a token which was verified is the user's own, and not revoked. Returns its mark.
///
/// # Errors
/// Returns [`NotSent`] if it is not accepted, or cannot be checked now.
pub(super) fn check_owner(
    services: &Services,
    connection: &Connection,
    token: &VerifiedToken,
) -> Result<TokenMark, NotSent> {
    if token.user != connection.user() {
        return Err(NotSent::refused(
            ErrorCode::InvalidToken,
            "the token names another user (sub); open another connection for them",
        ));
    }
    let mark = token_mark(token);
    services
        .router
        .check_revoked(connection.user(), mark)
        .map_err(|denial| match denial {
            Denial::Unknown => refused(AuthError::RevocationsUnavailable),
            Denial::Token | Denial::User => refused(AuthError::RevokedToken),
        })?;
    Ok(mark)
}

/// The mark of a token, for revocations.
pub(crate) fn token_mark(token: &VerifiedToken) -> TokenMark {
    TokenMark::new(token.id.as_deref(), token.issued_at)
}

/// The reason why a token is not accepted, for the client.
pub(super) fn refused(error: AuthError) -> NotSent {
    let code = match error {
        AuthError::KeysUnavailable | AuthError::RevocationsUnavailable => ErrorCode::Unavailable,
        _ => ErrorCode::InvalidToken,
    };
    NotSent::Refused {
        code,
        message: Cow::Owned(error.to_string()),
        plugin: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const GRACE: Duration = Duration::from_secs(25);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The steps of a clock that is asked whenever something may be due, with their times.
    fn steps(clock: &mut TokenClock, from: u64) -> Vec<(u64, TokenStep)> {
        let (mut now, mut steps) = (from, Vec::new());
        while let Some(due) = clock.next_due(at(now), GRACE) {
            now += due.as_secs();
            let step = clock.next_step(at(now), GRACE, false);
            steps.push((now, step));
            if step == TokenStep::Close {
                break;
            }
        }
        steps
    }

    #[test]
    fn a_client_is_informed_once_and_closed_after_the_grace() {
        let mut clock = TokenClock::new(Some(at(1_000)), true);
        let announced = TokenStep::Announce(NOTICE);
        let expected = [(970, announced), (1_025, TokenStep::Close)];
        assert_eq!(steps(&mut clock, 0), expected);
        let mut clock = TokenClock::new(Some(at(1_000)), false);
        assert_eq!(steps(&mut clock, 0), [(1_025, TokenStep::Close)]);
        let mut clock = TokenClock::new(None, true);
        assert_eq!(steps(&mut clock, 0), []);
        assert_eq!(clock.next_step(at(9), GRACE, true), TokenStep::Rest);
    }

    #[test]
    fn a_client_whose_token_soon_expires_is_informed_at_once() {
        let mut clock = TokenClock::new(Some(at(1_000)), true);
        let announced = TokenStep::Announce(seconds(10));
        let expected = [(990, announced), (1_025, TokenStep::Close)];
        assert_eq!(steps(&mut clock, 990), expected);
        let mut clock = TokenClock::new(Some(at(5)), true);
        assert_eq!(
            steps(&mut clock, 0)[0],
            (0, TokenStep::Announce(seconds(5)))
        );
    }

    #[test]
    fn a_replaced_token_is_announced_too_and_noticed_once() {
        let mut clock = TokenClock::replacing(at(2_000), true);
        assert!(clock.take_replaced() && !clock.take_replaced());
        assert_eq!(clock.left(at(1_000)), Some(seconds(1_000)));
        let announced = TokenStep::Announce(NOTICE);
        let expected = [(1_970, announced), (2_025, TokenStep::Close)];
        assert_eq!(steps(&mut clock, 0), expected);
    }

    #[test]
    fn no_name_is_due_before_its_time_and_a_changed_grace_applies() {
        let mut clock = TokenClock::new(Some(at(1_000)), true);
        for (now, step) in [
            (969, TokenStep::Rest),
            (971, TokenStep::Announce(seconds(29))),
            (971, TokenStep::Rest),
            (1_024, TokenStep::Rest),
        ] {
            assert_eq!(clock.next_step(at(now), GRACE, false), step, "{now}");
        }
        let none = Duration::ZERO;
        assert_eq!(clock.next_step(at(999), none, false), TokenStep::Rest);
        assert_eq!(clock.next_step(at(1_000), none, false), TokenStep::Close);
    }

    #[test]
    fn a_client_that_was_not_informed_because_the_clock_was_set_forward_gets_the_grace() {
        const HOUR: u64 = 3_600;
        for jump in [HOUR, 24 * HOUR] {
            let mut clock = TokenClock::new(Some(at(1_000)), true);
            let now = 900 + jump;
            let step = clock.next_step(at(now), GRACE, false);
            assert_eq!(step, TokenStep::Announce(Duration::ZERO));
            assert_eq!(clock.next_step(at(now), GRACE, false), TokenStep::Rest);
            let closed = [(now + 25, TokenStep::Close)];
            assert_eq!(steps(&mut clock, now), closed);
        }
        let mut clock = TokenClock::new(Some(at(1_000)), false);
        let step = clock.next_step(at(900 + HOUR), GRACE, false);
        assert_eq!(step, TokenStep::Close, "it wants no notice");
    }

    #[test]
    fn a_clock_that_is_set_back_lets_a_token_last_until_its_end_and_no_longer() {
        let expected = [
            (970, TokenStep::Announce(NOTICE)),
            (1_025, TokenStep::Close),
        ];
        let mut clock = TokenClock::new(Some(at(1_000)), true);
        // It had been set forward by a day.
        let step = clock.next_step(at(87_300), GRACE, false);
        assert_eq!(step, TokenStep::Announce(Duration::ZERO));
        assert_eq!(clock.next_step(at(900), GRACE, false), TokenStep::Rest);
        assert_eq!(steps(&mut clock, 900), expected);
        let mut clock = TokenClock::new(Some(at(1_000)), false);
        clock.next_step(at(87_300), GRACE, true);
        let step = clock.next_step(at(1_010), GRACE, false);
        assert_eq!(step, TokenStep::Rest, "the grace begins now");
        assert_eq!(clock.next_due(at(1_010), GRACE), Some(GRACE));
        let step = clock.next_step(at(1_035), GRACE, false);
        assert_eq!(step, TokenStep::Close);
    }

    #[test]
    fn after_the_process_was_stopped_the_grace_restarts_once() {
        let mut clock = TokenClock::new(Some(at(1_000)), true);
        let step = clock.next_step(at(5_000), GRACE, true);
        assert_eq!(step, TokenStep::Announce(Duration::ZERO));
        assert_eq!(clock.next_due(at(5_000), GRACE), Some(GRACE));
        let step = clock.next_step(at(9_000), GRACE, true);
        assert_eq!(step, TokenStep::Close, "only once");
        let mut clock = TokenClock::new(Some(at(1_000)), false);
        let step = clock.next_step(at(5_000), Duration::ZERO, true);
        assert_eq!(step, TokenStep::Close, "there is no grace");
    }
}
