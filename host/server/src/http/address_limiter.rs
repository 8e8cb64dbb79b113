//! Limits how many connections come from one address, and how fast this node admits connections.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use dashmap::DashMap;

use super::throttle::client_network;
use crate::token_bucket::TokenBucket;

/// Counts the connections of each address, and limits the rate of new connections.
#[derive(Debug, Default)]
pub(super) struct AddressLimiter {
    addresses: DashMap<IpAddr, usize>,
    rate: Mutex<Option<TokenBucket>>,
}

/// The right of an address to one more connection. Dropping it returns the right.
#[derive(Debug)]
pub(super) struct AddressPermit {
    limiter: Arc<AddressLimiter>,
    address: IpAddr,
}

impl AddressLimiter {
    /// Whether another connection may be admitted at `now`, with at most `per_second` of them; 0 means no limit.
    pub(super) fn lets_in(&self, per_second: u32, now: Instant) -> bool {
        if per_second == 0 {
            return true;
        }
        let rate = f64::from(per_second);
        let mut bucket = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = bucket.get_or_insert_with(|| TokenBucket::new(now));
        bucket.take(now, rate, rate).is_ok()
    }

    /// Takes a permit for a connection of `address` (or of its IPv6 network), with at most `max` of them; 0 means no
    /// limit. Returns `None` if no permit is free.
    pub(super) fn permit(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<AddressPermit> {
        let address = client_network(address);
        let mut count = self.addresses.entry(address).or_default();
        if max > 0 && *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressPermit {
            limiter: self.clone(),
            address,
        })
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        if let Some(mut count) = self.limiter.addresses.get_mut(&self.address) {
            *count -= 1;
        }
        let addresses = &self.limiter.addresses;
        addresses.remove_if(&self.address, |_, count| *count == 0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_let_in_at_once_and_then_a_rate() {
        let (limiter, start) = (AddressLimiter::default(), Instant::now());
        let let_in = |after: f64| {
            let now = start + Duration::from_secs_f64(after);
            (0..100).filter(|_| limiter.lets_in(10, now)).count()
        };
        assert_eq!(let_in(0.0), 10);
        assert_eq!(let_in(0.5), 5);
        assert_eq!(let_in(60.0), 10);
        assert!(limiter.lets_in(0, start), "no limit");
    }

    #[test]
    fn an_address_has_a_bounded_number_of_places_and_gets_them_back() {
        let limiter = Arc::<AddressLimiter>::default();
        let permit = |address: &str| limiter.permit(address.parse().unwrap(), 2);
        let (one, _two) = (permit("10.0.0.1").unwrap(), permit("10.0.0.1").unwrap());
        assert!(permit("10.0.0.1").is_none());
        let other = permit("10.0.0.2").unwrap();
        drop(one);
        assert!(permit("10.0.0.1").is_some());
        drop(other);
        assert_eq!(
            limiter.addresses.len(),
            1,
            "nothing is kept of those that left"
        );
    }
}
