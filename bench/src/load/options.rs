//! The command line of `load`, and how it becomes a plan.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use clap::Args;

use super::error::LoadError;
use super::plan::{Mode, Plan, Site, Target};

/// Options of `signalbox-bench load`.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Server to put load on, e.g. ws://127.0.0.1:8080/ws; the path defaults to that of the target, /ws for ours. Given
    /// twice: the two sides of a pair are on different servers
    #[arg(long = "url", required = true)]
    urls: Vec<String>,
    /// Kind of server behind the URL
    #[arg(long, value_enum, default_value = "signalbox")]
    target: Target,
    /// Allow a host that is not this machine
    #[arg(long)]
    allow_remote: bool,
    /// Closed loop: pairs of connections that send to each other
    #[arg(long)]
    pairs: Option<usize>,
    /// Closed loop: messages in flight from each side of a pair
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Open loop (with --rate) or idle (without): connections
    #[arg(long)]
    connections: Option<usize>,
    /// Open loop in one room: members of the room
    #[arg(long)]
    room_members: Option<usize>,
    /// Total messages a second, sent at fixed times
    #[arg(long)]
    rate: Option<f64>,
    /// Time that is measured, e.g. 10s, 500ms
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// End the measured time early, when standard input ends: for load that lasts as long as something else does
    #[arg(long)]
    until_input_ends: bool,
    /// Idle: how long the connections are held before memory is read
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    hold: Duration,
    /// Time before the measurement that is not counted
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    warmup: Duration,
    /// Bytes of a message's payload JSON
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Ask the server to confirm each message to its sender, and count the confirmations
    #[arg(long)]
    acks: bool,
    /// Process of the server: adds its CPU time and memory to the report; may be given several times, for several nodes
    #[arg(long)]
    cpu_pid: Vec<u32>,
    /// Prefix of the user IDs and the name of the room
    #[arg(long, default_value = "bench")]
    user_prefix: String,
    /// Threads of the load generator
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

