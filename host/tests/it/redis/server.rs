//! A single server.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use redis::{
    Client, Cmd, FromRedisValue, IntoConnectionInfo, RedisError, RedisResult, TlsCertificates,
    aio::MultiplexedConnection,
};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{
    connections::connect,
    ports,
    process::{Ended, Process},
    tls,
    wait::until,
};

/// Options of a server that differ from the defaults.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// The only user that is allowed in; None allows everyone.
    pub(crate) user: Option<User>,
    /// Whether it accepts only TLS, with a certificate from a test authority.
    pub(crate) tls: bool,
    /// Further lines of its configuration.
    pub(crate) settings: Vec<String>,
    /// Whether it is a sentinel instead of a server.
    pub(crate) is_sentinel: bool,
}

/// A user that is allowed in. With the name `default`, clients may omit the name.
#[derive(Clone, Copy)]
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) password: &'static str,
}

/// A server without persistence, which ends when this value is dropped.
pub(crate) struct Server {
    options: Options,
    port: u16,
    client: Client,
    /// None while it is down. Declared before the folder so that it is dropped first.
    process: Option<Process>,
    is_stopped: bool,
    control: Mutex<Control>,
    dir: TempDir,
}

/// The commands that the test harness itself sends to the server.
#[derive(Default)]
struct Control {
    connection: Option<MultiplexedConnection>,
    /// The number of calls per command since the statistics were reset.
    calls_made: BTreeMap<String, u64>,
}

impl Server {
    /// A server with the defaults.
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// A server that answers.
    pub(crate) async fn start_with(options: Options) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        if options.tls {
            tls::write_certificates(dir.path());
        }
        // Each round tries another port, and ends at once if another process took the port first.
        loop {
            let port = ports::candidate();
            write_config(&options, port, dir.path());
            let client = client(&options, port, dir.path()).expect("a valid address");
            let mut control = Control::default();
            match control.start(&options, &client, dir.path()).await {
                Ok(process) => {
                    return Self {
                        options,
                        port,
                        client,
                        process: Some(process),
                        is_stopped: false,
                        control: Mutex::new(control),
                        dir,
                    };
                }
                Err(Ended::PortTaken) => {}
                Err(Ended::Otherwise(why)) => panic!("redis-server does not start: {why}"),
            }
        }
    }

    /// Its address, with the login.
    pub(crate) fn url(&self) -> String {
        url(&self.options, self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate authority of its certificate, if it uses TLS.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join(tls::CA)
    }

    /// Its output since it was last started.
    pub(crate) fn output(&self) -> String {
        self.process
            .as_ref()
            .map(Process::output)
            .unwrap_or_default()
    }

    /// Whether it is running and not stopped.
    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some() && !self.is_stopped
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        connect(&self.client).await
    }

    /// Its answer to one command.
    pub(crate) async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words)
            .await
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Its answer to one command, which may be an error.
    pub(crate) async fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut control = self.control.lock().await;
        control.ask(&self.client, &command(words)).await
    }

    /// The number of calls of each command since the server was started or [`Self::reset_commandstats`] was called.
    /// Names are those of `INFO commandstats`, such as `publish` and `config|get`, and only commands that were called
    /// are listed. The calls of the test harness are not included; those that clients make when they connect (`hello`,
    /// `client|setinfo`) are.
    pub(crate) async fn commandstats(&self) -> BTreeMap<String, u64> {
        let mut control = self.control.lock().await;
        control
            .commandstats(&self.client)
            .await
            .expect("a server returns its statistics")
    }

    /// Resets the counts.
    pub(crate) async fn reset_commandstats(&self) {
        let mut control = self.control.lock().await;
        control
            .reset_commandstats(&self.client)
            .await
            .expect("a server resets its statistics");
    }

    /// Kills it, as in a crash. All its data is lost.
    pub(crate) fn kill9(&mut self) {
        self.process = None;
        self.is_stopped = false;
        self.control = Mutex::default();
    }

    /// Starts it again at the same address, without data. Kills it first if it is running.
    pub(crate) async fn restart_empty(&mut self) {
        self.kill9();
        let (process, control) = until("the old port is free again", async || {
            let mut control = Control::default();
            match control
                .start(&self.options, &self.client, self.dir.path())
                .await
            {
                Ok(process) => Some((process, control)),
                Err(Ended::PortTaken) => None,
                Err(Ended::Otherwise(why)) => panic!("redis-server does not start again: {why}"),
            }
        })
        .await;
        self.process = Some(process);
        self.control = Mutex::new(control);
    }

    /// Stops it with SIGSTOP: it accepts connections and answers nothing.
    pub(crate) fn stop(&mut self) {
        self.process.as_ref().expect("it runs").stop();
        self.is_stopped = true;
    }

    /// Continues it.
    pub(crate) fn cont(&mut self) {
        self.process.as_ref().expect("it runs").cont();
        self.is_stopped = false;
    }
}

