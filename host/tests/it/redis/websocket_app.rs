//! Imitates the use of Redis by the Go server `websocket-app`, for tests in which both kinds of server share one Redis.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use redis::{
    Client, Cmd, FromRedisValue, Msg, RedisResult, aio::MultiplexedConnection,
    cluster_async::ClusterConnection, cmd,
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{interval, sleep},
};

use super::connections::{cluster_client, connect};

/// The TTL of `user_online:<user>:<server>`, in seconds.
const ONLINE_TTL: u64 = 60;

/// The interval at which the TTL is renewed.
const REFRESH_EVERY: Duration = Duration::from_secs(30);

/// Time between two attempts to subscribe.
const PAUSE: Duration = Duration::from_millis(50);

/// One server of the old kind. When this value is dropped, it ends without updating Redis, as in a crash.
pub(crate) struct WebsocketApp {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    id: String,
    redis: Redis,
    /// The connections of each user on this server.
    users: Mutex<HashMap<String, Vec<mpsc::UnboundedSender<String>>>>,
}

/// The connection for commands. Both kinds reconnect automatically.
enum Redis {
    One(Box<One>),
    Cluster(ClusterConnection),
}

struct One {
    client: Client,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
}

impl WebsocketApp {
    /// A server that has subscribed. `urls` is one address, or several addresses of a cluster separated by commas.
    pub(crate) async fn start(urls: &str) -> Self {
        Self::start_refreshing_every(REFRESH_EVERY, urls).await
    }

    /// Like [`Self::start`], with another interval for refreshing the users that are online.
    pub(crate) async fn start_refreshing_every(period: Duration, urls: &str) -> Self {
        let shared = Arc::new(Shared {
            id: uuid(),
            redis: Redis::connect(urls).await,
            users: Mutex::default(),
        });
        let (subscribed, is_subscribed) = oneshot::channel();
        let clients = urls
            .split(',')
            .map(|url| Client::open(url).expect("a valid address"))
            .collect();
        let mut tasks = JoinSet::new();
        tasks.spawn(subscribe(shared.clone(), clients, subscribed));
        tasks.spawn(refresh(shared.clone(), period));
        is_subscribed.await.expect("it subscribes");
        Self {
            shared,
            _tasks: tasks,
        }
    }

    /// Its server ID in Redis.
    pub(crate) fn id(&self) -> &str {
        &self.shared.id
    }

    /// A connection of `user`, which receives the JSON of each message.
    pub(crate) async fn connect(&self, user: &str) -> mpsc::UnboundedReceiver<String> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.shared.add(user, sender);
        let add = cmd("SADD").arg(servers_key(user)).arg(self.id()).take();
        self.shared.expect::<()>(&add).await;
        let online = cmd("SET")
            .arg(self.shared.online_key(user))
            .arg(1)
            .arg("EX")
            .arg(ONLINE_TTL)
            .take();
        self.shared.expect::<()>(&online).await;
        receiver
    }

    /// Closes the oldest connection of `user`, and removes the user's route, even if other connections are left.
    pub(crate) async fn disconnect(&self, user: &str) {
        self.shared.remove_oldest(user);
        let remove = cmd("SREM").arg(servers_key(user)).arg(self.id()).take();
        self.shared.expect::<()>(&remove).await;
        let offline = cmd("DEL").arg(self.shared.online_key(user)).take();
        self.shared.expect::<()>(&offline).await;
    }

    /// Sends a message. Returns whether it was published to a server that holds `to`.
    pub(crate) async fn send(&self, from: &str, to: &str, r#type: &str, payload: &Value) -> bool {
        let message = json!({
            "type": r#type,
            "payload": payload,
            "receiverID": to,
            "senderId": from,
            "timestamp": humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        });
        let members = cmd("SMEMBERS").arg(servers_key(to)).take();
        let servers: Vec<String> = self.shared.expect(&members).await;
        let mut is_delivered = false;
        for server in servers {
            let exists = cmd("EXISTS").arg(online_key(to, &server)).take();
            if self.shared.expect(&exists).await {
                let publish = cmd("PUBLISH")
                    .arg(channel_of(&server))
                    .arg(message.to_string())
                    .take();
                self.shared.expect::<()>(&publish).await;
                is_delivered = true;
            }
        }
        is_delivered
    }
}

