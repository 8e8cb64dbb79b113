//! Requests between nodes about a user or a room, and the replies, on the channels of the two servers.
//!
//! Both are JSON with a `type` that no client and no plugin can send, and begin in a way that no message does. Only
//! servers with a lease are asked: those of `websocket-app` would deliver a request to a client.

use std::{future, sync::Arc};

use serde::{Deserialize, Serialize};
use signalbox_protocol::{CloseCode, RoomName};
use signalbox_redis_client::Commands;
use tracing::info;

use super::{
    keys::{Ability, KeyNames, ServerId},
    questions::Questions,
};
use crate::{ConnectionReport, LocalNode, UserAnswer, UserRequest};

/// The beginning of every text from one node to another that is not a message for clients.
pub(super) const START: &str = r#"{"type":"signalbox."#;

/// Asks other nodes, and answers them.
pub(super) struct Control {
    node: Arc<dyn LocalNode>,
    questions: Questions<UserAnswer>,
    room_questions: Questions<usize>,
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
        /// For [`ControlAction::Join`] and [`ControlAction::Leave`] only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<usize>,
    },
    #[serde(rename = "signalbox.room_request")]
    RoomRequest {
        id: u64,
        /// Where to answer.
        from: String,
        room: String,
    },
    #[serde(rename = "signalbox.room_reply")]
    RoomReply { id: u64, members: usize },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ControlAction {
    Count,
    List,
    Join {
        room: String,
    },
    Leave {
        room: String,
    },
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
            questions: Questions::new(commands.clone(), keys.clone()),
            room_questions: Questions::new(commands, keys),
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
        let answer = self.questions.ask(server, question).await;
        answer.unwrap_or(UserAnswer::Nothing)
    }

    /// Asks the node `server` for the number of members of `room` there. `None` if it does not answer.
    pub(super) async fn count_members(&self, server: &ServerId, room: &str) -> Option<usize> {
        let question = |id, from| ControlText::RoomRequest {
            id,
            from,
            room: room.to_owned(),
        };
        self.room_questions.ask(server, question).await
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
                failed,
            } => {
                let answer = match (list, failed) {
                    (Some(list), _) => UserAnswer::Listed(list),
                    (None, Some(failed)) => UserAnswer::RoomChanged {
                        connections,
                        failed,
                    },
                    (None, None) => UserAnswer::Connections(connections),
                };
                self.questions.answered(id, answer);
            }
            ControlText::RoomReply { id, members } => self.room_questions.answered(id, members),
            ControlText::Request {
                id,
                from,
                user,
                act,
            } => {
                let request = UserRequest::try_from(act)?;
                let answer = self.node.carry_out(&user, &request);
                self.reply(from.clone(), async move {
                    let reply = ControlText::reply(id, answer.await);
                    log_disconnection(&user, &request, &reply, &from);
                    reply
                });
            }
            ControlText::RoomRequest { id, from, room } => {
                let members = self.node.count_members(&room);
                let reply = ControlText::RoomReply { id, members };
                self.reply(from, future::ready(reply));
            }
        }
        Ok(())
    }

    /// Sends a reply to the server `to`, in a task: the caller reads everything that comes in.
    fn reply(&self, to: String, reply: impl Future<Output = ControlText> + Send + 'static) {
        let texts = self.questions.texts().clone();
        tokio::spawn(async move { texts.send(&to, &reply.await).await });
    }
}

impl ControlText {
    fn reply(id: u64, answer: UserAnswer) -> Self {
        let (connections, list, failed) = match answer {
            UserAnswer::Connections(connections) => (connections, None, None),
            UserAnswer::Listed(list) => (list.len(), Some(list), None),
            UserAnswer::RoomChanged {
                connections,
                failed,
            } => (connections, None, Some(failed)),
            UserAnswer::Nothing | UserAnswer::CannotBeAsked => (0, None, None),
        };
        Self::Reply {
            id,
            connections,
            list,
            failed,
        }
    }
}

/// What a node must understand to be asked for `request`, unless every node does.
pub(super) fn needed_ability(request: &UserRequest) -> Option<Ability> {
    match request {
        UserRequest::Join { .. } | UserRequest::Leave { .. } => Some(Ability::Memberships),
        UserRequest::Count
        | UserRequest::List
        | UserRequest::Disconnect { .. }
        | UserRequest::DisconnectOne { .. } => None,
    }
}

fn log_disconnection(user: &str, request: &UserRequest, reply: &ControlText, from: &str) {
    let (UserRequest::Disconnect { code, .. } | UserRequest::DisconnectOne { code, .. }) = request
    else {
        return;
    };
    let ControlText::Reply { connections, .. } = reply else {
        return;
    };
    info!(
        user,
        code = code.number(),
        connections,
        from,
        "a user is disconnected on request of another node"
    );
}

impl From<&UserRequest> for ControlAction {
    fn from(request: &UserRequest) -> Self {
        match request {
            UserRequest::Count => Self::Count,
            UserRequest::List => Self::List,
            UserRequest::Join { room } => Self::Join { room: room.clone() },
            UserRequest::Leave { room } => Self::Leave { room: room.clone() },
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
            ControlAction::Join { room } => Self::Join {
                room: room_name(room)?,
            },
            ControlAction::Leave { room } => Self::Leave {
                room: room_name(room)?,
            },
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

fn room_name(room: String) -> Result<String, String> {
    match RoomName::parse(room.as_str()) {
        Some(_) => Ok(room),
        None => Err("it names no room of 1 to 255 bytes".to_owned()),
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
    fn control_requests_have_a_unique_prefix_and_read_back_unchanged() {
        let disconnect = UserRequest::Disconnect {
            code: CloseCode::KICKED,
            reason: "\"bye\"".to_owned(),
        };
        let one = UserRequest::DisconnectOne {
            connection: "c-1".to_owned(),
            code: CloseCode::KICKED,
            reason: String::new(),
        };
        let room = "r\"1".to_owned();
        let join = UserRequest::Join { room: room.clone() };
        let leave = UserRequest::Leave { room };
        for request in [
            UserRequest::Count,
            UserRequest::List,
            join,
            leave,
            disconnect,
            one,
        ] {
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
        let count = ControlText::reply(7, UserAnswer::Connections(2));
        let question = ControlText::RoomRequest {
            id: 7,
            from: "a-1".to_owned(),
            room: "r".to_owned(),
        };
        let members = ControlText::RoomReply { id: 7, members: 2 };
        for said in [count, question, members] {
            let text = serde_json::to_string(&said).unwrap();
            assert!(text.starts_with(START), "{text}");
            assert_eq!(serde_json::from_str::<ControlText>(&text).unwrap(), said);
        }
    }

    #[test]
    fn a_room_with_an_invalid_name_cannot_be_joined() {
        for room in [String::new(), "x".repeat(256)] {
            let act = ControlAction::Join { room };
            assert!(UserRequest::try_from(act).is_err());
        }
    }

    #[test]
    fn a_disconnection_with_an_invalid_code_is_refused() {
        let act = |code| ControlAction::Disconnect {
            code,
            reason: String::new(),
        };
        assert!(UserRequest::try_from(act(4000)).is_ok());
        assert!(UserRequest::try_from(act(1000)).is_err());
        assert!(UserRequest::try_from(act(5000)).is_err());
    }
}