impl Control {
    /// Starts a process and waits until it answers, and not another process that took its port.
    async fn start(
        &mut self,
        options: &Options,
        client: &Client,
        dir: &Path,
    ) -> Result<Process, Ended> {
        let arguments: &[&str] = if options.is_sentinel {
            &["--sentinel"]
        } else {
            &[]
        };
        let mut process = Process::spawn(dir, &config_file(dir), arguments);
        until("redis-server answers", async || {
            if let Some(ended) = process.ended() {
                return Some(Err(ended));
            }
            let asked: RedisResult<String> = self.ask(client, &command(&["INFO", "server"])).await;
            let ours = format!("process_id:{}\r\n", process.id());
            asked
                .is_ok_and(|info| info.contains(&ours))
                .then_some(Ok(()))
        })
        .await?;
        // Sentinels have no statistics to reset.
        if !options.is_sentinel
            && let Err(error) = self.reset_commandstats(client).await
        {
            return Err(Ended::Otherwise(error.to_string()));
        }
        Ok(process)
    }

    async fn ask<T: FromRedisValue>(&mut self, client: &Client, command: &Cmd) -> RedisResult<T> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let connection = connect(client).await?;
                if client
                    .get_connection_info()
                    .redis_settings()
                    .password()
                    .is_some()
                {
                    *self.calls_made.entry("auth".to_owned()).or_default() += 1;
                }
                none.insert(connection)
            }
        };
        let answer = command.query_async(connection).await;
        if answer
            .as_ref()
            .is_err_and(RedisError::is_unrecoverable_error)
        {
            self.connection = None;
        }
        answer
    }

    async fn commandstats(&mut self, client: &Client) -> RedisResult<BTreeMap<String, u64>> {
        let info: String = self
            .ask(client, &command(&["INFO", "commandstats"]))
            .await?;
        let mut calls = parse_commandstats(&info);
        for (name, calls_made) in &self.calls_made {
            if let Some(count) = calls.get_mut(name) {
                *count = count.saturating_sub(*calls_made);
            }
        }
        calls.retain(|_, count| *count > 0);
        // The server counts this call after it has answered.
        *self.calls_made.entry("info".to_owned()).or_default() += 1;
        Ok(calls)
    }

    async fn reset_commandstats(&mut self, client: &Client) -> RedisResult<()> {
        let reset = command(&["CONFIG", "RESETSTAT"]);
        self.ask::<()>(client, &reset).await?;
        self.calls_made = BTreeMap::from([("config|resetstat".to_owned(), 1)]);
        Ok(())
    }
}

/// The number of calls in lines such as `cmdstat_config|get:calls=3,usec=12,...`.
fn parse_commandstats(info: &str) -> BTreeMap<String, u64> {
    info.lines()
        .filter_map(|line| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let (calls, _) = figures.split_once(',')?;
            Some((name.to_owned(), calls.parse().ok()?))
        })
        .collect()
}

fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    command.arg(words);
    command
}

/// A client that sends only the commands it is given.
fn client(options: &Options, port: u16, dir: &Path) -> RedisResult<Client> {
    let info = url(options, port).into_connection_info()?;
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let info = info.set_redis_settings(settings);
    if !options.tls {
        return Client::open(info);
    }
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(fs::read(dir.join(tls::CA))?),
    };
    Client::build_with_tls(info, certificates)
}

fn url(options: &Options, port: u16) -> String {
    let scheme = if options.tls { "rediss" } else { "redis" };
    match options.user {
        None => format!("{scheme}://127.0.0.1:{port}"),
        Some(User { name, password }) => format!("{scheme}://{name}:{password}@127.0.0.1:{port}"),
    }
}

fn config_file(dir: &Path) -> PathBuf {
    dir.join("redis.conf")
}

fn write_config(options: &Options, port: u16, dir: &Path) {
    let mut lines = vec![
        "bind 127.0.0.1".to_owned(),
        format!("dir {}", dir.display()),
        "save \"\"".to_owned(),
        "appendonly no".to_owned(),
    ];
    if options.tls {
        let file = |name: &str| dir.join(name).display().to_string();
        lines.extend([
            "port 0".to_owned(),
            format!("tls-port {port}"),
            "tls-auth-clients no".to_owned(),
            format!("tls-ca-cert-file {}", file(tls::CA)),
            format!("tls-cert-file {}", file(tls::CERTIFICATE)),
            format!("tls-key-file {}", file(tls::KEY)),
        ]);
    } else {
        lines.push(format!("port {port}"));
    }
    match options.user {
        None => {}
        Some(User {
            name: "default",
            password,
        }) => lines.push(format!("requirepass {password}")),
        Some(User { name, password }) => lines.extend([
            "user default off".to_owned(),
            format!("user {name} on >{password} ~* &* +@all"),
        ]),
    }
    lines.extend(options.settings.iter().cloned());
    lines.push(String::new());
    fs::write(config_file(dir), lines.join("\n")).expect("the configuration is written");
}
