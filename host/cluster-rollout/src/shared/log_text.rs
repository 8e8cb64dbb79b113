//! A text in the decision log, and how far it can be trusted.

use serde::de::DeserializeOwned;

use super::seal::{OpenedText, SealedKind, Seals};

/// A text found in the decision log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogText<T> {
    Nothing,
    /// Sealed with this node's key.
    Ours(T),
    /// Sealed with a key that this node had before.
    Earlier(T),
    /// It looks like a text of a node, but this node cannot verify it.
    Foreign(T),
    /// It is not a text of a node, for this reason.
    Malformed(&'static str),
}

impl<T> LogText<T> {
    /// The text, if it can be trusted.
    pub(super) fn ours(&self) -> Option<&T> {
        match self {
            Self::Ours(text) => Some(text),
            _ => None,
        }
    }

    /// The text, whether or not it can be trusted.
    pub(super) fn any(&self) -> Option<&T> {
        match self {
            Self::Ours(text) | Self::Earlier(text) | Self::Foreign(text) => Some(text),
            Self::Nothing | Self::Malformed(_) => None,
        }
    }
}

/// Reads a text from the decision log, which anybody may have written.
pub(super) fn read<T: DeserializeOwned>(
    seals: &Seals,
    kind: SealedKind,
    plugin: &str,
    text: &[u8],
) -> LogText<T> {
    if text.is_empty() {
        return LogText::Nothing;
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return LogText::Malformed("it is not UTF-8");
    };
    let Some(opened) = seals.open(kind, &[plugin], text) else {
        return LogText::Malformed("it is not signed");
    };
    let (OpenedText::Ours(body) | OpenedText::Earlier(body) | OpenedText::Foreign(body)) = opened;
    let Ok(said) = serde_json::from_str(body) else {
        return LogText::Malformed("it is not of the form that nodes write");
    };
    match opened {
        OpenedText::Ours(_) => LogText::Ours(said),
        OpenedText::Earlier(_) => LogText::Earlier(said),
        OpenedText::Foreign(_) => LogText::Foreign(said),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::texts::{Decision, tests::decision},
        *,
    };

    fn json(decision: &Decision) -> String {
        serde_json::to_string(decision).expect("it is JSON")
    }

    fn seals(key: &str) -> Seals {
        let key = key.to_owned();
        Seals::new(Arc::new(move || Some(key.clone())), "")
    }

    fn found(text: &[u8]) -> LogText<Decision> {
        read(&seals("k"), SealedKind::Decision, "chat", text)
    }

    fn sealed(key: &str, body: &str) -> Vec<u8> {
        let text = seals(key).seal(SealedKind::Decision, &["chat"], body);
        text.into_bytes()
    }

    #[test]
    fn a_decision_counts_only_if_it_is_sealed_with_the_key_of_this_node() {
        let body = json(&decision(7));
        assert_eq!(found(&sealed("k", &body)), LogText::Ours(decision(7)));
        assert_eq!(
            found(&sealed("other", &body)),
            LogText::Foreign(decision(7))
        );
        assert_eq!(
            found(body.as_bytes()),
            LogText::Malformed("it is not signed")
        );
        assert_eq!(found(b""), LogText::Nothing);
    }

    #[test]
    fn a_malformed_hash_is_never_a_decision() {
        let good = json(&decision(7));
        let sha256 = "ab".repeat(32);
        for wrong in [
            "",
            "a",
            "é",
            "ab",
            &"AB".repeat(32),
            &"zz".repeat(32),
            &"é".repeat(32),
        ] {
            let body = good.replace(&sha256, wrong);
            assert_ne!(body, good);
            for key in ["k", "other"] {
                let reason = "it is not of the form that nodes write";
                assert_eq!(
                    found(&sealed(key, &body)),
                    LogText::Malformed(reason),
                    "{wrong}"
                );
            }
        }
    }

    #[test]
    fn random_bytes_in_any_place_are_skipped_without_a_panic() {
        let sealed = sealed("k", &json(&decision(7)));
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..20_000 {
            let mut text = sealed.clone();
            if round % 2 == 0 {
                // One byte of a good text is changed.
                let place = random() as usize % text.len();
                text[place] = text[place].wrapping_add(random() as u8 | 1);
            } else {
                text = (0..random() % 200).map(|_| random() as u8).collect();
            }
            assert!(found(&text).ours().is_none(), "{text:?}");
        }
    }
}
