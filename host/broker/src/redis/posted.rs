//! Posts frames to connections of other nodes, on the channels of their servers.
//!
//! The ID of a connection begins with the nonce of its server's boot, with which the ID of the server ends. A request is a line of
//! JSON with a `type` that no client and no plugin can send, and then the frame; the reply is JSON.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use signalbox_redis_client::{Commands, Unavailable};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::{
    holders::Holders,
    keys::{Ability, KeyNames, ServerId},
    nodes,
    post::TEXT_BYTES_MAX,
    questions::Questions,
};
use crate::{LocalNode, PostOutcome, PostedFrame, SendKey};

/// The beginning of every text that this module sends.
pub(super) const START: &str = r#"{"type":"signalbox.post"#;

/// The shortest time between two reads of the list of servers, whatever connections strangers invent.
const READ_INTERVAL: Duration = Duration::from_millis(250);

/// The most servers that are remembered; beyond it all are forgotten.
const SERVERS_MAX: usize = 10_000;

/// The most bytes of the ID of a connection.
const CONNECTION_BYTES_MAX: usize = 64;

/// Posts frames to other nodes, and takes those that they post here.
pub(super) struct PostedFrames {
    questions: Questions<PostOutcome>,
    commands: Commands,
    keys: Arc<KeyNames>,
    holders: Arc<Holders>,
    node: Arc<dyn LocalNode>,
    /// The servers that were alive when they were listed, by their nonces. A nonce never means another server.
    servers: DashMap<String, ServerId>,
    reads: Mutex<ServerReads>,
}

/// When the list of servers was read.
#[derive(Default)]
struct ServerReads {
    /// When the last read began.
    began: Option<Instant>,
    /// When the last read that succeeded began.
    covered: Option<Instant>,
}

/// The next step to find the server of a nonce.
enum ServerSearch {
    /// Read the list of servers.
    Read(Instant),
    /// Look again then.
    Wait(Instant),
    /// The list was read since, and there is no such server.
    Over,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum PostText {
    /// The frame follows in the next lines.
    #[serde(rename = "signalbox.post")]
    Post {
        id: u64,
        /// Where to answer.
        from: String,
        connection: String,
        key: String,
    },
    #[serde(rename = "signalbox.post_reply")]
    Reply { id: u64, outcome: PostOutcome },
}

impl PostedFrames {
    pub(super) fn new(
        commands: Commands,
        keys: Arc<KeyNames>,
        holders: Arc<Holders>,
        node: Arc<dyn LocalNode>,
    ) -> Self {
        Self {
            questions: Questions::new(commands.clone(), keys.clone()),
            commands,
            keys,
            holders,
            node,
            servers: DashMap::new(),
            reads: Mutex::default(),
        }
    }

    /// Gives `post` to the node of its connection, if that is another one.
    pub(super) async fn post(&self, post: PostedFrame<'_>) -> PostOutcome {
        let Some(nonce) = nonce_of(post.connection) else {
            return PostOutcome::Unknown;
        };
        let server = match timeout(self.questions.time(), self.living_server(nonce)).await {
            Ok(Ok(Some(server))) => server,
            Ok(Ok(None)) => return PostOutcome::Unknown,
            Ok(Err(error)) => {
                debug!(%error, "the node of a connection cannot be found");
                return PostOutcome::NoAnswer;
            }
            Err(_) => return PostOutcome::NoAnswer,
        };
        if server == *self.keys.own_id() {
            return PostOutcome::Unknown;
        }
        // An older server may hold no such connection, but another one can only know that from its lease.
        if !self.holders.can(&server, Ability::PostedFrames) {
            return PostOutcome::NoAnswer;
        }
        let question = |id, from| {
            let head = PostText::Post {
                id,
                from,
                connection: post.connection.to_owned(),
                key: post.key.to_text(),
            };
            // Strings and numbers under string keys always serialize.
            let head = serde_json::to_string(&head).unwrap_or_default();
            [&head, "\n", post.text].concat()
        };
        let overhead = START.len() + self.keys.own_id().len() + post.connection.len() + 128;
        if post.text.len() + overhead > TEXT_BYTES_MAX {
            return PostOutcome::TooBig;
        }
        let answer = self.questions.ask_by_text(&server, question).await;
        answer.unwrap_or_else(|| {
            self.holders.recheck(&server);
            PostOutcome::NoAnswer
        })
    }

