//! One node of the server: its settings in addition to `platform.toml`, and whether it is ready.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::http;
use crate::workspace::Workspace;

/// Time limit for a node on this machine to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// A node by its name and port.
#[derive(Debug)]
pub(super) struct Node {
    name: char,
    port: u16,
}

impl Node {
    pub(super) fn new(name: char, port: u16) -> Self {
        Self { name, port }
    }

    pub(super) fn name(&self) -> String {
        self.name.to_string()
    }

    /// The URL that clients connect to.
    pub(super) fn url(&self) -> String {
        format!("ws://{}/ws", self.address())
    }

    /// The command that starts the server. All nodes use the same `platform.toml`, so that a change to it or to a
    /// plugin reaches all of them. Variables set what differs for this node.
    pub(super) fn command(
        &self,
        workspace: &Workspace,
        program: &Path,
        redis_url: &str,
    ) -> Command {
        let cache = workspace.target_dir().join("cluster").join(self.name());
        let mut command = Command::new(program);
        command
            .args(["run", "--config", "platform.toml"])
            .current_dir(workspace.root())
            // Ctrl-C on the terminal does not reach it.
            .process_group(0)
            .env("SIGNALBOX_SERVER__LISTEN", self.address().to_string())
            .env("SIGNALBOX_SERVER__NODE_ID", self.name())
            .env("SIGNALBOX_BROKER__KIND", "redis")
            .env("SIGNALBOX_REDIS__URL", redis_url)
            .env("SIGNALBOX_PLUGIN_CACHE__DIR", cache);
        command
    }

    /// Whether it is ready for clients: its plugins are loaded, and it receives from Redis what it publishes.
    pub(super) fn is_ready(&self) -> bool {
        is_ready(self.address())
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

/// Whether the server at this address reports that it is ready.
pub(crate) fn is_ready(address: SocketAddr) -> bool {
    let answer = http::call(address, ("GET", "/ready"), "", &[], Some(ANSWER_TIME_MAX));
    answer.is_ok_and(|(status, _)| status == 200)
}

/// Instructions for using the nodes.
pub(super) fn instructions(nodes: &[Node]) -> String {
    let (mut commands, mut urls) = (String::new(), String::new());
    for (user, node) in ["ann", "bob"].into_iter().zip(nodes.iter().cycle()) {
        let url = node.url();
        commands += &format!("  cargo run -p chat-client -- --url {url} --user {user}\n");
        urls += &format!("  {url}?userId={user}\n");
    }
    format!(
        "\n{} nodes are ready and act as one. In two other terminals:\n\n{commands}\n\
         or with any WebSocket tool:\n\n{urls}\n\
         and send {{\"type\":\"chat_message\",\"payload\":{{\"text\":\"hi\"}},\"receiverId\":\"bob\"}}\n\n\
         `cargo xtask plugins` swaps changed plugins on all of them; Ctrl-C ends them.\n",
        nodes.len(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn each_node_gets_its_own_name_address_and_cache_and_the_common_redis() {
        let workspace = Workspace::find().expect("this workspace");
        let described = |name, port| {
            let (node, program) = (Node::new(name, port), Path::new("signalbox"));
            let command = node.command(&workspace, program, "redis://127.0.0.1:7000");
            let text = |text: &OsStr| text.to_string_lossy().into_owned();
            let variables = command.get_envs();
            let variables = variables.filter_map(|(name, value)| Some((text(name), text(value?))));
            variables.collect::<BTreeMap<_, _>>()
        };
        let (a, b) = (described('a', 8080), described('b', 8081));
        assert_eq!(a["SIGNALBOX_SERVER__LISTEN"], "127.0.0.1:8080");
        assert_eq!(a["SIGNALBOX_SERVER__NODE_ID"], "a");
        assert_eq!(a["SIGNALBOX_BROKER__KIND"], "redis");
        let differ: Vec<_> = a.keys().filter(|name| a[*name] != b[*name]).collect();
        let expected = ["PLUGIN_CACHE__DIR", "SERVER__LISTEN", "SERVER__NODE_ID"];
        assert_eq!(
            differ,
            expected.map(|name| format!("SIGNALBOX_{name}")).each_ref()
        );
    }

    #[test]
    fn a_node_is_ready_when_it_says_200() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let node = Node::new('a', port);
        let answering = thread::spawn(move || {
            for status in ["503 Service Unavailable", "200 OK"] {
                let (mut stream, _) = listener.accept().expect("a connection");
                // A request may come in any number of pieces. All of them must be read, or the connection would be
                // reset.
                let head: Vec<_> = BufReader::new(&stream)
                    .lines()
                    .map(|line| line.expect("a line of the head"))
                    .take_while(|line| !line.is_empty())
                    .collect();
                assert!(head[0].starts_with("GET /ready "), "{head:?}");
                write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n")
                    .expect("it is answered");
            }
        });
        assert!(!node.is_ready());
        assert!(node.is_ready());
        answering.join().expect("both were answered");
        assert!(!node.is_ready(), "nobody listens any more");
    }

    #[test]
    fn two_people_are_sent_to_two_nodes() {
        let text = instructions(&[Node::new('a', 8080), Node::new('b', 8081)]);
        assert!(text.contains("--url ws://127.0.0.1:8080/ws --user ann\n"));
        assert!(text.contains("--url ws://127.0.0.1:8081/ws --user bob\n"));
        let one = instructions(&[Node::new('a', 8080)]);
        assert!(one.contains("--url ws://127.0.0.1:8080/ws --user bob\n"));
    }
}
