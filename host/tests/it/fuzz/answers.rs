//! Answers of plugins: any actions, to any destination, with any payload.

use tokio::{runtime::Runtime, sync::Mutex};
use tokio_tungstenite::tungstenite::Message;

use super::{Target, envelope::JSON_WORDS, expect_well, fuzz, server, talker::Talker};
use crate::guests::{PATIENT, component};

const TARGET: Target = Target {
    name: "answers",
    words: JSON_WORDS,
};

#[test]
fn any_answer_of_a_plugin_leaves_the_server_healthy_and_frames_valid() {
    let runtime = Runtime::new().expect("a runtime");
    let config = format!(
        "[limits]\nmessages_per_second = 0\n[[plugins]]\nname = \"follower\"\npath = \"follower.wasm\"\n\
         events = [\"follower.*\"]\n{PATIENT}"
    );
    let follower = component("follower");
    let server = runtime.block_on(server(&[("follower.wasm", &follower)], &config));
    let ann = Mutex::new(Talker::new(&server, "ann"));
    fuzz(&TARGET, |input| {
        let answer = input.text();
        let frame = format!(r#"{{"type":"follower.do","payload":{answer},"id":"1"}}"#);
        runtime.block_on(async { ann.lock().await.exchange(Message::text(frame)).await });
        Ok(())
    });
    runtime.block_on(expect_well(server));
}
