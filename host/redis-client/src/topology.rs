//! Parses the answers of Redis servers about themselves and each other.

use std::collections::BTreeSet;

use redis::{FromRedisValue, Value, from_redis_value_ref};

/// The kind of Redis behind the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server, or one with replicas that clients need not know about.
    Single,
    /// Servers that share the keys; every key belongs to a slot.
    Cluster,
    /// A master that sentinels name.
    Sentinel,
}

/// Host and port.
pub(super) type HostPort = (String, u16);

/// The kind of server according to `INFO server`.
pub(super) fn topology_in(info: &str) -> Topology {
    match field(info, "redis_mode") {
        "cluster" => Topology::Cluster,
        "sentinel" => Topology::Sentinel,
        _ => Topology::Single,
    }
}

/// The fault that `CLUSTER INFO` reports, if any: otherwise a node whose own channel works would not notice that the
/// users of another slot cannot be found.
pub(super) fn cluster_fault(info: &str) -> Option<String> {
    let failed = field(info, "cluster_slots_fail");
    if field(info, "cluster_state") != "ok" {
        Some("the Redis cluster is down (cluster_state)".to_owned())
    } else if !matches!(failed, "" | "0") {
        Some(format!(
            "{failed} slots of the cluster of Redis are not served"
        ))
    } else {
        None
    }
}

/// Whether the answer to `ROLE`, an array that starts with a word, is a master's.
pub fn is_master(role: &Value) -> bool {
    matches!(role, Value::Array(parts) if parts.first().and_then(read::<String>).as_deref() == Some("master"))
}

/// The servers that own slots, in the answer to `CLUSTER SLOTS`.
pub(super) fn masters(slots: &[Value]) -> BTreeSet<HostPort> {
    slots
        .iter()
        .filter_map(|range| Some(range_of(range)?.2))
        .collect()
}

/// The server that owns `slot`, in the answer to `CLUSTER SLOTS`. The host is empty if the server that was asked does
/// not know its own.
pub(super) fn owner_of(slots: &[Value], slot: u16) -> Option<HostPort> {
    slots
        .iter()
        .filter_map(range_of)
        .find_map(|(first, last, place)| (first..=last).contains(&slot).then_some(place))
}

/// One entry of `CLUSTER SLOTS`: first, last, master, replicas...
fn range_of(range: &Value) -> Option<(u16, u16, HostPort)> {
    let Value::Array(parts) = range else {
        return None;
    };
    let [first, last, Value::Array(master), ..] = parts.as_slice() else {
        return None;
    };
    let host = match master.first()? {
        Value::Nil => String::new(),
        host => read(host)?,
    };
    Some((read(first)?, read(last)?, (host, read(master.get(1)?)?)))
}

fn read<T: FromRedisValue>(value: &Value) -> Option<T> {
    from_redis_value_ref(value).ok()
}

/// The value of a line `name:value`; empty if there is none.
fn field<'i>(info: &'i str, name: &str) -> &'i str {
    info.lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let replica = Value::Array(vec![text("10.9.9.9"), Value::Int(7999), text("id")]);
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            Value::Array(vec![host, Value::Int(port), text("id")]),
            replica,
        ])
    }

    #[test]
    fn the_kind_of_redis_is_read_from_its_own_report() {
        for (info, topology) in [
            ("# Server\r\nredis_mode:cluster\r\n", Topology::Cluster),
            ("redis_mode:sentinel\r\n", Topology::Sentinel),
            ("redis_mode:standalone\r\n", Topology::Single),
            ("", Topology::Single),
        ] {
            assert_eq!(topology_in(info), topology, "{info}");
        }
    }

    #[test]
    fn the_owner_of_a_slot_is_the_first_server_of_its_range() {
        let slots = [
            range(100, 200, text("10.0.0.1"), 7000),
            range(201, 300, Value::Nil, 7001),
            Value::Nil,
        ];
        assert_eq!(owner_of(&slots, 150), Some(("10.0.0.1".to_owned(), 7000)));
        assert_eq!(owner_of(&slots, 300), Some((String::new(), 7001)));
        assert_eq!(owner_of(&slots, 301), None);
        let places = [(String::new(), 7001), ("10.0.0.1".to_owned(), 7000)];
        assert_eq!(masters(&slots), BTreeSet::from(places));
    }

    #[test]
    fn a_cluster_that_does_not_serve_all_slots_is_a_fault() {
        assert_eq!(
            cluster_fault("cluster_state:ok\r\ncluster_slots_fail:0\r\n"),
            None
        );
        assert!(cluster_fault("cluster_state:fail\r\n").is_some());
        assert!(
            cluster_fault("cluster_state:ok\r\ncluster_slots_fail:12\r\n")
                .is_some_and(|fault| fault.starts_with("12 slots"))
        );
    }

    #[test]
    fn only_a_master_says_that_it_is_one() {
        let role = |word| Value::Array(vec![text(word), Value::Int(0)]);
        assert!(is_master(&role("master")) && !is_master(&role("slave")));
        assert!(!is_master(&Value::Nil) && !is_master(&Value::Array(Vec::new())));
    }
}
