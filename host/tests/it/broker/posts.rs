//! Frames that are posted to a connection on another node.

use signalbox::broker::{PostOutcome, PostedFrame, SendKey};

use super::nodes::{Cluster, KEY, Node};

async fn post(node: &Node, connection: &str, key: SendKey, text: &str) -> PostOutcome {
    let post = PostedFrame {
        connection,
        key,
        text,
    };
    node.broker.post_elsewhere(post).await
}

pub(super) async fn a_frame_is_given_to_the_connection_that_it_is_posted_to_on_any_node(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    // The ID of a connection begins with the name of its node.
    nodes[1].connect("n1-7").await;
    nodes[2].connect("n2-7").await;
    for (node, connection, text) in [
        (0, "n1-7", "one"),
        (2, "n1-7", "two\nlines \u{1f600}"),
        (0, "n2-7", ""),
    ] {
        let outcome = post(&nodes[node], connection, KEY, text).await;
        assert_eq!(outcome, PostOutcome::Taken, "{connection}");
    }
    let posts = |node: usize| nodes[node].recorder.posts.lock().unwrap().clone();
    assert_eq!(posts(1), ["one", "two\nlines \u{1f600}"]);
    assert_eq!(posts(2), [""]);
    let guess = SendKey::new([8; 16]);
    assert_eq!(
        post(&nodes[0], "n1-7", guess, "x").await,
        PostOutcome::WrongKey
    );
    for nobody in ["n1-8", "n9-7", "n0-7", "n1", "", "\"-1", "n1-\n"] {
        assert_eq!(
            post(&nodes[0], nobody, KEY, "x").await,
            PostOutcome::Unknown,
            "{nobody:?}"
        );
    }
}
