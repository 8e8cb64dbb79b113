//! The commands that change the plugins of a running server, run as from a shell.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    admin::{KEY, WITH_KEY},
    guests::{PATIENT, stamped, wat},
    harness::{Endpoint, Node, folder},
    process::{Finished, run},
    redis::tls,
};

async fn node() -> Node {
    let config = format!(
        "{WITH_KEY}[[plugins]]\nname = \"stamp\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\n{PATIENT}"
    );
    Node::start_with(&[("stamp.wasm", &stamped("1"))], &config).await
}

/// Runs `signalbox plugin` in `dir` with the key, against `node`.
async fn plugin(node: &Endpoint, dir: &Path, arguments: &[&str]) -> Finished {
    let url = format!("http://{}", node.address);
    let environment = [
        ("SIGNALBOX_ADMIN_KEY", KEY),
        ("SIGNALBOX_URL", url.as_str()),
    ];
    run(dir, &[&["plugin"], arguments].concat(), &environment).await
}

fn succeeded(finished: &Finished) {
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (Some(0), ""),
        "{}",
        finished.stdout
    );
}

#[tokio::test]
async fn a_plugin_is_pushed_listed_rolled_back_and_reloaded() {
    let node = node().await;
    let dir = folder(&[("stamp.wasm", &stamped("2")), ("other.wasm", &stamped("3"))]);
    let pushed = plugin(&node, dir.path(), &["push", "stamp.wasm"]).await;
    succeeded(&pushed);
    assert!(
        pushed.stdout.starts_with("stamp: version "),
        "{}",
        pushed.stdout
    );
    assert!(
        pushed.stdout.contains(" is live in the place of "),
        "{}",
        pushed.stdout
    );
    let again = plugin(&node, dir.path(), &["push", "stamp.wasm"]).await;
    succeeded(&again);
    assert_eq!(
        again.stdout,
        "stamp: unchanged: this version is live already\n"
    );
    succeeded(
        &plugin(
            &node,
            dir.path(),
            &["push", "other.wasm", "--name", "stamp"],
        )
        .await,
    );

    let listed = plugin(&node, dir.path(), &["list"]).await;
    succeeded(&listed);
    let mut lines = listed.stdout.lines();
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("PLUGIN  VERSION"))
    );
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("stamp ") && line.contains(" probation "))
    );
    assert!(
        listed
            .stdout
            .contains("its file is ignored until it changes"),
        "{}",
        listed.stdout
    );
    let json = plugin(&node, dir.path(), &["list", "--json"]).await;
    let list: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let versions = list["plugins"][0]["versions"].as_array().expect("versions");
    let sha = |index: usize| {
        versions[index]["version"]
            .as_str()
            .expect("a version")
            .to_owned()
    };
    assert_eq!(versions.len(), 3);

    let back = plugin(&node, dir.path(), &["rollback", "stamp"]).await;
    succeeded(&back);
    assert!(
        back.stdout.contains(&format!("version {} is live", sha(1))),
        "{}",
        back.stdout
    );
    let first = plugin(
        &node,
        dir.path(),
        &["rollback", "stamp", "--to", &sha(2), "--json"],
    )
    .await;
    succeeded(&first);
    let changed: Value = serde_json::from_str(&first.stdout).expect("JSON");
    assert_eq!(changed["version"], versions[2]["version"]);
    let held = plugin(&node, dir.path(), &["reload", "stamp"]).await;
    succeeded(&held);
    assert!(held.stdout.contains("reload with force"), "{}", held.stdout);
    succeeded(&plugin(&node, dir.path(), &["reload", "stamp", "--force"]).await);
}

#[tokio::test]
async fn errors_about_a_bad_plugin_are_readable_for_its_author() {
    let node = node().await;
    let files: [(&str, &[u8]); 4] = [
        ("module.wasm", &wat("(module)")),
        ("panics.wasm", &stamped("init-panic")),
        ("fails.wasm", &stamped("test-fails")),
        ("half.wasm", &stamped("1")[..1000]),
    ];
    let dir = folder(&files);
    for (file, words) in [
        (
            "module.wasm",
            "the file is a core module; build for wasm32-wasip2",
        ),
        ("panics.wasm", "this version panics in init"),
        (
            "fails.wasm",
            "self-test failed: this version does not pass its self-test",
        ),
        ("half.wasm", "the file is damaged or half written"),
    ] {
        let refused = plugin(&node, dir.path(), &["push", file, "--name", "stamp"]).await;
        assert_eq!(
            (refused.code, refused.stdout.as_str()),
            (Some(2), ""),
            "{file}"
        );
        let lines: Vec<&str> = refused.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{}", refused.stderr);
        assert!(lines[0].starts_with("stamp: refused ("), "{}", lines[0]);
        assert!(lines[0].contains(words), "{}", lines[0]);
        assert!(lines[1].ends_with(" stays live"), "{}", lines[1]);
        let json = plugin(
            &node,
            dir.path(),
            &["push", file, "--name", "stamp", "--json"],
        )
        .await;
        assert_eq!((json.code, json.stderr.as_str()), (Some(2), ""), "{file}");
        let answer: Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert_eq!(answer["report"]["verdict"], "refused");
    }
}