impl LoadArgs {
    /// Checks the options and turns them into a plan.
    ///
    /// # Errors
    /// Returns an error if the URL, the mode or a number is not usable, or if the host is remote and `--allow-remote`
    /// is missing.
    pub fn into_plan(self) -> Result<Plan, LoadError> {
        let mode = self.mode()?;
        let sites: Vec<Site> = self
            .urls
            .iter()
            .map(|url| site(url, self.target.protocol().path()))
            .collect::<Result<_, _>>()?;
        let remote = |site: &&Site| !site.address.ip().is_loopback();
        if let Some(site) = sites.iter().find(remote).filter(|_| !self.allow_remote) {
            return Err(LoadError::Remote(site.address.ip()));
        }
        if self.acks && !self.target.protocol().can_ack() {
            return Err(LoadError::Options(
                "the relay confirms no messages; leave out --acks",
            ));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.user_prefix.is_empty()
            || self.user_prefix.len() > 64
            || !self.user_prefix.chars().all(plain)
        {
            return Err(LoadError::Options(
                "--user-prefix takes 1 to 64 letters, digits, `-` and `_`",
            ));
        }
        let duration = if matches!(mode, Mode::Idle { .. }) {
            self.hold
        } else {
            self.duration
        };
        Ok(Plan {
            sites,
            target: self.target,
            mode,
            warmup: self.warmup,
            duration,
            until_input_ends: self.until_input_ends,
            payload_bytes: self.payload,
            acks: self.acks,
            cpu_pids: self.cpu_pid,
            user_prefix: self.user_prefix,
        })
    }

    fn mode(&self) -> Result<Mode, LoadError> {
        let rate = self.rate.filter(|rate| rate.is_finite() && *rate > 0.0);
        let wrong = |what| Err(LoadError::Options(what));
        if self.rate.is_some() && rate.is_none() {
            return wrong("--rate must be over 0");
        }
        match (self.pairs, self.connections, self.room_members, rate) {
            (Some(pairs), None, None, None) if pairs > 0 && self.in_flight > 0 => Ok(Mode::Pairs {
                pairs,
                in_flight: self.in_flight,
            }),
            (Some(_), None, None, None) => wrong("--pairs and --in-flight must be at least 1"),
            (None, Some(connections), None, Some(rate))
                if connections > 0 && connections % 2 == 0 =>
            {
                Ok(Mode::Open { connections, rate })
            }
            (None, Some(_), None, Some(_)) => {
                wrong("--connections must be an even number: they send to each other in pairs")
            }
            (None, None, Some(members), Some(rate)) if members > 1 => {
                Ok(Mode::Room { members, rate })
            }
            (None, None, Some(_), _) => {
                wrong("--room-members must be at least 2, and wants --rate")
            }
            (None, Some(connections), None, None) if connections > 0 => {
                Ok(Mode::Idle { connections })
            }
            _ => wrong(
                "choose one mode: --pairs, --connections with --rate, --room-members with --rate, or --connections",
            ),
        }
    }
}

fn site(url: &str, default_path: &str) -> Result<Site, LoadError> {
    let (host, path) = split_url(url, default_path)?;
    Ok(Site {
        address: resolve(url, &host)?,
        host,
        path,
    })
}

/// Splits `ws://host:port/path` into host and path. `default_path`, which may have a query, stands for a missing path.
fn split_url(url: &str, default_path: &str) -> Result<(String, String), LoadError> {
    let wrong = || LoadError::Url(url.to_owned());
    let rest = url.strip_prefix("ws://").ok_or_else(wrong)?;
    let split = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(split);
    let port = host.rsplit_once(':').map(|(_, port)| port);
    if port.is_none_or(|port| port.parse::<u16>().is_err())
        || path.contains(|c: char| c.is_whitespace() || c == '#')
    {
        return Err(wrong());
    }
    let path = match path {
        "" | "/" => default_path.to_owned(),
        query if query.starts_with('?') && default_path.contains('?') => {
            format!("{default_path}&{}", &query[1..])
        }
        query if query.starts_with('?') => format!("{default_path}{query}"),
        path => path.to_owned(),
    };
    Ok((host.to_owned(), path))
}

fn resolve(url: &str, host: &str) -> Result<SocketAddr, LoadError> {
    let failed = |source| LoadError::Resolve {
        url: url.to_owned(),
        source,
    };
    let mut addresses = host.to_socket_addrs().map_err(failed)?;
    addresses
        .next()
        .ok_or_else(|| failed(std::io::Error::from(std::io::ErrorKind::NotFound)))
}

/// Parses a number with its unit: `500ms`, `10s`, `2m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => {
            return Err(format!(
                "`{text}` is no duration; write e.g. 500ms, 10s or 2m"
            ));
        }
    };
    let number: u32 = number
        .parse()
        .map_err(|_| format!("`{text}` is no duration; write e.g. 500ms, 10s or 2m"))?;
    Ok(Duration::from_millis(u64::from(number) * milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn plan(options: &str) -> Result<Plan, LoadError> {
        let words = std::iter::once("load").chain(options.split(' '));
        Command::try_parse_from(words)
            .expect("the options parse")
            .load
            .into_plan()
    }

    #[test]
    fn the_path_defaults_to_ws_and_a_query_is_kept() {
        let target = |url: &str| {
            plan(&format!("--url {url} --connections 2"))
                .map(|plan| plan.request_target(1))
                .ok()
        };
        assert_eq!(
            target("ws://127.0.0.1:1").as_deref(),
            Some("/ws?userId=bench-1")
        );
        assert_eq!(
            target("ws://127.0.0.1:1/x?a=b").as_deref(),
            Some("/x?a=b&userId=bench-1")
        );
        assert_eq!(
            target("ws://127.0.0.1:1?a=b").as_deref(),
            Some("/ws?a=b&userId=bench-1")
        );
        for wrong in [
            "http://127.0.0.1:1",
            "wss://127.0.0.1:1",
            "ws://127.0.0.1",
            "ws://127.0.0.1:x/",
        ] {
            assert!(
                matches!(
                    plan(&format!("--url {wrong} --pairs 1")),
                    Err(LoadError::Url(_))
                ),
                "{wrong}"
            );
        }
    }

    #[test]
    fn with_two_servers_the_sides_of_a_pair_are_on_different_ones() {
        let plan = plan("--url ws://127.0.0.1:1/a --url ws://127.0.0.1:2/b --pairs 2").ok();
        let ports = plan.map(|plan| [0, 1, 2, 3].map(|index| plan.site(index).address.port()));
        assert_eq!(ports, Some([1, 2, 1, 2]));
    }

    #[test]
    fn a_relay_is_told_the_receiver_in_the_query() {
        let target = |options: &str| {
            plan(&format!("--url ws://127.0.0.1:1 --target relay {options}"))
                .map(|plan| plan.request_target(4))
                .ok()
        };
        assert_eq!(
            target("--pairs 3").as_deref(),
            Some("/ws?userId=bench-4&peer=bench-5")
        );
        assert_eq!(
            target("--room-members 9 --rate 1").as_deref(),
            Some("/ws?userId=bench-4&room=bench-room")
        );
    }

    #[test]
    fn every_target_has_its_own_path() {
        let target = |options: &str| {
            plan(&format!("{options} --connections 2"))
                .map(|plan| plan.request_target(1))
                .ok()
        };
        assert_eq!(
            target("--target socket-io --url ws://127.0.0.1:1?a=b").as_deref(),
            Some("/socket.io/?EIO=4&transport=websocket&a=b&userId=bench-1")
        );
        assert_eq!(
            target("--target centrifuge --url ws://127.0.0.1:1").as_deref(),
            Some("/connection/websocket?userId=bench-1")
        );
    }

    #[test]
    fn a_relay_cannot_be_asked_for_acks() {
        let acks = |target: &str| {
            let options = format!("--url ws://127.0.0.1:1 --pairs 1 --acks --target {target}");
            plan(&options).map(|plan| plan.acks)
        };
        assert!(matches!(acks("relay"), Err(LoadError::Options(_))));
        for target in ["signalbox", "socket-io", "centrifuge"] {
            assert!(acks(target).is_ok_and(|acks| acks), "{target}");
        }
    }

    #[test]
    fn a_remote_host_needs_consent() {
        let url = "--url ws://192.0.2.1:80/ws --pairs 1";
        assert!(matches!(plan(url), Err(LoadError::Remote(_))));
        assert!(plan(&format!("{url} --allow-remote")).is_ok());
    }

    #[test]
    fn exactly_one_mode_is_chosen() {
        let mode = |options: &str| {
            plan(&format!("--url ws://127.0.0.1:1 {options}")).map(|plan| plan.mode)
        };
        assert!(matches!(
            mode("--pairs 2 --in-flight 3"),
            Ok(Mode::Pairs {
                pairs: 2,
                in_flight: 3
            })
        ));
        assert!(matches!(
            mode("--connections 4 --rate 10"),
            Ok(Mode::Open { connections: 4, .. })
        ));
        assert!(matches!(
            mode("--connections 3"),
            Ok(Mode::Idle { connections: 3 })
        ));
        for wrong in [
            "--in-flight 2",
            "--pairs 0",
            "--pairs 1 --connections 2",
            "--connections 3 --rate 1",
        ] {
            assert!(matches!(mode(wrong), Err(LoadError::Options(_))), "{wrong}");
        }
        for wrong in [
            "--room-members 1 --rate 1",
            "--room-members 5",
            "--connections 2 --rate 0",
            "--pairs 1 --rate 5",
        ] {
            assert!(matches!(mode(wrong), Err(LoadError::Options(_))), "{wrong}");
        }
    }

    #[test]
    fn durations_want_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert!(
            ["5", "s", "-1s", "1h", ""]
                .iter()
                .all(|text| parse_duration(text).is_err())
        );
    }
}
