use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn set() -> RevocationSet {
    let set = RevocationSet::default();
    set.note_read();
    set
}

fn token(id: &str, until: u64) -> Revocation {
    Revocation {
        of: Revoked::Token(id.to_owned()),
        until_ms: until * 1_000,
    }
}

fn tokens_of(user: &str, issued_before: u64, until: u64) -> Revocation {
    Revocation {
        of: Revoked::TokensOf {
            user: user.to_owned(),
            issued_before_ms: issued_before * 1_000,
        },
        until_ms: until * 1_000,
    }
}

fn user(user: &str, until: u64) -> Revocation {
    Revocation {
        of: Revoked::User(user.to_owned()),
        until_ms: until * 1_000,
    }
}

fn mark(id: &str, issued_at: u64) -> TokenMark {
    TokenMark::new(Some(id), Some(at(issued_at)))
}

#[test]
fn a_token_is_refused_by_its_id_until_the_end_of_the_revocation() {
    let set = set();
    assert_eq!(set.insert(&token("a", 20), at(10)), Ok(true));
    for (id, now, expected) in [
        ("a", 10, Err(Denial::Token)),
        ("a", 19, Err(Denial::Token)),
        ("a", 20, Ok(())),
        ("b", 10, Ok(())),
    ] {
        assert_eq!(set.check("ann", mark(id, 5), at(now)), expected, "{id}");
    }
    let without_id = TokenMark::new(None, Some(at(5)));
    assert_eq!(set.check("ann", without_id, at(10)), Ok(()));
}

#[test]
fn tokens_of_a_user_are_refused_if_they_were_issued_before_or_do_not_say_when() {
    let set = set();
    set.insert(&tokens_of("ann", 7, 20), at(10)).unwrap();
    let refused = Err(Denial::Token);
    assert_eq!(set.check("ann", mark("a", 6), at(10)), refused);
    assert_eq!(set.check("ann", mark("a", 7), at(10)), Ok(()));
    assert_eq!(set.check("bob", mark("a", 6), at(10)), Ok(()));
    let timeless = TokenMark::new(Some("a"), None);
    assert_eq!(set.check("ann", timeless, at(10)), refused);
    assert_eq!(set.check("ann", timeless, at(20)), Ok(()));
    assert_eq!(set.check("ann", TokenMark::NONE, at(10)), Ok(()));
}

#[test]
fn each_revocation_of_a_users_tokens_ends_by_itself() {
    let set = set();
    set.insert(&tokens_of("ann", 5, 40), at(10)).unwrap();
    assert_eq!(set.insert(&tokens_of("ann", 9, 20), at(10)), Ok(true));
    assert_eq!(set.insert(&tokens_of("ann", 4, 30), at(10)), Ok(false));
    assert_eq!(set.count(at(10)), 2);
    let refused = Err(Denial::Token);
    assert_eq!(set.check("ann", mark("a", 8), at(19)), refused);
    assert_eq!(set.check("ann", mark("a", 8), at(20)), Ok(()));
    assert_eq!(set.check("ann", mark("a", 4), at(39)), refused);
    set.insert(&tokens_of("ann", 9, 50), at(10)).unwrap();
    assert_eq!(set.count(at(10)), 1, "it covers the others");
}

#[test]
fn a_blocked_user_is_refused_with_any_token_and_without_one() {
    let set = set();
    set.insert(&user("ann", 20), at(10)).unwrap();
    for token in [mark("a", 15), TokenMark::NONE] {
        assert_eq!(set.check("ann", token, at(19)), Err(Denial::User));
        assert_eq!(set.check("ann", token, at(20)), Ok(()));
        assert_eq!(set.check("bob", token, at(10)), Ok(()));
    }
}

#[test]
fn no_token_is_accepted_before_the_revocations_are_read() {
    let set = RevocationSet::default();
    assert_eq!(set.check("ann", mark("a", 1), at(10)), Err(Denial::Unknown));
    assert_eq!(set.check("ann", TokenMark::NONE, at(10)), Ok(()));
    set.note_read();
    assert_eq!(set.check("ann", mark("a", 1), at(10)), Ok(()));
}

