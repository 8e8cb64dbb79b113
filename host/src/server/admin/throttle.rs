//! How often operators' calls may come: from one address, and in all. A wrong key counts as many right ones.
//!
//! Addresses that brought the right key before have an allowance in all of their own, so that nobody who guesses keys
//! from many addresses can keep operators out.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Calls of one address, sustained in a second and in one burst.
const OF_ONE: Rate = Rate {
    per_second: 10.0,
    burst: 50.0,
};

/// Calls in all.
const IN_ALL: Rate = Rate {
    per_second: 100.0,
    burst: 200.0,
};

/// So many calls a wrong key counts as.
const WRONG_KEY_COST: f64 = 10.0;

/// Addresses that are kept in mind. Those beyond share one allowance.
const ADDRESSES_MAX: usize = 4_096;

struct Rate {
    per_second: f64,
    burst: f64,
}

/// Counts calls.
pub(super) struct Throttle(Mutex<State>);

struct State {
    addresses: HashMap<IpAddr, Address>,
    /// Of addresses for which there is no room.
    others: Address,
    known: Allowance,
    strangers: Allowance,
}

struct Address {
    allowance: Allowance,
    /// Whether the right key came from it.
    is_known: bool,
}

/// What may be used at once, and grows back.
struct Allowance {
    left: f64,
    counted: Instant,
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            addresses: HashMap::new(),
            others: Address::new(now),
            known: Allowance::new(&IN_ALL, now),
            strangers: Allowance::new(&IN_ALL, now),
        }))
    }

    /// Takes a call from `address` in.
    ///
    /// # Errors
    /// How long it should wait before it tries again.
    pub(super) fn admit(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut state = self.state();
        let (one, all) = state.of(address, now);
        let wait = one.wait(&OF_ONE, now).max(all.wait(&IN_ALL, now));
        if wait > Duration::ZERO {
            return Err(wait);
        }
        one.left -= 1.0;
        all.left -= 1.0;
        Ok(())
    }

    /// Says that the call that was admitted last from `address` brought the right key.
    pub(super) fn right_key(&self, address: IpAddr, now: Instant) {
        let mut state = self.state();
        if let Some(address) = state.entry(address, now) {
            address.is_known = true;
        }
    }

    /// Says that it brought none, or a wrong one.
    pub(super) fn wrong_key(&self, address: IpAddr, now: Instant) {
        let mut state = self.state();
        let (one, all) = state.of(address, now);
        one.left -= WRONG_KEY_COST - 1.0;
        all.left -= WRONG_KEY_COST - 1.0;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The allowance of an address, and the one in all that it takes part in.
    fn of(&mut self, address: IpAddr, now: Instant) -> (&mut Allowance, &mut Allowance) {
        self.make_room(now);
        let is_full = self.addresses.len() >= ADDRESSES_MAX;
        let key = network(address);
        let entry = if is_full && !self.addresses.contains_key(&key) {
            &mut self.others
        } else {
            let entry = self.addresses.entry(key);
            entry.or_insert_with(|| Address::new(now))
        };
        let all = if entry.is_known {
            &mut self.known
        } else {
            &mut self.strangers
        };
        (&mut entry.allowance, all)
    }

    fn entry(&mut self, address: IpAddr, now: Instant) -> Option<&mut Address> {
        self.of(address, now);
        self.addresses.get_mut(&network(address))
    }

    /// Forgets the addresses that have been quiet for so long that nothing is remembered against them.
    fn make_room(&mut self, now: Instant) {
        if self.addresses.len() >= ADDRESSES_MAX {
            self.addresses
                .retain(|_, address| address.allowance.at(&OF_ONE, now) < OF_ONE.burst);
        }
    }
}

impl Address {
    fn new(now: Instant) -> Self {
        Self {
            allowance: Allowance::new(&OF_ONE, now),
            is_known: false,
        }
    }
}

impl Allowance {
    fn new(rate: &Rate, now: Instant) -> Self {
        Self {
            left: rate.burst,
            counted: now,
        }
    }

    /// What is left at `now`.
    fn at(&self, rate: &Rate, now: Instant) -> f64 {
        let grown = now.saturating_duration_since(self.counted).as_secs_f64() * rate.per_second;
        (self.left + grown).min(rate.burst)
    }

