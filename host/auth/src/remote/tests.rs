//! Tests keys from a server in the test's own process.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
/// Longer than anything takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// An identity provider: answers every request with the answer that it was given last.
struct Provider {
    url: String,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    async fn start(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let answer = Arc::new(Mutex::new(answer.to_owned()));
        let asked = Arc::<AtomicUsize>::default();
        let task = tokio::spawn(serve(listener, answer.clone(), asked.clone()));
        Self {
            url,
            answer,
            asked,
            task,
        }
    }

    fn answers(&self, answer: &str) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer.to_owned();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn keys(
        &self,
        refresh_interval: Duration,
        refetch_pause: Duration,
    ) -> (RemoteKeys, Arc<Metrics>) {
        let metrics = Arc::<Metrics>::default();
        let keys = RemoteKeys::start_pacing(
            &self.url,
            refresh_interval,
            refetch_pause,
            metrics.clone(),
            None,
        );
        (keys, metrics)
    }
}

async fn serve(listener: TcpListener, answer: Arc<Mutex<String>>, asked: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (answer, asked) = (answer.clone(), asked.clone());
        tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            asked.fetch_add(1, Ordering::SeqCst);
            let answer = answer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if answer == SILENCE {
                std::future::pending::<()>().await;
            }
            // A client that has received enough may be gone.
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

const SILENCE: &str = "silence";

fn with_status(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    )
}

/// The RSA (0) or EC (1) key of the set in `testdata`, with this `kid`.
fn set(index: usize, kid: &str) -> String {
    let all: Value = serde_json::from_str(include_str!("../testdata/jwks.json")).expect("JSON");
    let mut key = all["keys"][index].clone();
    key["kid"] = json!(kid);
    with_status("200 OK", "", &json!({ "keys": [key] }).to_string())
}

async fn failures(metrics: &Metrics, count: u64) {
    let failed = async {
        while metrics.auth_key_reloads_failed.get() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, failed).await.expect("a fetch that fails");
}

#[tokio::test]
async fn a_first_token_waits_for_the_keys_that_are_being_fetched() {
    let provider = Provider::start(&set(0, "a")).await;
    let (keys, metrics) = provider.keys(HOUR, HOUR);
    assert!(keys.set_for(Some("a")).await.is_ok());
    assert!(keys.set_for(None).await.is_ok());
    assert_eq!(provider.asked(), 1);
    assert_eq!(metrics.auth_key_reloads_failed.get(), 0);
}

#[tokio::test]
async fn an_unknown_kid_leads_to_one_fetch_for_all_that_wait_and_to_no_other_before_its_time() {
    let provider = Provider::start(&set(0, "a")).await;
    let (keys, _) = provider.keys(HOUR, HOUR);
    assert!(keys.set_for(Some("a")).await.is_ok());
    provider.answers(&set(1, "b"));
    let waiting = (0..50).map(|_| keys.set_for(Some("b")));
    for waited in futures_util::future::join_all(waiting).await {
        assert!(waited.is_ok(), "{waited:?}");
    }
    assert_eq!(provider.asked(), 2);
    // A removed key is unknown, and unknown names trigger no fetch.
    for kid in ["a", "c", "d"] {
        let refused = keys.set_for(Some(kid)).await;
        assert_eq!(refused.err(), Some(KeyNotFound::Unknown.into()), "{kid}");
    }
    assert_eq!(provider.asked(), 2);
}

