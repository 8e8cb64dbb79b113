//! Only holders of `admin.key` decide for the cluster.
//!
//! Texts about plugins that nodes write to Redis carry an HMAC under a key that is derived from `admin.key` (HKDF with
//! SHA-256). So write access to Redis is not enough to change what the nodes run. The derived key is bound to
//! `redis.key_prefix`, and each MAC to the kind and the subject of its text, so no text can take the place of another.
//!
//! A key that is replaced while the server runs is remembered, for one purpose only: to distinguish texts that were
//! sealed with it from those of a stranger.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{hkdf, hmac};
use signalbox_plugin_runtime::hex;

/// Returns the current `admin.key`; `None` if it is not set.
pub type AdminKey = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// The purpose of the derived keys. It changes with the format of sealed texts.
const SALT: &[u8] = b"signalbox cluster decisions 1";

/// Earlier keys that are remembered.
const EARLIER_MAX: usize = 4;

/// Takes the place of the MAC if there is no key.
const UNSEALED: &str = "unsealed";

/// The kind of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SealedKind {
    Decision,
    Proposal,
    Answer,
}

/// A text that was read, by the key that sealed it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OpenedText<'t> {
    /// Sealed with the current key.
    Ours(&'t str),
    /// Sealed with a key that this node had before.
    Earlier(&'t str),
    /// Sealed with any other key, or not sealed.
    Foreign(&'t str),
}

/// Seals texts, and opens them.
pub(super) struct Seals {
    admin_key: AdminKey,
    prefix: String,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    /// The `admin.key` that the current key was derived from.
    from: Option<String>,
    current: Option<hmac::Key>,
    /// The latest first.
    earlier: Vec<hmac::Key>,
}

impl Seals {
    /// Creates the seals of the cluster whose keys in Redis begin with `prefix`.
    pub(super) fn new(admin_key: AdminKey, prefix: &str) -> Self {
        Self {
            admin_key,
            prefix: prefix.to_owned(),
            keys: Mutex::default(),
        }
    }

    /// Whether there is a key at all.
    pub(super) fn has_key(&self) -> bool {
        self.with(|keys| keys.current.is_some())
    }

    /// Seals `body` as a text of this `kind` about `about`. Without a key, the result is marked as unsealed.
    pub(super) fn seal(&self, kind: SealedKind, about: &[&str], body: &str) -> String {
        let mac = self.with(|keys| {
            let key = keys.current.as_ref()?;
            Some(hex(hmac::sign(key, &message(kind, about, body)).as_ref()))
        });
        format!("{} {body}", mac.as_deref().unwrap_or(UNSEALED))
    }

    /// Returns the body of `text`, classified by the key that sealed it; `None` if `text` does not have the form of a
    /// sealed text.
    pub(super) fn open<'t>(
        &self,
        kind: SealedKind,
        about: &[&str],
        text: &'t str,
    ) -> Option<OpenedText<'t>> {
        let (mac, body) = text.split_once(' ')?;
        let Some(mac) = bytes(mac) else {
            return (mac == UNSEALED).then_some(OpenedText::Foreign(body));
        };
        let message = message(kind, about, body);
        let is_by = |key: &hmac::Key| hmac::verify(key, &message, &mac).is_ok();
        Some(self.with(|keys| {
            if keys.current.as_ref().is_some_and(is_by) {
                OpenedText::Ours(body)
            } else if keys.earlier.iter().any(is_by) {
                OpenedText::Earlier(body)
            } else {
                OpenedText::Foreign(body)
            }
        }))
    }

    fn with<R>(&self, look: impl FnOnce(&Keys) -> R) -> R {
        let admin_key = (self.admin_key)().filter(|key| !key.is_empty());
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.from != admin_key {
            let current = admin_key.as_deref().and_then(|key| self.derive(key));
            let earlier = std::mem::replace(&mut keys.current, current);
            keys.earlier.splice(0..0, earlier);
            keys.earlier.truncate(EARLIER_MAX);
            keys.from = admin_key;
        }
        look(&keys)
    }

    /// Returns `None` if the library fails, which it never does with these lengths.
    fn derive(&self, admin_key: &str) -> Option<hmac::Key> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(admin_key.as_bytes());
        let info = [self.prefix.as_bytes()];
        let key = secret.expand(&info, hmac::HMAC_SHA256).ok()?;
        Some(key.into())
    }
}

