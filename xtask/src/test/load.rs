//! A process that spins on each core. Running next to it exposes tests that depend on how fast something else is.

use std::hint::spin_loop;
use std::io::{self, Read as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use anyhow::Context as _;

/// The process. It ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Load(Child);

impl Load {
    /// Starts this program again, to spin.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program does not know its own file")?;
        let child = Command::new(program)
            .arg("spin")
            .stdin(Stdio::piped())
            .spawn();
        child.map(Self).context("no process that spins")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The process ends when its input does, which also happens if this process is killed.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Spins on each core until standard input ends.
pub(crate) fn spin() -> anyhow::Result<ExitCode> {
    for _ in 0..super::cores()? {
        thread::spawn(|| {
            loop {
                spin_loop();
            }
        });
    }
    let _ = io::stdin().read_to_end(&mut Vec::new());
    Ok(ExitCode::SUCCESS)
}
