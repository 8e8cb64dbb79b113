//! Messages that others publish to a node through Redis.

use proptest::{prelude::*, test_runner::TestCaseError};
use signalbox::protocol::event_type;
use tokio::{runtime::Runtime, sync::Mutex};
use tokio_tungstenite::tungstenite::Message;

use super::{Target, envelope::JSON_WORDS, expect_well, fuzz, input::Input, server, talker::Heard};
use crate::{
    harness::Client,
    redis::{self, until},
    redis_nodes::patience,
};

const TARGET: Target = Target {
    name: "inbox",
    words: JSON_WORDS,
};

/// The type of the message that follows each input.
const END: &str = "end_of_the_exchange";

#[test]
fn clients_get_only_valid_messages_of_anything_published_to_a_node() {
    let runtime = Runtime::new().expect("a runtime");
    let redis = runtime.block_on(redis::Server::start());
    let url = redis.url();
    let patience = patience("");
    let config = format!("[broker]\nkind = \"redis\"\n[redis]\nurl = \"{url}\"\n{patience}");
    let server = runtime.block_on(server(&[], &config));
    let ann = Mutex::new(runtime.block_on(server.client("ann")));
    let channel = runtime.block_on(channel_of(&redis, "ann"));
    fuzz(&TARGET, |input| {
        runtime.block_on(async {
            let mut ann = ann.lock().await;
            for channel in [&channel, "broadcast"] {
                publish(&redis, channel, input).await;
                let end = format!(r#"{{"type":"{END}","payload":1,"receiverID":"ann"}}"#);
                publish(&redis, &channel_of(&redis, "ann").await, &Input(end.into())).await;
                until_end(&mut ann).await?;
            }
            Ok(())
        })
    });
    drop(ann);
    runtime.block_on(expect_well(server));
}

/// The channel of the server that holds `user`, looked up as a worker does.
async fn channel_of(redis: &redis::Server, user: &str) -> String {
    let route = format!("user_servers:{user}");
    until("the user has a route", async || {
        let servers: Vec<String> = redis.command(&["SMEMBERS", &route]).await;
        servers.first().map(|server| format!("server:{server}"))
    })
    .await
}

async fn publish(redis: &redis::Server, channel: &str, input: &Input) {
    let mut connection = redis.connect().await.expect("Redis accepts the connection");
    let mut command = ::redis::cmd("PUBLISH");
    let publish = command.arg(channel).arg(input.bytes());
    let heard: u64 = publish
        .query_async(&mut connection)
        .await
        .expect("it is published");
    assert!(heard > 0, "the node listens at {channel}");
}

/// Reads frames up to the last one, and checks that each is a message.
async fn until_end(ann: &mut Client) -> Result<(), TestCaseError> {
    loop {
        let frame = ann.frame().await;
        let Some(Ok(frame)) = frame else {
            return Err(TestCaseError::fail(format!("it is closed: {frame:?}")));
        };
        let Message::Text(text) = frame else { continue };
        let heard = Heard::read(&text);
        let name = &*heard.event_type;
        if name == END {
            return Ok(());
        }
        prop_assert!(event_type::is_valid(name), "{}", text);
        prop_assert!(!event_type::is_built_in(name), "{}", text);
    }
}
