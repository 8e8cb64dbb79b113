//! Requests between nodes about a user, and the replies, on the channels of the two servers.
//!
//! Both are JSON with a `type` that no client and no plugin can send, and begin in a way that no message does. Only
//! servers with a lease are asked: those of `websocket-app` would deliver a request to a client.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::timeout};
use tracing::{debug, info};

use super::{
    keys::{Keys, ServerId},
    post::Post,
};
use crate::{
    broker::{ConnectionReport, LocalNode, Told, UserRequest},
    protocol::CloseCode,
    redis_client::{Commands, Unavailable},
};

/// The beginning of every text from one node to another that is not a message for clients.
pub(super) const START: &str = r#"{"type":"signalbox."#;

/// How long a reply may take in addition to the command timeout: for the other node to answer, and for the way back.
const ANSWER_EXTRA: Duration = Duration::from_millis(500);

/// Questions that may be open at a time.
const OPEN_MAX: usize = 4_096;

/// Asks other nodes, and answers them.
pub(super) struct Control {
    commands: Commands,
    keys: Arc<Keys>,
    node: Arc<dyn LocalNode>,
    next: AtomicU64,
    open: Mutex<HashMap<u64, oneshot::Sender<Told>>>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Said {
    #[serde(rename = "signalbox.request")]
    Request {
        id: u64,
        /// Where to answer.
        from: String,
        user: String,
        act: Act,
    },
    #[serde(rename = "signalbox.reply")]
    Reply {
        id: u64,
        connections: usize,
        /// For [`Act::List`] only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<Vec<ConnectionReport>>,
    },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Act {
    Count,
    List,
    Disconnect {
        code: u16,
        reason: String,
    },
    DisconnectOne {
        connection: String,
        code: u16,
        reason: String,
    },
}

/// Forgets a question when its caller no longer waits for the answer.
struct Open<'c> {
    control: &'c Control,
    id: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.control.open().remove(&self.id);
    }
}

