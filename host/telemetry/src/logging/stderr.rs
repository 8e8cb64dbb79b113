//! Standard error as a file.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use rustix::event::{PollFd, PollFlags, poll};

/// A copy of the descriptor. Writing to it takes no lock that others wait for when they print, and loses no lines if
/// another process has made the same pipe or terminal non-blocking.
pub(super) fn open() -> io::Result<impl Write + Send> {
    let copy = io::stderr().as_fd().try_clone_to_owned()?;
    Ok(Patient(File::from(copy)))
}

/// Waits until the file can be written to.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, thread};

    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;

    #[test]
    fn a_pipe_that_does_not_block_loses_nothing() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut file = Patient(File::from(std::os::fd::OwnedFd::from(writer)));
        fcntl_setfl(&file.0, OFlags::NONBLOCK).expect("it is a pipe");
        // More than a pipe can hold.
        let bytes = vec![b'x'; 1 << 20];
        let read = thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all.len())
        });
        file.write_all(&bytes).expect("the reader reads");
        drop(file);
        assert_eq!(read.join().unwrap().unwrap(), bytes.len());
    }
}
