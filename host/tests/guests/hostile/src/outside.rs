//! Probes of the world outside the sandbox: a plugin must see nothing of it.

use std::{
    fs,
    io::ErrorKind,
    net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
};

/// As JSON: the number of environment variables and arguments, whether files can be read, listed and written, and
/// whether the network can be reached, by several means.
pub fn seen() -> String {
    // Nobody listens on this address: if there is a network, it refuses the connection.
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    let found = [
        fs::read("/etc/passwd").is_ok(),
        fs::read_dir("/").is_ok() || fs::read_dir(".").is_ok(),
        fs::write("/tmp/hostile", "x").is_ok() || fs::write("hostile", "x").is_ok(),
        TcpStream::connect("127.0.0.1:1").map_or_else(refused, |_| true),
        TcpListener::bind("127.0.0.1:0").is_ok(),
        UdpSocket::bind("127.0.0.1:0").is_ok(),
        "localhost:80"
            .to_socket_addrs()
            .is_ok_and(|mut found| found.next().is_some()),
    ];
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    format!(
        "[{},{},{}]",
        std::env::vars().count(),
        std::env::args().count(),
        found.join(",")
    )
}

mod wasi {
    #![allow(unsafe_code)]
    wit_bindgen::generate!({
        inline: "
            package wasi:random@0.2.6;
            interface random {
                get-random-bytes: func(len: u64) -> list<u8>;
                get-random-u64: func() -> u64;
            }
            world outside {
                import random;
            }
        ",
    });
}

mod timers {
    #![allow(unsafe_code)]
    wit_bindgen::generate!({
        inline: "
            package test:timers;
            world timers {
                import wasi:clocks/monotonic-clock@0.2.1;
            }
            package wasi:io@0.2.1 {
                interface poll {
                    resource pollable;
                }
            }
            package wasi:clocks@0.2.1 {
                interface monotonic-clock {
                    use wasi:io/poll@0.2.1.{pollable};
                    type duration = u64;
                    subscribe-duration: func(when: duration) -> pollable;
                }
            }
        ",
        generate_all,
    });
}

/// Makes the host hold timers for it, without end.
pub fn hold_timers() -> ! {
    let mut held = Vec::new();
    loop {
        let timer = timers::wasi::clocks::monotonic_clock::subscribe_duration(1 << 60);
        held.push(timer);
    }
}

/// Asks the host for this many random bytes at once.
pub fn random_bytes(count: u64) {
    wasi::wasi::random::random::get_random_bytes(count);
}
