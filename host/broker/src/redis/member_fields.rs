//! The fields of `room_members:<room>`, one for each server and user: the name `<server>:<user>`, and a JSON object.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use signalbox_protocol::{MemberInfo, UserId};

use crate::MemberReport;

#[derive(Serialize)]
struct WrittenMember<'m> {
    connections: usize,
    since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'m MemberInfo>,
}

#[derive(Deserialize)]
struct ReadMember<'m> {
    connections: usize,
    since: u64,
    #[serde(borrow, default)]
    info: Option<&'m RawValue>,
}

/// The name of the field of `user` on `server`. Server IDs contain no colon.
pub(super) fn name(server: &str, user: &str) -> String {
    format!("{server}:{user}")
}

/// The value of the field.
pub(super) fn value(member: &MemberReport) -> String {
    let written = WrittenMember {
        connections: member.connections,
        since: member.since_ms,
        info: member.info.as_ref(),
    };
    // Numbers and JSON always serialize.
    serde_json::to_string(&written).unwrap_or_default()
}

/// The server in the name of a field; `None` if it is malformed.
pub(super) fn server_in(name: &[u8]) -> Option<&str> {
    let (server, _) = std::str::from_utf8(name).ok()?.split_once(':')?;
    Some(server)
}

/// The member that a field describes; `None` if it is malformed.
pub(super) fn read(name: &[u8], value: &[u8]) -> Option<MemberReport> {
    let (_, user) = std::str::from_utf8(name).ok()?.split_once(':')?;
    let user = UserId::parse(user)?;
    let member: ReadMember<'_> = serde_json::from_slice(value).ok()?;
    (member.connections > 0).then(|| MemberReport {
        user: (&*user).into(),
        connections: member.connections,
        since_ms: member.since,
        info: member.info.and_then(|info| MemberInfo::parse(info.get())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_comes_back_as_it_was_written() {
        for (user, info) in [
            ("ann", None),
            ("a:b{}\n\u{0}ä", MemberInfo::parse(r#"{"name":"Ann"}"#)),
        ] {
            let member = MemberReport {
                user: user.into(),
                connections: 2,
                since_ms: 1_700_000_000_000,
                info,
            };
            let field = name("a-1", user);
            assert_eq!(server_in(field.as_bytes()), Some("a-1"));
            let back = read(field.as_bytes(), value(&member).as_bytes());
            assert_eq!(back, Some(member));
        }
    }

    #[test]
    fn a_value_is_spelled_as_documented() {
        let member = MemberReport {
            user: "ann".into(),
            connections: 2,
            since_ms: 7,
            info: MemberInfo::parse(r#"{"name":"Ann"}"#),
        };
        assert_eq!(
            value(&member),
            r#"{"connections":2,"since":7,"info":{"name":"Ann"}}"#
        );
    }

    #[test]
    fn a_malformed_field_is_no_member_and_a_malformed_info_is_left_out() {
        let good: &[u8] = br#"{"connections":1,"since":2}"#;
        let long = format!("a-1:{}", "x".repeat(256));
        for name in ["", "ann", "a-1:", &long] {
            assert_eq!(read(name.as_bytes(), good), None, "{name}");
        }
        assert_eq!(read(b"a-1:\xff", good), None);
        for value in [
            "",
            "1",
            r#"{"connections":0,"since":2}"#,
            r#"{"connections":-1,"since":2}"#,
            r#"{"connections":1}"#,
            r#"{"connections":1,"since":2,"info":{}"#,
        ] {
            assert_eq!(read(b"a-1:ann", value.as_bytes()), None, "{value}");
        }
        let value = br#"{"connections":1,"since":2,"info":"Ann","more":[]}"#;
        let member = read(b"a-1:ann", value).expect("the rest is well-formed");
        assert_eq!(member.info, None);
    }
}
