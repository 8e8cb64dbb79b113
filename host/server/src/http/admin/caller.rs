//! Identifies callers, and audits their changes.

use std::net::SocketAddr;

use aws_lc_rs::digest::{Context, SHA256};
use signalbox_plugin_runtime::hex;
use tracing::info;

use crate::http::error::ApiError;

/// Mixed into the fingerprints of keys, so that they are useless elsewhere.
const FINGERPRINT_OF: &[u8] = b"signalbox-admin:";

/// Bytes of the hash in a fingerprint: enough to tell keys apart, too few to recover a key.
const FINGERPRINT_BYTES: usize = 4;

/// Maximum length of a text in an audit line, in bytes; the rest is cut off.
const TEXT_BYTES_MAX: usize = 512;

/// A caller of the admin API.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    address: SocketAddr,
    /// Tells keys apart without revealing them: the first digits of a SHA-256.
    key: String,
}

impl Caller {
    pub(super) fn new(address: SocketAddr, key: &str) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(FINGERPRINT_OF);
        hash.update(key.as_bytes());
        Self {
            address,
            key: hex(&hash.finish().as_ref()[..FINGERPRINT_BYTES]),
        }
    }

    /// Identifies the caller in audit lines, on other nodes too.
    pub(super) fn in_words(&self) -> String {
        let Self { address, key } = self;
        format!("key {key} from {address}")
    }

    /// Logs that this caller did `action` to `object`, and its `outcome`. `detail` names the version, or the fault.
    pub(super) fn did(&self, action: &str, object: &str, outcome: &str, detail: &str) {
        let Self { address, key } = self;
        let (object, detail) = (cut(object), cut(detail));
        info!(
            target: "signalbox::audit",
            %address,
            key,
            action,
            object,
            outcome,
            detail,
            "{action} {object:?}: {outcome}"
        );
    }

    /// Logs that an action was refused.
    pub(super) fn was_refused(&self, action: &str, object: &str, error: &ApiError) {
        self.did(action, object, error.code(), error.message());
    }
}

/// Truncates text from a caller, which may be long.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_matches_the_documentation() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        // printf 'signalbox-admin:%s' an-admin-key-of-tests | sha256sum | cut -c1-8
        assert_eq!(
            Caller::new(address, "an-admin-key-of-tests").key,
            "713c5657"
        );
    }
}
