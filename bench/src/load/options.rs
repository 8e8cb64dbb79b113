//! The command line of `load`, and how it becomes a plan.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::plan::{Mode, Plan, Site, Target};

/// Options of `signalbox-bench load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Server to put load on, e.g. ws://127.0.0.1:8080/ws; the path defaults to that of the target, /ws for ours. Given
    /// twice: the two sides of a pair are on different servers
    #[arg(long = "url", required = true)]
    urls: Vec<String>,
    /// Kind of server behind the URL
    #[arg(long, value_enum, default_value = "signalbox")]
    pub(super) target: Target,
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
    pub(super) duration: Duration,
    /// End the measured time early, when standard input ends: for load that lasts as long as something else does
    #[arg(long)]
    pub(super) until_input_ends: bool,
    /// Idle: how long the connections are held before memory is read
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub(super) hold: Duration,
    /// Time before the measurement that is not counted
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub(super) warmup: Duration,
    /// Bytes of a message's payload JSON
    #[arg(long, default_value_t = 128)]
    pub(super) payload: usize,
    /// Ask the server to confirm each message to its sender, and count the confirmations
    #[arg(long)]
    pub(super) acks: bool,
    /// Process of the server: adds its CPU time and memory to the report; may be given several times, for several nodes
    #[arg(long)]
    pub(super) cpu_pid: Vec<u32>,
    /// Prefix of the user IDs and the name of the room
    #[arg(long, default_value = "bench")]
    pub(super) user_prefix: String,
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
    pub fn into_plan(self) -> anyhow::Result<Plan> {
        let mode = self.mode()?;
        let protocol = self.target.protocol();
        let sites = self.urls.iter().map(|url| site(url, protocol.path));
        let sites: Vec<Site> = sites.collect::<Result<_, _>>()?;
        for Site { address, .. } in &sites {
            ensure!(
                self.allow_remote || address.ip().is_loopback(),
                "{} is not a loopback address; load belongs on a server of your own: add --allow-remote if this is one",
                address.ip()
            );
        }
        ensure!(
            protocol.can_ack || !self.acks,
            "the relay confirms no messages; leave out --acks"
        );
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        ensure!(
            (1..=64).contains(&self.user_prefix.len()) && self.user_prefix.chars().all(plain),
            "--user-prefix takes 1 to 64 letters, digits, `-` and `_`"
        );
        Ok(Plan {
            sites,
            mode,
            options: self,
        })
    }

    fn mode(&self) -> anyhow::Result<Mode> {
        let in_flight = self.in_flight;
        ensure!(
            self.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0),
            "--rate must be over 0"
        );
        Ok(
            match (self.pairs, self.connections, self.room_members, self.rate) {
                (Some(pairs), None, None, None) => {
                    ensure!(
                        pairs > 0 && in_flight > 0,
                        "--pairs and --in-flight must be at least 1"
                    );
                    Mode::Pairs { pairs, in_flight }
                }
                (None, Some(connections), None, Some(rate)) => {
                    ensure!(
                        connections > 0 && connections % 2 == 0,
                        "--connections must be an even number: they send to each other in pairs"
                    );
                    Mode::Open { connections, rate }
                }
                (None, None, Some(members @ 2..), Some(rate)) => Mode::Room { members, rate },
                (None, None, Some(_), _) => {
                    bail!("--room-members must be at least 2, and wants --rate")
                }
                (None, Some(connections @ 1..), None, None) => Mode::Idle { connections },
                _ => bail!(
                    "choose one mode: --pairs, --connections with --rate, --room-members with --rate, or --connections"
                ),
            },
        )
    }
}

/// Reads `ws://host:port/path`. `default_path`, which may have a query, stands for a missing path.
fn site(url: &str, default_path: &str) -> anyhow::Result<Site> {
    let parts = || {
        let rest = url.strip_prefix("ws://")?;
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        host.rsplit_once(':')?.1.parse::<u16>().ok()?;
        let is_plain = !path.contains(|c: char| c.is_whitespace() || c == '#');
        is_plain.then_some((host, path))
    };
    let (host, path) = parts().with_context(|| {
        format!("`{url}` is not a URL of the form ws://host:port/path (TLS is not supported; measure behind the proxy)")
    })?;
    let path = match path.strip_prefix('?') {
        Some(query) if default_path.contains('?') => format!("{default_path}&{query}"),
        Some(query) => format!("{default_path}?{query}"),
        None if matches!(path, "" | "/") => default_path.to_owned(),
        None => path.to_owned(),
    };
    let failed = || format!("the host of `{url}` cannot be resolved");
    let address = host.to_socket_addrs().with_context(failed)?.next();
    Ok(Site {
        address: address.with_context(failed)?,
        host: host.to_owned(),
        path,
    })
}