    /// How long it takes until there is one more; zero: there is one.
    fn wait(&mut self, rate: &Rate, now: Instant) -> Duration {
        self.left = self.at(rate, now);
        self.counted = now;
        Duration::from_secs_f64((1.0 - self.left).max(0.0) / rate.per_second)
    }
}

/// What one client has to itself: an address, or of IPv6 the network of its site (64 bits).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        },
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admitted(throttle: &Throttle, address: IpAddr, now: Instant) -> usize {
        (0..1_000)
            .take_while(|_| throttle.admit(address, now).is_ok())
            .count()
    }

    #[test]
    fn an_address_has_a_burst_and_then_a_rate_and_is_told_how_long_to_wait() {
        let start = Instant::now();
        let throttle = Throttle::new(start);
        assert_eq!(admitted(&throttle, ip("10.0.0.1"), start), 50);
        let wait = throttle.admit(ip("10.0.0.1"), start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(admitted(&throttle, ip("10.0.0.1"), start + wait), 1);
        let later = start + Duration::from_secs(2);
        assert_eq!(admitted(&throttle, ip("10.0.0.1"), later), 19);
        assert_eq!(
            admitted(&throttle, ip("10.0.0.2"), start),
            50,
            "another one"
        );
    }

    #[test]
    fn a_wrong_key_counts_as_ten_calls() {
        let start = Instant::now();
        let throttle = Throttle::new(start);
        let guesses = (0..100).take_while(|_| {
            let admitted = throttle.admit(ip("10.0.0.1"), start).is_ok();
            throttle.wrong_key(ip("10.0.0.1"), start);
            admitted
        });
        assert_eq!(guesses.count(), 5);
    }

    #[test]
    fn who_guesses_from_many_addresses_keeps_nobody_out_who_brought_the_key_before() {
        let start = Instant::now();
        let throttle = Throttle::new(start);
        let operator = ip("10.0.0.1");
        throttle.admit(operator, start).unwrap();
        throttle.right_key(operator, start);
        let stranger = |number: u8| IpAddr::from([10, 0, 1, number]);
        let guesses = (0..=255).filter(|number| {
            let admitted = throttle.admit(stranger(*number), start).is_ok();
            if admitted {
                throttle.wrong_key(stranger(*number), start);
            }
            admitted
        });
        assert_eq!(guesses.count(), 20, "in all");
        assert!(throttle.admit(ip("10.0.0.2"), start).is_err());
        assert_eq!(admitted(&throttle, operator, start), 49);
    }

    #[test]
    fn the_table_is_bounded_and_who_finds_no_room_is_limited_with_others() {
        let start = Instant::now();
        let throttle = Throttle::new(start);
        let address = |number: usize| {
            let [_, b, c, d] = u32::try_from(number).unwrap().to_be_bytes();
            IpAddr::from([11, b, c, d])
        };
        // One call each, spread over time, so that the limit in all does not matter.
        let mut now = start;
        for number in 0..ADDRESSES_MAX {
            now += Duration::from_millis(10);
            throttle.admit(address(number), now).unwrap();
            throttle.wrong_key(address(number), now);
            throttle.state().strangers.left = IN_ALL.burst;
        }
        // The first ones have been quiet long enough to be forgotten.
        throttle.admit(address(ADDRESSES_MAX), now).unwrap();
        assert!(throttle.state().addresses.len() < ADDRESSES_MAX);
        // Now nobody is.
        for number in 0..2 * ADDRESSES_MAX {
            let _ = throttle.admit(address(number), now);
            throttle.state().strangers.left = IN_ALL.burst;
        }
        assert_eq!(throttle.state().addresses.len(), ADDRESSES_MAX);
        let beyond = |number| throttle.admit(address(3 * ADDRESSES_MAX + number), now);
        let let_in = (0..100).filter(|number| beyond(*number).is_ok()).count();
        assert!(let_in < 50, "they share one allowance: {let_in}");
    }

    #[test]
    fn a_site_of_ipv6_is_one_client() {
        assert_eq!(
            network(ip("2001:db8:1:2::3")),
            network(ip("2001:db8:1:2:9::"))
        );
        assert_ne!(
            network(ip("2001:db8:1:2::3")),
            network(ip("2001:db8:1:3::3"))
        );
        assert_eq!(network(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }
}
