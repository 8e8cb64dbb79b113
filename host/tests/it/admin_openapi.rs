//! Checks the OpenAPI description of the admin API against real responses.

use std::collections::BTreeSet;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

use crate::{
    admin::{Answer, KEY, WITH_KEY, admin, call},
    guests::{PATIENT, stamped},
    harness::{Endpoint, Node, with_plugin_cache},
    redis::until,
};

const PLACE: &str = "http://signalbox.example/openapi.json";

/// The description, and the responses that were checked against it.
struct Description {
    document: Value,
    compiler: Compiler,
    schemas: Schemas,
    seen: BTreeSet<(String, String, u16)>,
}

impl Description {
    async fn fetch(node: &Endpoint) -> Self {
        let answer = admin(node, "GET", "/admin/openapi.json").await;
        assert_eq!(answer.status, 200);
        assert!(
            answer.head.contains("content-type: application/json"),
            "{}",
            answer.head
        );
        let document = answer.body;
        let mut compiler = Compiler::new();
        compiler
            .add_resource(PLACE, document.clone())
            .expect("the document is taken");
        Self {
            document,
            compiler,
            schemas: Schemas::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Checks the response `answer` to `method` on the described `path` against the description.
    fn check(&mut self, method: &str, path: &str, answer: &Answer) {
        let schema = self.schema(method, path, answer.status);
        if let Err(error) = self.schemas.validate(&answer.body, schema) {
            panic!(
                "{method} {path} {}: {error:#}\n{}",
                answer.status, answer.body
            );
        }
        let seen = (method.to_owned(), path.to_owned(), answer.status);
        self.seen.insert(seen);
    }

    fn schema(&mut self, method: &str, path: &str, status: u16) -> SchemaIndex {
        let escaped = path.replace('/', "~1");
        let mut pointer = format!(
            "/paths/{escaped}/{}/responses/{status}",
            method.to_lowercase()
        );
        let response = self.document.pointer(&pointer);
        let response =
            response.unwrap_or_else(|| panic!("{method} {path} {status} is not described"));
        if let Some(reference) = response["$ref"].as_str() {
            pointer = reference.trim_start_matches('#').to_owned();
        }
        let location = format!("{PLACE}#{pointer}/content/application~1json/schema")
            .replace('{', "%7B")
            .replace('}', "%7D");
        self.compiler
            .compile(&location, &mut self.schemas)
            .unwrap_or_else(|error| panic!("{location}: {error:#}"))
    }

    /// Every call without a successful response so far.
    fn unseen(&self) -> Vec<String> {
        let paths = self.document["paths"].as_object().expect("paths");
        let calls = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("methods").keys();
            let methods = methods.filter(|name| *name != "parameters");
            methods.map(move |method| (method.to_uppercase(), path.clone(), 200))
        });
        calls
            .filter(|call| !self.seen.contains(call))
            .map(|(method, path, _)| format!("{method} {path}"))
            .collect()
    }
}

#[tokio::test]
async fn every_answer_is_as_the_description_says() {
    let config = format!(
        "[limits]\nplugin_file_bytes_max = \"8MiB\"\n{WITH_KEY}upload_timeout = \"10s\"\n\
         [[plugins]]\nname = \"stamp\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\n{PATIENT}"
    );
    let node = Node::start_with(&[("stamp.wasm", &stamped("1"))], &config).await;
    let mut described = Description::fetch(&node).await;
    let ann = node.connect("ann", Some("signalbox.v1")).await.unwrap();
    let mut bob = node.reachable("bob").await;
    bob.send(r#"{"type":"x","payload":{},"receiverId":"bob"}"#)
        .await;
    bob.json().await;
    let push =
        async |bytes: &[u8]| call(&node, "PUT", "/admin/plugins/stamp", Some(KEY), bytes).await;
    let name = "/admin/plugins/{name}";
    for bytes in [&stamped("2")[..], &stamped("2"), b"nonsense", b""] {
        described.check("PUT", name, &push(bytes).await);
    }
    let elsewhere = call(&node, "PUT", "/admin/plugins/other", Some(KEY), b"x").await;
    described.check("PUT", name, &elsewhere);
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
        described.check("POST", path, &answer);
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
        described.check("PUT", name, &pushed);
        bob.send(r#"{"type":"x","payload":{},"receiverId":"bob"}"#)
            .await;
        bob.json().await;
        described.check(
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
        described.check(method, path, &admin(&node, method, called).await);
    }
    let listed = admin(&node, "GET", "/admin/connections?user=ann")
        .await
        .body;
    let id = listed["connections"][0]["id"]
        .as_str()
        .expect("a connection");
    let closed = admin(&node, "DELETE", &format!("/admin/connections/{id}")).await;
    described.check("DELETE", "/admin/connections/{id}", &closed);
    drop(ann);
    loop {
        let guess = call(&node, "GET", "/admin/nodes", Some("a-guess"), b"").await;
        described.check("GET", "/admin/nodes", &guess);
        if guess.status == 429 {
            break;
        }
    }
    assert_eq!(described.unseen(), Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_that_is_not_described_is_found() {
    let node = Node::start(WITH_KEY).await;
    let mut described = Description::fetch(&node).await;
    let schema = described.schema("GET", "/admin/nodes", 200);
    let mut nodes = admin(&node, "GET", "/admin/nodes").await.body;
    assert!(described.schemas.validate(&nodes, schema).is_ok());
    nodes["surplus"] = 1.into();
    assert!(described.schemas.validate(&nodes, schema).is_err());
    nodes = serde_json::json!({"nodes": [1], "this": nodes["this"]});
    assert!(described.schemas.validate(&nodes, schema).is_err());
}