#[test]
fn a_revocation_is_extended_and_never_shortened() {
    let set = set();
    for make in [token, user] {
        assert_eq!(set.insert(&make("a", 20), at(10)), Ok(true));
        assert_eq!(set.insert(&make("a", 20), at(10)), Ok(false));
        assert_eq!(set.insert(&make("a", 15), at(10)), Ok(false));
        assert_eq!(set.insert(&make("a", 30), at(10)), Ok(true));
        assert_eq!(set.insert(&make("b", 10), at(10)), Ok(false), "it ended");
    }
    let mut ends: Vec<_> = set.list(at(10)).iter().map(|one| one.until_ms).collect();
    ends.sort_unstable();
    assert_eq!(ends, [30_000, 30_000]);
}

#[test]
fn a_full_set_refuses_more_until_some_have_ended() {
    let set = set();
    for n in 0..REVOCATIONS_MAX as u64 - 2 {
        set.insert(&token(&n.to_string(), 100 + n % 2), at(10))
            .unwrap();
    }
    set.insert(&tokens_of("ann", 5, 100), at(10)).unwrap();
    set.insert(&user("ann", 100), at(10)).unwrap();
    for more in [token("x", 200), user("bob", 200), tokens_of("bob", 5, 200)] {
        assert_eq!(set.insert(&more, at(99)), Err(RevokeError::Full));
    }
    for longer in [token("0", 200), user("ann", 200), tokens_of("ann", 6, 200)] {
        assert_eq!(set.insert(&longer, at(99)), Ok(true));
    }
    assert_eq!(set.insert(&token("x", 200), at(100)), Ok(true));
    assert_eq!(set.list(at(101)).len(), 4);
    assert_eq!(set.count(at(200)), 0);
}

#[test]
fn a_clock_that_is_set_forward_and_back_ends_no_revocation() {
    const DAY: u64 = 24 * 60 * 60;
    let set = set();
    for revocation in [token("a", 100), user("ann", 100), tokens_of("bob", 5, 100)] {
        assert_eq!(set.insert(&revocation, at(10)), Ok(true));
    }
    for ahead in [60 * 60, DAY] {
        // Others are made meanwhile, and Redis is compared.
        set.insert(&token("x", 3 * DAY), at(10 + ahead)).unwrap();
        assert_eq!(set.list(at(10 + ahead)), [token("x", 3 * DAY)]);
        assert_eq!(set.count(at(10 + ahead)), 1);
        assert_eq!(set.check("eve", mark("a", 1), at(10 + ahead)), Ok(()));
        assert_eq!(set.check("eve", mark("a", 1), at(20)), Err(Denial::Token));
        assert_eq!(set.check("ann", mark("b", 1), at(20)), Err(Denial::User));
        assert_eq!(set.check("bob", mark("b", 1), at(20)), Err(Denial::Token));
        assert_eq!(set.count(at(20)), 4);
    }
    set.insert(&token("y", 9 * DAY), at(3 * DAY)).unwrap();
    assert_eq!(set.held().len(), 2, "those that ended long ago are gone");
}

#[test]
fn a_clock_that_is_set_back_keeps_revocations_until_their_end() {
    let set = set();
    set.insert(&token("a", 100_000), at(90_000)).unwrap();
    set.insert(&token("b", 100_000), at(10)).unwrap();
    assert_eq!(set.list(at(10)).len(), 2);
    let refused = Err(Denial::Token);
    assert_eq!(set.check("ann", mark("a", 1), at(10)), refused);
    assert_eq!(set.check("ann", mark("a", 1), at(99_999)), refused);
    assert_eq!(set.check("ann", mark("a", 1), at(100_000)), Ok(()));
}

#[test]
fn a_mark_survives_as_numbers_and_revocations_concern_it() {
    for token in [mark("a", 5), TokenMark::new(None, None), TokenMark::NONE] {
        assert_eq!(TokenMark::from_numbers(token.numbers()), token);
    }
    let concerns = |revocation: Revocation| revocation.of.concerns("ann", mark("a", 5));
    assert!(concerns(token("a", 9)) && !concerns(token("b", 9)));
    assert!(concerns(tokens_of("ann", 6, 9)) && !concerns(tokens_of("ann", 5, 9)));
    assert!(!concerns(tokens_of("bob", 6, 9)));
    assert!(concerns(user("ann", 9)) && !concerns(user("bob", 9)));
}
