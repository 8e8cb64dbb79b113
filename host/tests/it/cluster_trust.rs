//! Only holders of `admin.key` can decide for a cluster; write access to Redis is not enough.

use serde_json::{Value, json};
use signalbox::plugin::Sha256;

use crate::{
    admin::{WITH_KEY, admin},
    cluster_swap::{live, node_with, push, version, with_stamp},
    guests::stamped,
    harness::{Endpoint, Node, with_plugin_cache},
    logged::Logged,
    redis::{Server as Redis, until},
    redis_nodes::until_ready,
};

const BOARD: &str = "signalbox:plugins";
const PANICS: &str = "wss_task_panics_total ";

async fn decided(redis: &Redis) -> String {
    let text: Option<String> = redis.command(&["HGET", BOARD, "decided:stamp"]).await;
    text.unwrap_or_default()
}

async fn write(redis: &Redis, field: &str, text: &str) {
    redis.command::<u64>(&["HSET", BOARD, field, text]).await;
}

/// Waits until the node reports a doubt about the decision it read, and returns its state for the plugin.
async fn doubt(node: &Endpoint) -> Value {
    until("the node doubts the decision", async || {
        let answer = admin(node, "GET", "/admin/nodes").await;
        let standing = answer.body["this"]["decisions"]["stamp"].clone();
        standing["doubt"].is_string().then_some(standing)
    })
    .await
}

/// Waits until the node's metrics show this version as live; its admin API is not available.
async fn until_shows(node: &Endpoint, bytes: &[u8]) {
    let live = format!(
        "wss_plugin_live{{plugin=\"stamp\",version=\"{}\"}} ",
        version(bytes)
    );
    node.until_metric(&live, |live| live == 1.0).await;
}

