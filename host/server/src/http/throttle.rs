//! Limits how often keys may be guessed from one address.
//!
//! A correct key always works: a caller that shares an address with an attacker, for example behind a proxy, is not
//! affected. The length of a key is what makes guessing it infeasible; this limit keeps attempts cheap for the server
//! and visible to its operators.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::token_bucket::TokenBucket;

/// Wrong keys allowed per address: the sustained rate, and the size of one burst.
const PER_SECOND: f64 = 10.0;
const BURST: f64 = 50.0;

/// Maximum number of tracked addresses. All others share one allowance.
const ADDRESSES_MAX: usize = 4_096;

/// Counts wrong keys per address.
#[derive(Debug)]
pub(super) struct Throttle(Mutex<ThrottleState>);

#[derive(Debug)]
struct ThrottleState {
    addresses: HashMap<IpAddr, TokenBucket>,
    /// Shared by the addresses for which there is no room.
    others: TokenBucket,
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(ThrottleState {
            addresses: HashMap::new(),
            others: TokenBucket::new(now),
        }))
    }

    /// Counts a wrong key from `address`.
    ///
    /// # Errors
    /// Returns how long to wait before the next attempt if there were too many.
    pub(super) fn wrong_key(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut state = self.state();
        let bucket = state.of(address, now);
        bucket.take(now, PER_SECOND, BURST).map(drop)
    }

    fn state(&self) -> MutexGuard<'_, ThrottleState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ThrottleState {
    fn of(&mut self, address: IpAddr, now: Instant) -> &mut TokenBucket {
        let key = client_network(address);
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&key) {
            // An address whose bucket is full again has been quiet long enough to be forgotten.
            self.addresses
                .retain(|_, bucket| bucket.tokens(now, PER_SECOND, BURST) < BURST);
            if self.addresses.len() >= ADDRESSES_MAX {
                return &mut self.others;
            }
        }
        let entry = self.addresses.entry(key);
        entry.or_insert_with(|| TokenBucket::new(now))
    }
}

/// The network that counts as one client: an IPv4 address, or the 64-bit network of an IPv6 site.
pub(super) fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn guesses(throttle: &Throttle, address: IpAddr, now: Instant) -> usize {
        (0..1_000)
            .take_while(|_| throttle.wrong_key(address, now).is_ok())
            .count()
    }

    #[test]
    fn an_address_has_a_burst_and_a_rate_and_learns_how_long_to_wait() {
        let start = Instant::now();
        let throttle = Throttle::new(start);
        assert_eq!(guesses(&throttle, ip("10.0.0.1"), start), 50);
        let wait = throttle.wrong_key(ip("10.0.0.1"), start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(guesses(&throttle, ip("10.0.0.1"), start + wait), 1);
        let later = start + Duration::from_secs(2);
        assert_eq!(guesses(&throttle, ip("10.0.0.1"), later), 19);
        assert_eq!(guesses(&throttle, ip("10.0.0.2"), start), 50, "another one");
    }

    #[test]
    fn the_table_is_bounded_and_further_addresses_share_a_limit() {
        let start = Instant::now();
        let throttle = Throttle::new(start);
        let address = |number: usize| {
            let [_, b, c, d] = u32::try_from(number).unwrap().to_be_bytes();
            IpAddr::from([11, b, c, d])
        };
        for number in 0..ADDRESSES_MAX {
            throttle.wrong_key(address(number), start).unwrap();
        }
        let beyond = |number, now| throttle.wrong_key(address(ADDRESSES_MAX + number), now);
        let let_in = (0..100).filter(|number| beyond(*number, start).is_ok());
        assert_eq!(let_in.count(), 50, "they share one allowance");
        assert_eq!(throttle.state().addresses.len(), ADDRESSES_MAX);
        // Addresses that have been quiet are forgotten.
        beyond(0, start + Duration::from_secs(2)).unwrap();
        assert_eq!(throttle.state().addresses.len(), 1);
    }

    #[test]
    fn a_site_of_ipv6_is_one_client() {
        let network = |address| client_network(ip(address));
        assert_eq!(network("2001:db8:1:2::3"), network("2001:db8:1:2:9::"));
        assert_ne!(network("2001:db8:1:2::3"), network("2001:db8:1:3::3"));
        assert_eq!(network("::ffff:10.0.0.1"), ip("10.0.0.1"));
    }
}
