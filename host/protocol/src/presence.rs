//! Who is in a room: the frames of `presence`, and the part of a token that the other members see.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Frame, json, outbound::typed};

/// Maximum length of the `info` of a member, in bytes of JSON.
pub const MEMBER_INFO_BYTES_MAX: usize = 1 << 10;

/// The text about a member that the other members see: a JSON object of at most [`MEMBER_INFO_BYTES_MAX`] bytes.
#[derive(Clone)]
pub struct MemberInfo(Arc<RawValue>);

impl MemberInfo {
    /// Returns `None` if `text` is not a JSON object, is too long, or breaks the [rules for JSON](json::check_rules).
    pub fn parse(text: &str) -> Option<Self> {
        let is_object = text.len() <= MEMBER_INFO_BYTES_MAX && text.starts_with('{');
        if !is_object || json::check_rules(text).is_err() {
            return None;
        }
        let raw: Box<RawValue> = serde_json::from_str(text).ok()?;
        Some(Self(raw.into()))
    }

    /// The claim `info` in the JSON text `claims`; `None` if there is none that is well-formed.
    pub fn in_claims(claims: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Claims<'c> {
            #[serde(borrow)]
            info: Option<&'c RawValue>,
        }
        if !claims.contains("\"info\"") {
            return None;
        }
        let claims: Claims<'_> = serde_json::from_str(claims).ok()?;
        Self::parse(claims.info?.get())
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for MemberInfo {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for MemberInfo {}

impl fmt::Debug for MemberInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MemberInfo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A user in a room, as its members see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PresentUser<'a> {
    /// The user's ID.
    pub user_id: &'a str,
    /// The user's connections in the room, on all nodes.
    pub connections: usize,
    /// The claim `info` of the user's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<&'a MemberInfo>,
}

/// The payload of a `presence`. With `members` it describes all of the room; with `joined` or `left`, what changed; with
/// none of them, only the number of users is known from now on.
#[derive(Clone, Debug, Serialize)]
pub struct PresencePayload<'a> {
    /// The room.
    pub room: &'a str,
    /// The number of users in it.
    pub total: usize,
    /// All users in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<PresentUser<'a>>>,
    /// The users who came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<PresentUser<'a>>,
    /// The IDs of the users who left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<&'a str>,
}

impl<'a> PresencePayload<'a> {
    /// One with the number of users only.
    pub fn new(room: &'a str, total: usize) -> Self {
        Self {
            room,
            total,
            members: None,
            joined: Vec::new(),
            left: Vec::new(),
        }
    }

    /// Encodes it.
    pub fn encode(&self) -> Frame {
        typed("presence", self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_are_spelled_as_documented() {
        let info = MemberInfo::parse(r#"{"name":"Ann"}"#).unwrap();
        let ann = PresentUser {
            user_id: "ann",
            connections: 2,
            info: Some(&info),
        };
        let eve = PresentUser {
            user_id: "eve",
            connections: 1,
            info: None,
        };
        let only_total = PresencePayload::new("chat:7", 3);
        let snapshot = PresencePayload {
            members: Some(vec![ann]),
            ..only_total.clone()
        };
        let change = PresencePayload {
            joined: vec![eve],
            left: vec!["bob"],
            ..only_total.clone()
        };
        for (payload, expected) in [
            (
                only_total,
                r#"{"type":"presence","payload":{"room":"chat:7","total":3}}"#,
            ),
            (
                snapshot,
                r#"{"type":"presence","payload":{"room":"chat:7","total":3,"members":[{"userId":"ann","connections":2,"info":{"name":"Ann"}}]}}"#,
            ),
            (
                change,
                r#"{"type":"presence","payload":{"room":"chat:7","total":3,"joined":[{"userId":"eve","connections":1}],"left":["bob"]}}"#,
            ),
        ] {
            assert_eq!(payload.encode().as_str(), expected);
        }
    }

    #[test]
    fn the_info_of_a_token_is_a_short_object_or_left_out() {
        let of = |info: &str| {
            let claims = format!(r#"{{"sub":"ann","info":{info},"exp":1}}"#);
            MemberInfo::in_claims(&claims).map(|info| info.as_str().to_owned())
        };
        let object = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
        let largest = object(MEMBER_INFO_BYTES_MAX);
        for good in ["{}", r#"{"name":"Ann","n":[1.0,null]}"#, &largest] {
            assert_eq!(of(good).as_deref(), Some(good));
        }
        let too_long = object(MEMBER_INFO_BYTES_MAX + 1);
        for bad in [
            "null",
            "7",
            r#""Ann""#,
            r#"["Ann"]"#,
            r#"{"a":"\ud83d"}"#,
            r#"{"a":1},"info":{}"#,
            &too_long,
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        for claims in ["{}", r#"{"sub":"ann"}"#, "", "[]", r#"{"a":"\"info\""}"#] {
            assert_eq!(MemberInfo::in_claims(claims), None, "{claims}");
        }
    }
}