/// A decision for `bytes` as an attacker could forge it after reading those of the nodes.
fn forged(bytes: &[u8], number: u64) -> String {
    json!({
        "number": number, "id": "evil-1", "by": "evil", "who": "nobody", "probation": true, "at": "2036-01-01T00:00:00.000Z",
        "component": {"sha256": Sha256::of(bytes).to_string(), "bytes": bytes.len()},
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_values_in_redis_change_nothing_and_stop_no_node() {
    let redis = Redis::start().await;
    let a = node_with("a", &redis, &stamped("1"), "").await;
    let b = node_with("b", &redis, &stamped("1"), "").await;
    assert_eq!(push(&a, &stamped("2"), "scope=cluster").await.status, 200);
    let good = decided(&redis).await;
    let (mac, body) = good.split_once(' ').expect("a signed text");
    // The component is in Redis; only the decision is forged.
    let evil = stamped("9");
    let key = format!("signalbox:component:{}:0", Sha256::of(&evil));
    let store = "redis.call('SET', KEYS[1], ARGV[1])";
    redis
        .command::<()>(&["EVAL", store, "1", &key, "a component"])
        .await;
    for text in [
        forged(&evil, 99),
        format!("{} {}", "0".repeat(64), forged(&evil, 99)),
        format!("{mac} {}", forged(&evil, 99)),
        format!("unsealed {}", forged(&evil, 99)),
        format!("{mac} {}", body.replace("\"number\":1", "\"number\":7")),
    ] {
        write(&redis, "decided:stamp", &text).await;
        for node in [&a, &b] {
            // A node either overwrites it at once, or doubts it.
            until("the forged decision is rejected", async || {
                let standing = admin(node, "GET", "/admin/nodes").await;
                let standing = &standing.body["this"]["decisions"]["stamp"];
                let is_doubted = standing["doubt"].is_string();
                (is_doubted || decided(&redis).await == good).then_some(())
            })
            .await;
            assert_eq!(live(node).await, version(&stamped("2")), "{text}");
            assert_eq!(node.get("/ready").await.0, 200);
        }
    }
    assert_eq!(doubt(&a).await["number"], 1);
    // Nor does it block holders of the key.
    let answer = push(&b, &stamped("3"), "scope=cluster").await;
    assert_eq!(
        (answer.status, &answer.body["number"]),
        (200, &json!(2)),
        "{}",
        answer.body
    );
    for node in [&a, &b] {
        assert_eq!(live(node).await, version(&stamped("3")));
        assert_eq!(node.metric(PANICS).await, Some(0.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_bytes_in_the_hash_cause_no_panic_and_the_next_push_succeeds() {
    let redis = Redis::start().await;
    let a = node_with("a", &redis, &stamped("1"), "").await;
    // In each field: random bytes, JSON of other shapes, invalid hashes, invalid numbers, and oversized values.
    let fill = "math.randomseed(tonumber(ARGV[1])) \
        local function bytes(n) local t = {} for i = 1, n do t[i] = string.char(math.random(0, 255)) end return table.concat(t) end \
        local sha = ({'', 'a', 'é', string.rep('é', 32), string.rep('Z', 64)})[math.random(1, 5)] \
        local json = '{\"number\":1,\"id\":\"x\",\"by\":\"x\",\"who\":\"x\",\"probation\":true,\"at\":\"x\",\"component\":{\"sha256\":\"' .. sha .. '\",\"bytes\":1e99}}' \
        local texts = {bytes(40), json, string.rep('0', 64) .. ' ' .. json, '[]', 'null', '-1', '1e308', bytes(20000)} \
        for _, field in ipairs({'decided', 'proposed', 'id', 'until', 'number'}) do \
            redis.call('HSET', KEYS[1], field .. ':stamp', texts[math.random(1, #texts)]) end";
    for seed in 0..8 {
        let seed = seed.to_string();
        redis
            .command::<()>(&["EVAL", fill, "1", BOARD, &seed])
            .await;
        redis.reset_commandstats().await;
        until("the node has read it", async || {
            let read = redis.commandstats().await.get("evalsha").copied();
            (read >= Some(2)).then_some(())
        })
        .await;
    }
    // The node has read the last of them.
    let asked = redis
        .command::<u64>(&["HSTRLEN", BOARD, "decided:stamp"])
        .await;
    assert!(asked <= 20_000);
    let answer = until("the next push goes through", async || {
        let answer = push(&a, &stamped("2"), "scope=cluster").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.body["number"], 1, "{}", answer.body);
    assert_eq!(live(&a).await, version(&stamped("2")));
    assert_eq!(a.metric(PANICS).await, Some(0.0));
    until_ready(&a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_no_decision_is_followed_and_the_node_is_well() {
    let redis = Redis::start().await;
    let a = node_with("a", &redis, &stamped("1"), "").await;
    assert_eq!(push(&a, &stamped("2"), "scope=cluster").await.status, 200);
    let config = with_stamp("b", &redis, "").replace(WITH_KEY, "");
    let b = Node::start_with(&[("stamp.wasm", &stamped("1"))], &config).await;
    until_ready(&b).await;
    until_shows(&b, &stamped("1")).await;
    // A node without the key cannot take part, and says so at once, so that nobody waits for it.
    let answer = push(&a, &stamped("3"), "scope=cluster").await;
    assert_eq!((answer.status, answer.error()), (409, "not_agreed"));
    let nodes = answer.body["error"]["nodes"].to_string() + &answer.body.to_string();
    assert!(nodes.contains("admin.key"), "{}", answer.body);
    let answer = push(&a, &stamped("3"), "scope=cluster&quorum=1").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    until_shows(&b, &stamped("1")).await;
    assert_eq!(live(&a).await, version(&stamped("3")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_decision_that_is_put_back_is_replaced_by_the_later_one() {
    let redis = Redis::start().await;
    let a = node_with("a", &redis, &stamped("1"), "").await;
    assert_eq!(push(&a, &stamped("2"), "scope=cluster").await.status, 200);
    let earlier = decided(&redis).await;
    assert_eq!(push(&a, &stamped("3"), "scope=cluster").await.status, 200);
    let later = decided(&redis).await;
    redis.command::<u64>(&["DEL", BOARD]).await;
    write(&redis, "decided:stamp", &earlier).await;
    until("the later decision is restored", async || {
        (decided(&redis).await == later).then_some(())
    })
    .await;
    assert_eq!(live(&a).await, version(&stamped("3")));
    // The decision of another plugin, or of another kind, is not accepted.
    write(&redis, "decided:other", &later).await;
    let b = node_with("b", &redis, &stamped("1"), "").await;
    assert_eq!(live(&b).await, version(&stamped("3")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_replaced_node_by_node_loses_no_decision() {
    const OTHER_KEY: &str = "[admin]\nkey = \"another-admin-key-of-operators\"\n";
    let redis = Redis::start().await;
    let a = node_with("a", &redis, &stamped("1"), "").await;
    let b = node_with("b", &redis, &stamped("1"), "").await;
    assert_eq!(push(&a, &stamped("2"), "scope=cluster").await.status, 200);
    let before = decided(&redis).await;
    let replace_key = |node: &Node, name: &str| {
        let config = with_stamp(name, &redis, "").replace(WITH_KEY, OTHER_KEY);
        node.replace("platform.toml", with_plugin_cache(&config).as_bytes());
    };
    replace_key(&a, "a");
    until("the decision is signed again", async || {
        (decided(&redis).await != before).then_some(())
    })
    .await;
    // A node with the old key keeps following its decision, and says why it doubts the new one.
    assert_eq!(doubt(&b).await["number"], 1);
    let standing = decided(&redis).await;
    assert_eq!(b.get("/ready").await.0, 200);
    assert_eq!(live(&b).await, version(&stamped("2")));
    replace_key(&b, "b");
    let config = with_stamp("c", &redis, "").replace(WITH_KEY, OTHER_KEY);
    let c = Node::start_with(&[("stamp.wasm", &stamped("1"))], &config).await;
    until_ready(&c).await;
    until_shows(&c, &stamped("2")).await;
    assert_eq!(decided(&redis).await, standing, "nobody writes in turns");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_writes_down_whom_it_followed() {
    let redis = Redis::start().await;
    let a = node_with("a", &redis, &stamped("1"), "").await;
    let files = [("stamp.wasm", &*stamped("1"))];
    let b = Logged::start(&files, &with_stamp("b", &redis, "")).await;
    until_ready(&b).await;
    assert_eq!(push(&a, &stamped("2"), "scope=cluster").await.status, 200);
    let line = b
        .until_line(|line| line["action"] == "follow the cluster")
        .await;
    assert_eq!(line["target"], "signalbox::audit");
    assert_eq!(
        (&line["object"], &line["outcome"], &line["number"]),
        (&json!("stamp"), &json!("live"), &json!(1))
    );
    assert_eq!(line["version"], version(&stamped("2")));
    assert!(line["by"].as_str().is_some_and(|by| by.starts_with("a-")));
    assert!(
        line["who"]
            .as_str()
            .is_some_and(|who| who.starts_with("key "))
    );
}
