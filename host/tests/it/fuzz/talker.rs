//! A client that sends any frame, and reconnects if the server closes the connection.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Endpoint};

/// The `id` of the frame after each input. No other frame has it.
const END: &str = "end of the exchange";

/// A frame from the server. A payload may hold numbers that no Rust type can represent, as JSON allows.
#[derive(Deserialize)]
pub(super) struct Heard<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) event_type: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl<'a> Heard<'a> {
    /// # Panics
    /// If it is not a frame of the protocol.
    pub(super) fn read(text: &'a str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

pub(super) struct Talker {
    endpoint: Endpoint,
    user: &'static str,
    client: Option<Client>,
}

impl Talker {
    pub(super) fn new(endpoint: &Endpoint, user: &'static str) -> Self {
        Self {
            endpoint: *endpoint,
            user,
            client: None,
        }
    }

    /// Sends a frame and returns the text frames until it is handled or the connection is closed.
    pub(super) async fn exchange(&mut self, frame: Message) -> Vec<String> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.endpoint.client(self.user).await,
        };
        client.send_raw(frame).await;
        client
            .send(&format!(r#"{{"type":"heartbeat","id":"{END}"}}"#))
            .await;
        let mut texts = Vec::new();
        while let Some(frame) = client.frame().await {
            match frame {
                Ok(Message::Text(text)) => {
                    let heard = Heard::read(&text);
                    if heard.event_type == "ack" && heard.payload.get().contains(END) {
                        self.client = Some(client);
                        break;
                    }
                    texts.push(text.to_string());
                }
                Ok(Message::Close(_)) | Err(_) => break,
                Ok(_) => {}
            }
        }
        texts
    }
}
