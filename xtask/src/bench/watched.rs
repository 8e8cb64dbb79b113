//! The case that measures the cost of metrics: the same load with scraping and pushing, and with neither.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};

use super::Bench;
use super::load;
use super::outcome::{CaseResult, PER_CPU_SECOND, Target};
use super::subject::Subject;
use crate::http;

/// How often the server is scraped and pushes: sixty and fifteen times as often as usual.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs this load with metrics on and off in turn.
pub(super) fn run(bench: &Bench, options: &[String]) -> anyhow::Result<CaseResult> {
    let mut result = CaseResult::default();
    let sink = Sink::listen()?;
    let silent = "[metrics]\nprometheus = false\n".to_owned();
    let watched = format!(
        "[cloudwatch]\nenabled = true\nregion = \"eu-central-1\"\nendpoint = \"http://{}\"\ninterval = \"1s\"\n",
        sink.address
    );
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds() {
        let without = load::run(bench, &Subject::with_sections(bench, &silent)?, options)?;
        result.check("server without metrics", &without);

        let server = Subject::with_sections(bench, &watched)?;
        let work = || load::run(bench, &server, options);
        let (with, scrapes) = while_scraping(server.address, work)?;
        let pushes = sink.pushes.swap(0, Ordering::Relaxed);
        ensure!(
            scrapes > 0 && pushes > 0,
            "{scrapes} scrapes and {pushes} pushes: nothing was measured"
        );
        result.check("server with metrics", &with);
        eprintln!(
            "   round {round}: with {}, without {}; {scrapes} scrapes, {pushes} pushes",
            with.brief(),
            without.brief()
        );
        on.push(with);
        off.push(without);
    }
    let target = Target::ShareAtLeast(0.98);
    result
        .rows
        .push(PER_CPU_SECOND.row(&on, ("without metrics", &off), target)?);
    Ok(result)
}

/// Calls `work` while `/metrics` is scraped once in each interval. Also returns the number of scrapes.
fn while_scraping<T>(
    server: SocketAddr,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, u64)> {
    thread::scope(|scope| {
        let (stop, stopped) = channel::<()>();
        let scraping = scope.spawn(move || {
            let mut scrapes = 0;
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                scrape(server).context("a scrape failed")?;
                scrapes += 1;
            }
            anyhow::Ok(scrapes)
        });
        let done = work()?;
        drop(stop);
        let scrapes = scraping.join();
        let scrapes = scrapes.map_err(|_| anyhow!("the thread that scrapes broke down"))??;
        Ok((done, scrapes))
    })
}

/// Returns a server's metrics.
pub(crate) fn scrape(server: SocketAddr) -> anyhow::Result<String> {
    let accept = "Accept: application/openmetrics-text\r\n";
    let (status, answer) = http::call(server, ("GET", "/metrics"), accept, &[], None)?;
    ensure!(
        status == 200 && answer.contains("wss_messages_total"),
        "the answer is not what it should be: {status} {answer}"
    );
    Ok(answer)
}

/// Accepts whatever is pushed, as CloudWatch does.
struct Sink {
    address: SocketAddr,
    /// Number of requests.
    pushes: Arc<AtomicU64>,
}

impl Sink {
    fn listen() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let address = listener.local_addr()?;
        let pushes = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&pushes);
        // Both threads end with the process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counted = Arc::clone(&counted);
                thread::spawn(move || serve(stream, &counted));
            }
        });
        Ok(Self { address, pushes })
    }
}

/// Answers requests until the connection ends.
fn serve(mut stream: TcpStream, pushes: &AtomicU64) -> Option<()> {
    let mut requests = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body).ok()?;
        pushes.fetch_add(1, Ordering::Relaxed);
        // An empty map in CBOR.
        let answer = b"HTTP/1.1 200 OK\r\nsmithy-protocol: rpc-v2-cbor\r\nContent-Type: application/cbor\r\n\
                       Content-Length: 1\r\n\r\n\xa0";
        stream.write_all(answer).ok()?;
    }
}