impl Control {
    pub(super) fn new(commands: Commands, keys: Arc<Keys>, node: Arc<dyn LocalNode>) -> Self {
        Self {
            commands,
            keys,
            node,
            next: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// Asks the node `server` to carry out `request`, and returns its answer.
    pub(super) async fn ask(&self, server: &ServerId, user: &str, request: &UserRequest) -> Told {
        let (answer, answered) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = self.open();
            if open.len() >= OPEN_MAX {
                return Told::Nothing;
            }
            open.insert(id, answer);
        }
        let _open = Open { control: self, id };
        let said = Said::Request {
            id,
            from: self.keys.own_id().to_string(),
            user: user.to_owned(),
            act: request.into(),
        };
        match say(&self.commands, &self.keys, server, &said).await {
            Ok(true) => {}
            Ok(false) => return Told::Nothing,
            Err(error) => {
                debug!(%error, server = &**server, "a node was not asked");
                return Told::Nothing;
            }
        }
        match timeout(self.keys.command_timeout() + ANSWER_EXTRA, answered).await {
            Ok(Ok(told)) => told,
            _ => Told::Nothing,
        }
    }

    /// Handles a text from another node.
    ///
    /// # Errors
    /// Returns the reason if it cannot be understood.
    pub(super) fn take(&self, text: &str) -> Result<(), String> {
        match serde_json::from_str(text).map_err(|error| error.to_string())? {
            Said::Reply {
                id,
                connections,
                list,
            } => {
                // If nobody waits any more, the answer is too late.
                if let Some(answer) = self.open().remove(&id) {
                    let _ = answer.send(list.map_or(Told::Connections(connections), Told::Listed));
                }
            }
            Said::Request {
                id,
                from,
                user,
                act,
            } => {
                let request = UserRequest::try_from(act)?;
                let connections = self.node.carry_out(&user, &request);
                if let UserRequest::Disconnect { code, .. }
                | UserRequest::DisconnectOne { code, .. } = &request
                {
                    let code = code.number();
                    info!(
                        user,
                        code,
                        connections,
                        from,
                        "a user is disconnected on request of another node"
                    );
                }
                let (commands, keys) = (self.commands.clone(), self.keys.clone());
                let reply = Said::Reply {
                    id,
                    connections,
                    list: (request == UserRequest::List).then(|| self.node.list(&user)),
                };
                // In a task: this caller reads everything that comes in.
                tokio::spawn(async move {
                    if let Err(error) = say(&commands, &keys, &from, &reply).await {
                        debug!(%error, server = from, "a node was not answered");
                    }
                });
            }
        }
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Told>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends `said` to `server`, and returns whether anybody listens; `true` if that is unknown.
pub(super) async fn say(
    commands: &Commands,
    keys: &Keys,
    server: &str,
    said: &impl Serialize,
) -> Result<bool, Unavailable> {
    // Strings and numbers under string keys always serialize.
    let text = serde_json::to_string(said).unwrap_or_default();
    let post = Post::new(commands, keys, server, &text)?;
    let listeners = commands.run_once(post.command()).await?;
    Ok(post.is_heard(listeners))
}

impl From<&UserRequest> for Act {
    fn from(request: &UserRequest) -> Self {
        match request {
            UserRequest::Count => Self::Count,
            UserRequest::List => Self::List,
            UserRequest::DisconnectOne {
                connection,
                code,
                reason,
            } => Self::DisconnectOne {
                connection: connection.clone(),
                code: code.number(),
                reason: reason.clone(),
            },
            UserRequest::Disconnect { code, reason } => Self::Disconnect {
                code: code.number(),
                reason: reason.clone(),
            },
        }
    }
}

impl TryFrom<Act> for UserRequest {
    type Error = String;

    fn try_from(act: Act) -> Result<Self, String> {
        Ok(match act {
            Act::Count => Self::Count,
            Act::List => Self::List,
            Act::Disconnect { code, reason } => Self::Disconnect {
                code: close_code(code)?,
                reason,
            },
            Act::DisconnectOne {
                connection,
                code,
                reason,
            } => Self::DisconnectOne {
                connection,
                code: close_code(code)?,
                reason,
            },
        })
    }
}

fn close_code(code: u16) -> Result<CloseCode, String> {
    CloseCode::from_plugin(code)
        .ok_or_else(|| format!("{code} is no close code between 4000 and 4999"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_say_begins_as_nothing_else_does_and_comes_back_as_it_was() {
        let disconnect = UserRequest::Disconnect {
            code: CloseCode::KICKED,
            reason: "\"bye\"".to_owned(),
        };
        let one = UserRequest::DisconnectOne {
            connection: "c-1".to_owned(),
            code: CloseCode::KICKED,
            reason: String::new(),
        };
        for request in [UserRequest::Count, UserRequest::List, disconnect, one] {
            let said = Said::Request {
                id: 7,
                from: "a-1".to_owned(),
                user: "u\"1".to_owned(),
                act: (&request).into(),
            };
            let text = serde_json::to_string(&said).unwrap();
            assert!(text.starts_with(START), "{text}");
            let Said::Request { act, user, .. } = serde_json::from_str(&text).unwrap() else {
                panic!("it was a request");
            };
            assert_eq!(
                (UserRequest::try_from(act), user.as_str()),
                (Ok(request), "u\"1")
            );
        }
        let reply = serde_json::to_string(&Said::Reply {
            id: 7,
            connections: 2,
            list: None,
        })
        .unwrap();
        assert!(reply.starts_with(START), "{reply}");
    }

    #[test]
    fn nobody_is_closed_with_a_code_that_is_not_for_it() {
        let act = |code| Act::Disconnect {
            code,
            reason: String::new(),
        };
        assert!(UserRequest::try_from(act(4000)).is_ok());
        assert!(UserRequest::try_from(act(1000)).is_err());
        assert!(UserRequest::try_from(act(5000)).is_err());
    }
}
