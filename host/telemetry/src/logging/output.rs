//! A bounded buffer between the code that logs and the file that it logs to.
//!
//! Writing to standard error blocks while its reader does not read: a full pipe, a terminal after Ctrl-S, a stuck log
//! driver. Lines therefore go into a buffer, and one thread writes them. Lines that do not fit are dropped and counted;
//! once the reader continues, one line reports how many were lost.
//!
//! `tracing-appender` does not fit: it bounds lines rather than bytes, and if the buffer is full when the process ends,
//! it prints to standard output, which may block as well.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Maximum number of waiting bytes. As many again may be on their way to the file.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The destination of the log. Clones share one buffer.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<OutputShared>);

#[derive(Debug, Default)]
struct OutputShared {
    state: Mutex<OutputState>,
    /// Signalled when there is something to write.
    filled: Condvar,
    /// Signalled when nothing is waiting and nothing is being written.
    idle: Condvar,
    /// Lines lost since the start.
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct OutputState {
    /// Complete lines.
    waiting: Vec<u8>,
    /// The number of lines that did not fit after those.
    overflowed: u64,
    writing: bool,
}

impl Output {
    /// Starts the thread that writes to `file`. `summary` creates the line that reports how many were lost.
    ///
    /// # Errors
    /// Returns an error if the system provides no thread.
    pub(super) fn start(
        file: impl Write + Send + 'static,
        summary: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Self> {
        let output = Self::default();
        let writer = Writer {
            shared: output.0.clone(),
            file,
            summary,
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run())?;
        Ok(output)
    }

    /// Puts complete lines into the buffer, or drops and counts them if it is full. Never waits for the file.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut state = self.0.state();
        if state.waiting.len() + lines.len() > BUFFER_BYTES_MAX {
            state.overflowed += self.0.lose(lines);
            return;
        }
        state.waiting.extend_from_slice(lines);
        drop(state);
        self.0.filled.notify_one();
    }

    /// Blocks until everything is written or `deadline` is reached. Returns whether everything was written.
    pub fn flush(&self, deadline: Instant) -> bool {
        let mut state = self.0.state();
        while state.writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.idle.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The counter of the lines lost since the start.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.0.dropped.clone()
    }
}

impl OutputShared {
    fn state(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts lines that are not written, and returns their number.
    fn lose(&self, lines: &[u8]) -> u64 {
        let lost = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.dropped.fetch_add(lost, Ordering::Relaxed);
        lost
    }
}

/// One event is one write: the formatter passes complete lines.
impl Write for Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writer<F, S> {
    shared: Arc<OutputShared>,
    file: F,
    summary: S,
}

impl<F: Write, S: Fn(u64) -> Vec<u8>> Writer<F, S> {
    fn run(mut self) {
        let mut lines = Vec::new();
        // Lost lines that have not been reported yet; they came before the waiting ones.
        let mut owed = 0;
        loop {
            let lost_after = self.take(&mut lines);
            if self.tell(owed) {
                owed = 0;
            }
            let written = write(&mut self.file, &lines);
            owed += self.shared.lose(&lines[written..]);
            owed += lost_after;
            if written == lines.len() && self.tell(owed) {
                owed = 0;
            }
        }
    }

    /// Waits for lines, and takes all of them in exchange for the empty buffer. Returns how many were lost after them.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        let mut state = self.shared.state();
        while state.waiting.is_empty() {
            state.writing = false;
            self.shared.idle.notify_all();
            let woken = self.shared.filled.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        std::mem::swap(&mut state.waiting, lines);
        std::mem::take(&mut state.overflowed)
    }