/// The input of the MAC: each part with its length, so that no two lists of parts yield the same bytes.
fn message(kind: SealedKind, about: &[&str], body: &str) -> Vec<u8> {
    let kind = match kind {
        SealedKind::Decision => "decision",
        SealedKind::Proposal => "proposal",
        SealedKind::Answer => "answer",
    };
    let mut message = Vec::new();
    for part in [kind].iter().chain(about).chain(&[body]) {
        message.extend((part.len() as u64).to_le_bytes());
        message.extend(part.as_bytes());
    }
    message
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 64 || !digits.iter().all(is_digit) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals(key: Option<&str>, prefix: &str) -> Seals {
        let key = key.map(str::to_owned);
        Seals::new(Arc::new(move || key.clone()), prefix)
    }

    const KEY: Option<&str> = Some("an-admin-key");

    #[test]
    fn a_sealed_decision_is_opened_by_another_node_with_the_key() {
        let text = seals(KEY, "p:").seal(SealedKind::Decision, &["chat"], "{}");
        let open = |seals: Seals, kind, about: &[&str], text: &str| {
            let opened = seals.open(kind, about, text);
            opened.map(|opened| matches!(opened, OpenedText::Ours("{}")))
        };
        let (ours, foreign) = (Some(true), Some(false));
        let (decision, chat) = (SealedKind::Decision, &["chat"][..]);
        assert_eq!(open(seals(KEY, "p:"), decision, chat, &text), ours);
        // Another key, no key, another cluster, another kind, another plugin, and another division of the parts.
        assert_eq!(
            open(seals(Some("other"), "p:"), decision, chat, &text),
            foreign
        );
        assert_eq!(open(seals(None, "p:"), decision, chat, &text), foreign);
        assert_eq!(open(seals(Some(""), "p:"), decision, chat, &text), foreign);
        assert_eq!(open(seals(KEY, "q:"), decision, chat, &text), foreign);
        assert_eq!(
            open(seals(KEY, "p:"), SealedKind::Proposal, chat, &text),
            foreign
        );
        assert_eq!(open(seals(KEY, "p:"), decision, &["other"], &text), foreign);
        assert_eq!(
            open(seals(KEY, "p:"), decision, &["ch", "at"], &text),
            foreign
        );
        let changed = text.replace("{}", "[]");
        assert_eq!(open(seals(KEY, "p:"), decision, chat, &changed), foreign);
    }

    #[test]
    fn without_a_key_nothing_is_sealed_and_nothing_is_believed() {
        let bare = seals(None, "");
        let text = bare.seal(SealedKind::Decision, &["chat"], "{}");
        assert_eq!(text, "unsealed {}");
        assert!(!bare.has_key() && seals(KEY, "").has_key());
        for reader in [bare, seals(KEY, "")] {
            let opened = reader.open(SealedKind::Decision, &["chat"], &text);
            assert_eq!(opened, Some(OpenedText::Foreign("{}")));
        }
    }

    #[test]
    fn a_replaced_key_is_distinguished_from_an_unknown_one() {
        let key = Arc::new(Mutex::new("first".to_owned()));
        let now = key.clone();
        let rotating = Seals::new(Arc::new(move || Some(now.lock().unwrap().clone())), "");
        let text = rotating.seal(SealedKind::Decision, &["chat"], "{}");
        *key.lock().unwrap() = "second".to_owned();
        let opened = rotating.open(SealedKind::Decision, &["chat"], &text);
        assert_eq!(opened, Some(OpenedText::Earlier("{}")));
        let strangers = seals(Some("third"), "").seal(SealedKind::Decision, &["chat"], "{}");
        let opened = rotating.open(SealedKind::Decision, &["chat"], &strangers);
        assert_eq!(opened, Some(OpenedText::Foreign("{}")));
        let resealed = rotating.seal(SealedKind::Decision, &["chat"], "{}");
        let opened = rotating.open(SealedKind::Decision, &["chat"], &resealed);
        assert_eq!(opened, Some(OpenedText::Ours("{}")));
    }

    #[test]
    fn any_content_is_read_without_a_panic() {
        let seals = seals(KEY, "");
        for text in [
            "",
            " ",
            "x",
            "ab {}",
            "é {}",
            &format!("{} ", "é".repeat(32)),
        ] {
            let opened = seals.open(SealedKind::Decision, &["chat"], text);
            assert_eq!(opened, None, "{text:?}");
        }
    }
}
