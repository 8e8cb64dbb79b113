//! Transfers components from node to node: through Redis, in pieces.
//!
//! Piece `n` of the component with hash `sha256` has the key `signalbox:component:sha256:n` after the configured
//! prefix. A fetched component is checked against its hash, so it does not matter who wrote a piece, or how often.
//! Redis removes the pieces after [`KEPT_WHILE_PROPOSED`]; nodes that follow a decision keep its component there for
//! [`KEPT_WHILE_DECIDED`], again and again.

use std::{sync::Arc, time::Duration};

use signalbox_plugin_runtime::Sha256;
use signalbox_redis_client::{Commands, Unavailable};

use super::{millis, texts::StoredComponent};

/// Bytes of a piece: one command transfers it within the command timeout, and blocks Redis for well under a
/// millisecond.
const PIECE_BYTES: usize = 256 * 1024;

/// Longer than any proposal takes.
const KEPT_WHILE_PROPOSED: Duration = Duration::from_secs(600);

/// Long enough for a cluster that was switched off for some days to find its versions again.
const KEPT_WHILE_DECIDED: Duration = Duration::from_secs(14 * 24 * 3600);

/// Why a component cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Unavailable(#[from] Unavailable),
    #[error("the component is no longer in Redis")]
    Gone,
    #[error("the component in Redis is not the one with this sha256")]
    Foreign,
    #[error(
        "the component has {bytes} bytes, more than limits.plugin_file_bytes_max ({max}) of this node"
    )]
    TooLarge { bytes: usize, max: usize },
}

/// Writes components to Redis, and reads them back.
pub(super) struct ComponentStore {
    commands: Commands,
    prefix: String,
}

impl ComponentStore {
    pub(super) fn new(commands: Commands, prefix: &str) -> Self {
        Self {
            commands,
            prefix: prefix.to_owned(),
        }
    }

    /// Writes the component to Redis, for as long as a proposal may take.
    pub(super) async fn offer(
        &self,
        component: &StoredComponent,
        bytes: &[u8],
    ) -> Result<(), Unavailable> {
        self.put(component, bytes, KEPT_WHILE_PROPOSED).await
    }

    /// Makes sure that others can fetch the component for a long time: existing pieces are kept for longer, and if one
    /// is missing all of them are written.
    pub(super) async fn keep(
        &self,
        component: &StoredComponent,
        bytes: &[u8],
    ) -> Result<(), Unavailable> {
        for index in 0..pieces(component) {
            let mut expire = redis::cmd("PEXPIRE");
            expire
                .arg(self.key(component, index))
                .arg(millis(KEPT_WHILE_DECIDED));
            if self.commands.run::<u8>(&expire).await? == 0 {
                return self.put(component, bytes, KEPT_WHILE_DECIDED).await;
            }
        }
        Ok(())
    }

    /// Reads the whole component, if it has at most `bytes_max` bytes.
    pub(super) async fn fetch(
        &self,
        component: &StoredComponent,
        bytes_max: usize,
    ) -> Result<Arc<[u8]>, FetchError> {
        if component.bytes > bytes_max {
            return Err(FetchError::TooLarge {
                bytes: component.bytes,
                max: bytes_max,
            });
        }
        let mut bytes = Vec::with_capacity(component.bytes);
        for index in 0..pieces(component) {
            // Reads up to one byte more than a piece has, which is enough to detect one that is too long.
            let mut get = redis::cmd("GETRANGE");
            get.arg(self.key(component, index)).arg(0).arg(PIECE_BYTES);
            let piece: Vec<u8> = self.commands.run(&get).await?;
            if piece.is_empty() {
                return Err(FetchError::Gone);
            }
            if piece.len() > component.bytes - bytes.len() {
                return Err(FetchError::Foreign);
            }
            bytes.extend_from_slice(&piece);
        }
        if Sha256::of(&bytes) != component.sha256 {
            return Err(FetchError::Foreign);
        }
        Ok(bytes.into())
    }

    async fn put(
        &self,
        component: &StoredComponent,
        bytes: &[u8],
        kept: Duration,
    ) -> Result<(), Unavailable> {
        for (index, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let mut set = redis::cmd("SET");
            set.arg(self.key(component, index)).arg(piece);
            set.arg("PX").arg(millis(kept));
            self.commands.run::<()>(&set).await?;
        }
        Ok(())
    }

    fn key(&self, component: &StoredComponent, index: usize) -> String {
        let Self { prefix, .. } = self;
        format!("{prefix}signalbox:component:{}:{index}", component.sha256)
    }
}

fn pieces(component: &StoredComponent) -> usize {
    component.bytes.div_ceil(PIECE_BYTES)
}
