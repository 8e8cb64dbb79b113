//! Decides which users belong to a share of a given percentage. The result is the same on every node and in every
//! process, for as long as the plugin keeps its name.

/// The offset basis and the prime of 64-bit FNV-1a (draft-eastlake-fnv).
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Whether `user` belongs to a share of `percent` in a hundred of the plugin's users. A larger share includes the
/// smaller ones. A user without a name, such as a backend that sends for the platform, belongs only to the share of 100
/// percent.
pub(super) fn is_among(percent: u32, plugin: &str, user: &str) -> bool {
    if user.is_empty() {
        return percent >= 100;
    }
    hash(plugin, user) % 100 < u64::from(percent)
}

fn hash(plugin: &str, user: &str) -> u64 {
    // Neither contains a zero byte, so no two pairs give the same bytes.
    let bytes = plugin.bytes().chain([0]).chain(user.bytes());
    let hash = bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    mixed(hash)
}

/// The finalizer of MurmurHash3, which spreads names that differ only in their last character as well as others.
fn mixed(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_as_large_as_it_says_and_holds_the_smaller_ones() {
        for percent in [1, 5, 50, 99] {
            let users = (0..20_000).map(|number| format!("user-{number}"));
            let among: Vec<_> = users
                .filter(|user| is_among(percent, "chat", user))
                .collect();
            let share = among.len() as f64 / 200.0;
            assert!(
                (share - f64::from(percent)).abs() < 1.0,
                "{share} for {percent}"
            );
            assert!(among.iter().all(|user| is_among(percent + 1, "chat", user)));
        }
        assert!(is_among(100, "chat", "anybody"));
    }

    #[test]
    fn plugins_have_shares_of_their_own_and_nodes_the_same() {
        let among = |plugin: &str| -> Vec<u32> {
            (0..2_000)
                .filter(|number| is_among(10, plugin, &number.to_string()))
                .collect()
        };
        assert_ne!(among("a"), among("b"));
        // The value is the same in every process, and nothing may change it.
        assert_eq!(hash("chat", "ann"), 0xc393_93eb_1e48_730d);
    }

    #[test]
    fn an_unnamed_caller_is_only_in_a_share_of_all() {
        assert!(!is_among(99, "chat", ""));
        assert!(is_among(100, "chat", ""));
    }
}