#[tokio::test]
async fn a_kid_that_came_too_early_leads_to_a_fetch_in_its_time() {
    let provider = Provider::start(&set(0, "a")).await;
    let (keys, _) = provider.keys(HOUR, Duration::from_millis(50));
    assert!(keys.set_for(Some("a")).await.is_ok());
    // The first may fetch at once, the second must wait.
    assert!(keys.set_for(Some("b")).await.is_err());
    provider.answers(&set(1, "b"));
    let known = async {
        while keys.set_for(Some("b")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, known).await.expect("the key is fetched");
}

#[tokio::test]
async fn keys_are_fetched_again_from_time_to_time_without_anybody_asking() {
    let provider = Provider::start(&set(0, "a")).await;
    let (keys, _) = provider.keys(Duration::from_millis(10), HOUR);
    assert!(keys.set_for(Some("a")).await.is_ok());
    provider.answers(&set(1, "b"));
    let renewed = async {
        while keys.look_up(Some("b")).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, renewed).await.expect("the new key comes");
}

#[tokio::test]
async fn the_last_good_keys_stay_after_any_later_answer() {
    let provider = Provider::start(&set(0, "a")).await;
    let (keys, metrics) = provider.keys(Duration::from_millis(1), HOUR);
    assert!(keys.set_for(Some("a")).await.is_ok());
    let secret = r#"{"keys":[{"kty":"oct","kid":"b","k":"c2VjcmV0"}]}"#;
    let large = format!("{{\"keys\":[],\"a\":\"{}\"}}", "x".repeat(KEYS_BYTES_MAX));
    for answer in [
        with_status("500 Internal Server Error", "", "{}"),
        with_status("404 Not Found", "", "{}"),
        with_status("204 No Content", "", ""),
        with_status("302 Found", "Location: http://127.0.0.1:1/keys\r\n", ""),
        with_status("200 OK", "", "<html>"),
        with_status("200 OK", "", "{\"keys\":[]}"),
        with_status("200 OK", "", secret),
        with_status("200 OK", "", &large),
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned(),
        "nonsense".to_owned(),
        String::new(),
    ] {
        provider.answers(&answer);
        let before = metrics.auth_key_reloads_failed.get();
        failures(&metrics, before + 1).await;
        assert!(keys.look_up(Some("a")).is_ok(), "{answer:.60}");
        // A token is not called wrong because of a key that may have been added meanwhile.
        let unknown = keys.set_for(Some("b")).await;
        assert_eq!(
            unknown.err(),
            Some(AuthError::KeysUnavailable),
            "{answer:.60}"
        );
        provider.answers(&set(0, "a"));
        let well = async {
            while keys.shared.fetches.borrow().has_failed {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, well).await.expect("it is well again");
    }
}

#[tokio::test]
async fn while_there_are_no_keys_yet_tokens_are_refused_and_fetching_is_tried_again() {
    let provider = Provider::start(&with_status("503 Service Unavailable", "", "")).await;
    let (keys, metrics) = provider.keys(HOUR, HOUR);
    let refused = keys.set_for(Some("a")).await;
    assert_eq!(refused.err(), Some(AuthError::KeysUnavailable));
    failures(&metrics, 2).await;
    provider.answers(&set(0, "a"));
    let come = async {
        while keys.set_for(Some("a")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, come).await.expect("the keys come");
    // None of the early requests has used up the turn of an unknown `kid`.
    provider.answers(&set(1, "b"));
    assert!(keys.set_for(Some("b")).await.is_ok());
}

#[tokio::test]
async fn keys_of_another_address_serve_until_those_of_the_new_one_come() {
    let provider = Provider::start(&with_status("503 Service Unavailable", "", "")).await;
    let old = Provider::start(&set(0, "a")).await;
    let (old_keys, metrics) = old.keys(HOUR, HOUR);
    let meanwhile = old_keys.set_for(Some("a")).await.expect("keys");
    drop(old_keys);
    let keys = RemoteKeys::start(&provider.url, HOUR, metrics, Some(meanwhile));
    assert!(keys.set_for(Some("a")).await.is_ok());
}

#[tokio::test]
async fn a_server_that_says_nothing_holds_an_upgrade_for_a_bounded_time() {
    let provider = Provider::start(SILENCE).await;
    let (keys, _) = provider.keys(HOUR, HOUR);
    let refused = timeout(PATIENCE, keys.set_for(Some("a"))).await;
    let refused = refused.expect("it does not wait for ever");
    assert_eq!(refused.err(), Some(AuthError::KeysUnavailable));
}
