//! Checks the OpenAPI description of the admin API against real responses.

use crate::{
    admin::{Answer, KEY, WITH_KEY, admin, call},
    described::Description,
    guests::{PATIENT, stamped},
    harness::{Endpoint, Node, with_plugin_cache},
    redis::until,
};

async fn describe(node: &Endpoint) -> Description {
    let answer = admin(node, "GET", "/admin/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.head.contains("content-type: application/json"),
        "{}",
        answer.head
    );
    Description::new(answer.body)
}

fn check(described: &mut Description, method: &str, path: &str, answer: &Answer) {
    described.check(method, path, answer.status, &answer.body);
}

#[tokio::test]
async fn every_answer_is_as_the_description_says() {
    let config = format!(
        "[limits]\nplugin_file_bytes_max = \"8MiB\"\n{WITH_KEY}upload_timeout = \"10s\"\n\
         [[plugins]]\nname = \"stamp\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\n{PATIENT}"
    );
    let node = Node::start_with(&[("stamp.wasm", &stamped("1"))], &config).await;
    let mut described = describe(&node).await;
    let ann = node.connect("ann", Some("signalbox.v1")).await.unwrap();
    let mut bob = node.reachable("bob").await;
    bob.send(r#"{"type":"x","payload":{},"receiverId":"bob"}"#)
        .await;
    bob.json().await;
    let push =
        async |bytes: &[u8]| call(&node, "PUT", "/admin/plugins/stamp", Some(KEY), bytes).await;
    let name = "/admin/plugins/{name}";
    for bytes in [&stamped("2")[..], &stamped("2"), b"nonsense", b""] {
        check(&mut described, "PUT", name, &push(bytes).await);
    }
    let elsewhere = call(&node, "PUT", "/admin/plugins/other", Some(KEY), b"x").await;
    check(&mut described, "PUT", name, &elsewhere);
    for (query, path) in [
        ("rollback", "/admin/plugins/{name}/rollback"),
        ("rollback", "/admin/plugins/{name}/rollback"),
        ("rollback?to=0123456789ab", "/admin/plugins/{name}/rollback"),
        ("rollback?too=1", "/admin/plugins/{name}/rollback"),
        ("reload", "/admin/plugins/{name}/reload"),
        ("reload?force=true", "/admin/plugins/{name}/reload"),
        ("reload?force=maybe", "/admin/plugins/{name}/reload"),
    ] {
        let answer = admin(&node, "POST", &format!("/admin/plugins/stamp/{query}")).await;
        check(&mut described, "POST", path, &answer);
    }
    for mode in [
        "{ mode = \"shadow\" }",
        "{ mode = \"canary\", percent = 5 }",
    ] {
        let config = with_plugin_cache(&format!("{config}rollout = {mode}\n"));
        node.replace("platform.toml", config.as_bytes());
        until("versions are tried first", async || {
            let shown = admin(&node, "GET", "/admin/config").await.body;
            let rollout = &shown["config"]["plugins"][0]["rollout"];
            mode.contains(rollout["mode"].as_str()?).then_some(())
        })
        .await;
        let pushed = push(&stamped(&mode.len().to_string())).await;
        assert!(pushed.body["percent"].is_number() || pushed.body["outcome"] == "shadow");
        check(&mut described, "PUT", name, &pushed);
        bob.send(r#"{"type":"x","payload":{},"receiverId":"bob"}"#)
            .await;
        bob.json().await;
        check(
            &mut described,
            "GET",
            name,
            &admin(&node, "GET", "/admin/plugins/stamp").await,
        );
    }
    // By now there is a version in each lasting state.
    push(b"nonsense").await;
    for (method, path, called) in [
        ("GET", "/admin/plugins", "/admin/plugins"),
        ("GET", name, "/admin/plugins/stamp"),
        ("GET", name, "/admin/plugins/other"),
        ("GET", "/admin/connections", "/admin/connections"),
        (
            "GET",
            "/admin/connections",
            "/admin/connections?user=bob&limit=5",
        ),
        ("GET", "/admin/connections", "/admin/connections?user="),
        (
            "DELETE",
            "/admin/connections/{id}",
            "/admin/connections/none",
        ),
        ("GET", "/admin/nodes", "/admin/nodes"),
        ("GET", "/admin/config", "/admin/config"),
        ("GET", "/admin/openapi.json", "/admin/openapi.json"),
    ] {
        check(
            &mut described,
            method,
            path,
            &admin(&node, method, called).await,
        );
    }
    let listed = admin(&node, "GET", "/admin/connections?user=ann")
        .await
        .body;
    let id = listed["connections"][0]["id"]
        .as_str()
        .expect("a connection");
    let closed = admin(&node, "DELETE", &format!("/admin/connections/{id}")).await;
    check(&mut described, "DELETE", "/admin/connections/{id}", &closed);
    drop(ann);
    loop {
        let guess = call(&node, "GET", "/admin/nodes", Some("a-guess"), b"").await;
        check(&mut described, "GET", "/admin/nodes", &guess);
        if guess.status == 429 {
            break;
        }
    }
    assert_eq!(described.unseen(), Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_that_is_not_described_is_found() {
    let node = Node::start(WITH_KEY).await;
    let mut described = describe(&node).await;
    let mut nodes = admin(&node, "GET", "/admin/nodes").await.body;
    let mut validate =
        |body: &serde_json::Value| described.validate("GET", "/admin/nodes", 200, body);
    assert_eq!(validate(&nodes), Ok(()));
    nodes["surplus"] = 1.into();
    assert!(validate(&nodes).is_err());
    nodes = serde_json::json!({"nodes": [1], "this": nodes["this"]});
    assert!(validate(&nodes).is_err());
}