    /// Reports how many lines were lost, if there were any. Returns whether the file accepted the report.
    fn tell(&mut self, lost: u64) -> bool {
        if lost == 0 {
            return true;
        }
        let summary = (self.summary)(lost);
        write(&mut self.file, &summary) == summary.len()
    }
}

/// Writes as much as the file accepts, and returns the number of bytes written. Any failure ends it: a pipe without a
/// reader, a full disk.
fn write(file: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
        time::Duration,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A file in which each write waits for a word: `true` lets it succeed, `false` makes it fail.
    struct Gated {
        began: Sender<()>,
        words: Receiver<bool>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.began.send(());
            if self.words.recv().unwrap_or(true) {
                self.taken.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gate {
        output: Output,
        began: Receiver<()>,
        words: SyncSender<bool>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Gate {
        fn new() -> Self {
            let (began_sender, began) = channel();
            let (words, words_receiver) = sync_channel(100);
            let taken = Arc::<Mutex<Vec<u8>>>::default();
            let file = Gated {
                began: began_sender,
                words: words_receiver,
                taken: taken.clone(),
            };
            let output = Output::start(file, |lost| format!("lost {lost}\n").into_bytes());
            Self {
                output: output.expect("a thread"),
                began,
                words,
                taken,
            }
        }

        /// A gate whose file is in the middle of a write of "first".
        fn stalled() -> Self {
            let gate = Self::new();
            gate.output.push(b"first\n");
            gate.began.recv().unwrap();
            gate
        }

        fn dropped(&self) -> u64 {
            self.output.dropped().load(Ordering::Relaxed)
        }

        fn text(&self) -> String {
            String::from_utf8(self.taken.lock().unwrap().clone()).unwrap()
        }

        /// Lets `count` writes through, waits for them, and returns all that was written.
        fn release(&self, count: usize) -> String {
            for _ in 0..count {
                self.words.send(true).unwrap();
            }
            assert!(self.output.flush(Instant::now() + LONG));
            self.text()
        }
    }

    fn line(bytes: usize) -> Vec<u8> {
        let mut line = vec![b'x'; bytes - 1];
        line.push(b'\n');
        line
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let gate = Gate::stalled();
        gate.output.push(b"second\n");
        gate.output.push(b"third\n");
        assert_eq!(gate.release(2), "first\nsecond\nthird\n");
        assert_eq!(gate.dropped(), 0);
    }

    #[test]
    fn a_stalled_log_file_delays_nothing_and_lost_lines_are_counted() {
        let gate = Gate::stalled();
        let line = line(1024);
        for _ in 0..BUFFER_BYTES_MAX / line.len() + 7 {
            gate.output.push(&line);
        }
        gate.output.push(b"two\nlines\n");
        assert_eq!(gate.dropped(), 9);
    }

    #[test]
    fn once_a_stalled_log_resumes_one_line_counts_the_lost_lines() {
        let gate = Gate::stalled();
        gate.output.push(&line(BUFFER_BYTES_MAX));
        for _ in 0..3 {
            gate.output.push(b"lost\n");
        }
        gate.words.send(true).unwrap();
        // The writer has taken the line that filled the buffer.
        gate.began.recv().unwrap();
        gate.output.push(b"after\n");
        let text = gate.release(3);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.trim_start_matches('x'))
            .collect();
        assert_eq!(lines, ["first", "", "lost 3", "after"]);
    }

    #[test]
    fn a_broken_pipe_loses_lines_and_ends_nothing() {
        let gate = Gate::stalled();
        gate.output.push(b"second\nand more\n");
        // The first line, the summary for it, the second batch.
        for _ in 0..3 {
            gate.words.send(false).unwrap();
        }
        assert!(gate.output.flush(Instant::now() + LONG));
        assert_eq!((gate.text().as_str(), gate.dropped()), ("", 3));
        gate.output.push(b"third\n");
        assert_eq!(gate.release(2), "lost 3\nthird\n");
        gate.output.push(b"fourth\n");
        assert_eq!(gate.release(1), "lost 3\nthird\nfourth\n");
    }

    #[test]
    fn a_flush_waits_no_longer_than_until_its_deadline() {
        let gate = Gate::stalled();
        assert!(!gate.output.flush(Instant::now()));
        assert!(!gate.output.flush(Instant::now() + Duration::from_millis(1)));
    }
}