impl Shared {
    fn users(&self) -> MutexGuard<'_, HashMap<String, Vec<mpsc::UnboundedSender<String>>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, user: &str, connection: mpsc::UnboundedSender<String>) {
        let mut users = self.users();
        users.entry(user.to_owned()).or_default().push(connection);
    }

    fn remove_oldest(&self, user: &str) {
        let mut users = self.users();
        if let Some(connections) = users.get_mut(user) {
            connections.remove(0);
            if connections.is_empty() {
                users.remove(user);
            }
        }
    }

    fn online_key(&self, user: &str) -> String {
        online_key(user, &self.id)
    }

    async fn expect<T: FromRedisValue>(&self, command: &Cmd) -> T {
        self.redis
            .ask(command)
            .await
            .unwrap_or_else(|error| panic!("websocket-app: {error}"))
    }

    /// Delivers a message to the connections of its receiver, or to all if it has no receiver, as with broadcasts.
    fn deliver(&self, message: &Msg) {
        let Ok(text) = String::from_utf8(message.get_payload_bytes().to_vec()) else {
            return;
        };
        let Ok(json) = serde_json::from_str::<Value>(&text) else {
            return;
        };
        let receiver = json["receiverID"].as_str().unwrap_or_default();
        for (user, connections) in self.users().iter() {
            if user == receiver || receiver.is_empty() {
                for connection in connections {
                    // The test may have dropped the receiver without disconnecting.
                    let _ = connection.send(text.clone());
                }
            }
        }
    }
}

impl Redis {
    async fn connect(urls: &str) -> Self {
        if urls.contains(',') {
            let connection = cluster_client(urls).get_async_connection().await;
            return Self::Cluster(connection.expect("the cluster accepts clients"));
        }
        let client = Client::open(urls).expect("a valid address");
        Self::One(Box::new(One {
            client,
            connection: tokio::sync::Mutex::default(),
        }))
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
            Self::One(one) => {
                let mut connection = one.connection.lock().await;
                if let Some(connected) = connection.as_mut() {
                    match command.query_async(connected).await {
                        Err(error) if error.is_unrecoverable_error() => *connection = None,
                        answer => return answer,
                    }
                }
                let connected = connect(&one.client).await?;
                command.query_async(connection.insert(connected)).await
            }
        }
    }
}

/// Subscribes to the server's channel and to the broadcast channel, and resubscribes whenever the connection ends.
async fn subscribe(shared: Arc<Shared>, clients: Vec<Client>, subscribed: oneshot::Sender<()>) {
    let mut subscribed = Some(subscribed);
    for client in clients.iter().cycle() {
        if let Ok(mut messages) = client.get_async_pubsub().await {
            let channels = [channel_of(&shared.id), "broadcast".to_owned()];
            if messages.subscribe(&channels).await.is_ok() {
                if let Some(subscribed) = subscribed.take() {
                    let _ = subscribed.send(());
                }
                let mut messages = messages.into_on_message();
                while let Some(message) = messages.next().await {
                    shared.deliver(&message);
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// Refreshes the users that are online at each interval. As in the original, a user whose key has expired stays
/// offline.
async fn refresh(shared: Arc<Shared>, period: Duration) {
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        let users: Vec<String> = shared.users().keys().cloned().collect();
        for user in users {
            let expire = cmd("EXPIRE")
                .arg(shared.online_key(&user))
                .arg(ONLINE_TTL)
                .take();
            // Without Redis there is nothing to refresh.
            let _ = shared.redis.ask::<()>(&expire).await;
        }
    }
}

fn servers_key(user: &str) -> String {
    format!("user_servers:{user}")
}

fn online_key(user: &str, server: &str) -> String {
    format!("user_online:{user}:{server}")
}

fn channel_of(server: &str) -> String {
    format!("server:{server}")
}

/// A random (version 4) UUID.
fn uuid() -> String {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random numbers");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}
