//! One `redis-server` process.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// A process that ends no later than when this value is dropped.
pub(super) struct Process {
    child: Child,
    output: PathBuf,
}

/// Why a process exited by itself.
pub(super) enum Ended {
    /// Another process had the port.
    PortTaken,
    /// Anything else, with the end of its output.
    Otherwise(String),
}

impl Process {
    /// Starts a server with `config` in `dir`.
    pub(super) fn spawn(dir: &Path, config: &Path, arguments: &[&str]) -> Self {
        let output = dir.join("output");
        let file = File::create(&output).expect("a file for the output");
        let errors = file.try_clone().expect("the same file once more");
        let child = Command::new("redis-server")
            .arg(config)
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .expect("redis-server is in PATH; `cargo xtask test` installs it");
        Self { child, output }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Why it exited, if it did.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        let status = self
            .child
            .try_wait()
            .expect("a process can be asked about")?;
        let output = self.output();
        Some(if output.contains("Address already in use") {
            Ended::PortTaken
        } else {
            Ended::Otherwise(format!("it ended with {status}:\n{output}"))
        })
    }

    /// Its output so far.
    pub(super) fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Kills it, as in a crash, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        // Both fail only if it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it with SIGSTOP: its connections stay open and nothing answers.
    pub(super) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues it.
    pub(super) fn cont(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process takes the signal");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