#[tokio::test]
async fn the_reason_for_a_failed_command_is_reported() {
    let node = node().await;
    let url = format!("http://{}", node.address);
    let dir = folder(&[("stamp.wasm", &stamped("2"))]);
    let tried = async |arguments: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["plugin"], arguments].concat();
        let finished = run(dir.path(), &arguments, environment).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""));
        finished.stderr
    };
    let key = ("SIGNALBOX_ADMIN_KEY", KEY);
    let url = url.as_str();
    for (arguments, environment, words) in [
        (&["list", "--url", url][..], &[][..], "SIGNALBOX_ADMIN_KEY"),
        (
            &["list", "--url", url],
            &[("SIGNALBOX_ADMIN_KEY", "wrong")],
            "the key is wrong; it is admin.key",
        ),
        (
            &["list", "--url", "http://127.0.0.1:1"],
            &[key],
            "is the server running",
        ),
        (
            &["list", "--url", "127.0.0.1:8080"],
            &[key],
            "not the URL of a server",
        ),
        (
            &["list", "--url", "ftp://a"],
            &[key],
            "not the URL of a server",
        ),
        (
            &["list", "--url", url, "--key-file", "nowhere"],
            &[],
            "nowhere",
        ),
        (
            &["push", "nowhere.wasm", "--url", url],
            &[key],
            "nowhere.wasm",
        ),
        (
            &["push", "chat.wasm", "--url", url],
            &[key],
            "no plugin is called \"chat\"",
        ),
        (
            &["rollback", "stamp", "--url", url],
            &[key],
            "no earlier version",
        ),
        (
            &["rollback", "stamp", "--to", "0123", "--url", url],
            &[key],
            "at least 12 digits",
        ),
        (
            &["reload", "a/../b?", "--url", url],
            &[key],
            "no plugin is called",
        ),
    ] {
        let output = tried(arguments, environment).await;
        assert!(output.contains(words), "{arguments:?}: {output}");
    }
    // Another service listens there.
    let elsewhere = format!("{url}/elsewhere");
    let output = tried(&["list", "--url", &elsewhere], &[key]).await;
    assert!(output.contains("not as Signalbox does"), "{output}");
}

/// A proxy in front of a server that terminates TLS with the certificate in `dir`.
pub(crate) async fn tls_in_front_of(node: &Endpoint, dir: &Path) -> u16 {
    tls::write_certificates(dir);
    let certificate = CertificateDer::from_pem_file(dir.join(tls::CERTIFICATE)).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join(tls::KEY)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, address) = (listener.local_addr().unwrap().port(), node.address);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (Ok(mut outer), Ok(mut inner)) = (
                    acceptor.accept(stream).await,
                    TcpStream::connect(address).await,
                ) else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn an_https_url_uses_tls_and_the_certificate_is_checked() {
    let node = node().await;
    let dir = folder(&[
        ("stamp.wasm", &stamped("2")),
        ("admin.key", b"an-admin-key-of-tests\n"),
    ]);
    let port = tls_in_front_of(&node, dir.path()).await;
    let url = format!("https://127.0.0.1:{port}");
    let trusted = [
        "--url",
        &url,
        "--key-file",
        "admin.key",
        "--ca-file",
        tls::CA,
    ];
    let push = [&["plugin", "push", "stamp.wasm"][..], &trusted].concat();
    succeeded(&run(dir.path(), &push, &[]).await);
    let unknown = ["plugin", "list", "--url", &url, "--key-file", "admin.key"];
    let refused = run(dir.path(), &unknown, &[]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("TLS"), "{}", refused.stderr);
    assert!(!refused.stderr.contains(KEY), "{}", refused.stderr);
}