/// Parses a number with its unit: `500ms`, `10s`, `2m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000)];
    let milliseconds = units.iter().find_map(|(unit, factor)| {
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        Some(u64::from(number) * factor)
    });
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is no duration; write e.g. 500ms, 10s or 2m"))
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

    /// The plan for these options after `--url ws://127.0.0.1:1`.
    fn plan(options: &str) -> anyhow::Result<Plan> {
        let words = format!("load --url ws://127.0.0.1:1{options}");
        let command = Command::try_parse_from(words.split(' ')).expect("the options parse");
        command.load.into_plan()
    }

    #[test]
    fn the_request_names_the_user_and_the_parameters_of_the_target() {
        let table = "
             --connections 2 => /ws?userId=bench-4
            /x?a=b --connections 2 => /x?a=b&userId=bench-4
            ?a=b --connections 2 => /ws?a=b&userId=bench-4
             --target relay --pairs 3 => /ws?userId=bench-4&peer=bench-5
             --target relay --room-members 9 --rate 1 => /ws?userId=bench-4&room=bench-room
            ?a=b --target socket-io --connections 2 => /socket.io/?EIO=4&transport=websocket&a=b&userId=bench-4
             --target centrifuge --connections 2 => /connection/websocket?userId=bench-4";
        for line in table.lines().skip(1) {
            let (options, target) = line[12..].split_once(" => ").expect("a target");
            assert_eq!(plan(options).expect(options).request_target(4), target);
        }
    }

    #[test]
    fn only_urls_of_the_known_form_are_taken() {
        for wrong in [
            "http://127.0.0.1:1",
            "wss://127.0.0.1:1",
            "ws://127.0.0.1",
            "ws://127.0.0.1:x/",
        ] {
            let error = plan(&format!(" --url {wrong} --pairs 1")).expect_err(wrong);
            assert!(error.to_string().contains("is not a URL"), "{error}");
        }
    }

    #[test]
    fn with_two_servers_the_sides_of_a_pair_are_on_different_ones() {
        let plan = plan("/a --url ws://127.0.0.1:2/b --pairs 2").expect("a plan");
        let ports = [0, 1, 2, 3].map(|index| plan.site(index).address.port());
        assert_eq!(ports, [1, 2, 1, 2]);
    }

    #[test]
    fn a_relay_cannot_be_asked_for_acks() {
        assert!(plan(" --pairs 1 --acks --target relay").is_err());
        for target in ["signalbox", "socket-io", "centrifuge"] {
            let acks = plan(&format!(" --pairs 1 --acks --target {target}"));
            assert!(acks.is_ok_and(|plan| plan.options.acks), "{target}");
        }
    }

    #[test]
    fn a_remote_host_needs_consent() {
        let remote = " --url ws://192.0.2.1:80/ws --pairs 1";
        assert!(plan(remote).is_err_and(|error| error.to_string().contains("--allow-remote")));
        assert!(plan(&format!("{remote} --allow-remote")).is_ok());
    }

    #[test]
    fn exactly_one_mode_is_chosen() {
        #[rustfmt::skip]
        let modes = [
            (" --pairs 2 --in-flight 3", Mode::Pairs { pairs: 2, in_flight: 3 }),
            (" --connections 4 --rate 10", Mode::Open { connections: 4, rate: 10.0 }),
            (" --connections 3", Mode::Idle { connections: 3 }),
        ];
        for (options, mode) in modes {
            assert_eq!(plan(options).expect(options).mode, mode);
        }
        for wrong in [
            " --in-flight 2",
            " --pairs 0",
            " --pairs 1 --connections 2",
            " --connections 3 --rate 1",
            " --room-members 1 --rate 1",
            " --room-members 5",
            " --connections 2 --rate 0",
            " --pairs 1 --rate 5",
        ] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_want_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        let wrong = ["5", "s", "-1s", "1h", ""];
        assert!(wrong.iter().all(|text| parse_duration(text).is_err()));
    }
}