    /// Handles a text from another server.
    ///
    /// # Errors
    /// Returns the reason if it cannot be understood.
    pub(super) fn handle(&self, text: &str) -> Result<(), String> {
        let (head, frame) = text.split_once('\n').unwrap_or((text, ""));
        match serde_json::from_str(head).map_err(|error| error.to_string())? {
            PostText::Reply { id, outcome } => self.questions.answered(id, outcome),
            PostText::Post {
                id,
                from,
                connection,
                key,
            } => {
                let key = SendKey::parse(&key).ok_or("its key is malformed")?;
                let outcome = self.node.take_post(PostedFrame {
                    connection: &connection,
                    key,
                    text: frame,
                });
                let texts = self.questions.texts().clone();
                // In a task: the caller reads everything that comes in.
                tokio::spawn(async move {
                    texts.send(&from, &PostText::Reply { id, outcome }).await;
                });
            }
        }
        Ok(())
    }

    /// The server with this nonce, if it has a lease.
    async fn living_server(&self, nonce: &str) -> Result<Option<ServerId>, Unavailable> {
        let Some(server) = self.server(nonce).await? else {
            return Ok(None);
        };
        let (living, _) = self.holders.by_life(vec![server]).await?;
        if living.is_empty() {
            self.servers.remove(nonce);
        }
        Ok(living.into_iter().next())
    }

    /// The server with this nonce, if it is in the list of servers now, or was in it earlier.
    async fn server(&self, nonce: &str) -> Result<Option<ServerId>, Unavailable> {
        let asked = Instant::now();
        loop {
            if let Some(server) = self.servers.get(nonce) {
                return Ok(Some(server.clone()));
            }
            match self.search(asked) {
                ServerSearch::Over => return Ok(None),
                ServerSearch::Wait(until) => sleep_until(until).await,
                ServerSearch::Read(began) => {
                    let living = nodes::living(&self.commands, &self.keys).await?;
                    self.note(living);
                    self.reads
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .covered = Some(began);
                }
            }
        }
    }

    /// Decides how a search that began at `asked` goes on.
    fn search(&self, asked: Instant) -> ServerSearch {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.covered.is_some_and(|covered| covered >= asked) {
            return ServerSearch::Over;
        }
        let now = Instant::now();
        let next = reads.began.map(|began| began + READ_INTERVAL);
        match next {
            Some(next) if next > now => ServerSearch::Wait(next),
            _ => {
                reads.began = Some(now);
                ServerSearch::Read(now)
            }
        }
    }

    fn note(&self, living: Vec<String>) {
        if self.servers.len() + living.len() > SERVERS_MAX {
            self.servers.clear();
        }
        for server in living {
            let nonce = server.rsplit_once('-').map_or(&*server, |(_, nonce)| nonce);
            self.servers.insert(nonce.to_owned(), server.into());
        }
    }
}

/// The nonce with which the ID of a connection begins.
fn nonce_of(connection: &str) -> Option<&str> {
    let (nonce, number) = connection.split_once('-')?;
    let is_id = !nonce.is_empty() && !number.is_empty() && connection.len() <= CONNECTION_BYTES_MAX;
    is_id.then_some(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_a_unique_prefix_and_read_back_unchanged() {
        let post = PostText::Post {
            id: 7,
            from: "a-1".to_owned(),
            connection: "1-2".to_owned(),
            key: "0f".repeat(16),
        };
        let reply = PostText::Reply {
            id: 7,
            outcome: PostOutcome::WrongKey,
        };
        for message in [post, reply] {
            let text = serde_json::to_string(&message).unwrap();
            assert!(text.starts_with(START) && !text.contains('\n'), "{text}");
            assert_eq!(serde_json::from_str::<PostText>(&text).unwrap(), message);
        }
    }

    #[test]
    fn the_id_of_a_connection_names_its_server() {
        assert_eq!(nonce_of("0f6a31c2d4e5-29"), Some("0f6a31c2d4e5"));
        for other in ["", "-", "a", "a-", "-1", &format!("{}-1", "a".repeat(64))] {
            assert_eq!(nonce_of(other), None, "{other}");
        }
    }
}
