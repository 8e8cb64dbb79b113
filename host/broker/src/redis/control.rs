//! Requests between nodes about a user, and the replies, on the channels of the two servers.
//!
//! Both are JSON with a `type` that no client and no plugin can send, and begin in a way that no message does. Only
//! servers with a lease are asked: those of `websocket-app` would deliver a request to a client.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use signalbox_protocol::CloseCode;
use signalbox_redis_client::Commands;
use tracing::info;

use super::{
    keys::{KeyNames, ServerId},
    questions::Questions,
};
use crate::{ConnectionReport, LocalNode, UserAnswer, UserRequest};

/// The beginning of every text from one node to another that is not a message for clients.
pub(super) const START: &str = r#"{"type":"signalbox."#;

/// Asks other nodes, and answers them.
pub(super) struct Control {
    node: Arc<dyn LocalNode>,
    questions: Questions<UserAnswer>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum ControlText {
    #[serde(rename = "signalbox.request")]
    Request {
        id: u64,
        /// Where to answer.
        from: String,
        user: String,
        act: ControlAction,
    },
    #[serde(rename = "signalbox.reply")]
    Reply {
        id: u64,
        connections: usize,
        /// For [`ControlAction::List`] only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<Vec<ConnectionReport>>,
    },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ControlAction {
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

impl Control {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>, node: Arc<dyn LocalNode>) -> Self {
        Self {
            questions: Questions::new(commands, keys),
            node,
        }
    }

    /// Asks the node `server` to carry out `request`, and returns its answer.
    pub(super) async fn ask(
        &self,
        server: &ServerId,
        user: &str,
        request: &UserRequest,
    ) -> UserAnswer {
        let question = |id, from| ControlText::Request {
            id,
            from,
            user: user.to_owned(),
            act: request.into(),
        };
        let told = self.questions.ask(server, question).await;
        told.unwrap_or(UserAnswer::Nothing)
    }

    /// Handles a text from another node.
    ///
    /// # Errors
    /// Returns the reason if it cannot be understood.
    pub(super) fn handle(&self, text: &str) -> Result<(), String> {
        match serde_json::from_str(text).map_err(|error| error.to_string())? {
            ControlText::Reply {
                id,
                connections,
                list,
            } => {
                let told = list.map_or(UserAnswer::Connections(connections), UserAnswer::Listed);
                self.questions.answered(id, told);
            }
            ControlText::Request {
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
                let texts = self.questions.texts().clone();
                let reply = ControlText::Reply {
                    id,
                    connections,
                    list: (request == UserRequest::List).then(|| self.node.list(&user)),
                };
                // In a task: this caller reads everything that comes in.
                tokio::spawn(async move { texts.send(&from, &reply).await });
            }
        }
        Ok(())
    }
}

impl From<&UserRequest> for ControlAction {
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

impl TryFrom<ControlAction> for UserRequest {
    type Error = String;

    fn try_from(act: ControlAction) -> Result<Self, String> {
        Ok(match act {
            ControlAction::Count => Self::Count,
            ControlAction::List => Self::List,
            ControlAction::Disconnect { code, reason } => Self::Disconnect {
                code: close_code(code)?,
                reason,
            },
            ControlAction::DisconnectOne {
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
            let said = ControlText::Request {
                id: 7,
                from: "a-1".to_owned(),
                user: "u\"1".to_owned(),
                act: (&request).into(),
            };
            let text = serde_json::to_string(&said).unwrap();
            assert!(text.starts_with(START), "{text}");
            let ControlText::Request { act, user, .. } = serde_json::from_str(&text).unwrap()
            else {
                panic!("it was a request");
            };
            assert_eq!(
                (UserRequest::try_from(act), user.as_str()),
                (Ok(request), "u\"1")
            );
        }
        let reply = serde_json::to_string(&ControlText::Reply {
            id: 7,
            connections: 2,
            list: None,
        })
        .unwrap();
        assert!(reply.starts_with(START), "{reply}");
    }

    #[test]
    fn nobody_is_closed_with_a_code_that_is_not_for_it() {
        let act = |code| ControlAction::Disconnect {
            code,
            reason: String::new(),
        };
        assert!(UserRequest::try_from(act(4000)).is_ok());
        assert!(UserRequest::try_from(act(1000)).is_err());
        assert!(UserRequest::try_from(act(5000)).is_err());
    }
}
