//! Parses streams of server-sent events.

/// An event: its name, which is empty if it has none, and its data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// The state of a stream. Events are complete at an empty line.
#[derive(Debug)]
pub(crate) struct EventStream {
    bytes_max: usize,
    line: Vec<u8>,
    /// Whether the last byte was a carriage return, to which a line feed may belong.
    has_returned: bool,
    name: String,
    data: Option<String>,
}

impl EventStream {
    /// Accepts events of up to `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            has_returned: false,
            name: String::new(),
            data: None,
        }
    }

    /// Takes the next bytes, and gives the events that they complete to `take`. Returns the size of an event that is too
    /// large.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(ServerEvent),
    ) -> Result<(), usize> {
        for &byte in bytes {
            let has_returned = std::mem::take(&mut self.has_returned);
            match byte {
                b'\n' if has_returned => {}
                b'\n' | b'\r' => {
                    self.has_returned = byte == b'\r';
                    if let Some(event) = self.end_line() {
                        take(event);
                    }
                }
                byte => self.line.push(byte),
            }
            let size = self.line.len() + self.data.as_ref().map_or(0, String::len);
            // The name of the field is not part of the data.
            if size > self.bytes_max.saturating_add("data: ".len()) {
                return Err(size);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Option<ServerEvent> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| ServerEvent { name, data });
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut self.data) {
            ("event", _) => value.clone_into(&mut self.name),
            ("data", Some(data)) => {
                data.push('\n');
                data.push_str(value);
            }
            ("data", data) => *data = Some(value.to_owned()),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]], bytes_max: usize) -> Result<Vec<(String, String)>, usize> {
        let mut stream = EventStream::new(bytes_max);
        let mut events = Vec::new();
        for piece in pieces {
            stream.feed(piece, |event| events.push((event.name, event.data)))?;
        }
        Ok(events)
    }

    #[test]
    fn events_are_the_same_however_their_bytes_arrive() {
        let text = "id: e:1\ndata: {\"a\":\"é\"}\n\n: \n\nevent: close\r\ndata:1\r\ndata: 2\r\n\r\ndata\r\rdata: cut";
        let expected = [("", "{\"a\":\"é\"}"), ("close", "1\n2"), ("", "")];
        let expected = expected.map(|(name, data)| (name.to_owned(), data.to_owned()));
        for size in 1..=text.len() {
            let pieces: Vec<_> = text.as_bytes().chunks(size).collect();
            assert_eq!(events(&pieces, 100).unwrap(), expected, "{size}");
        }
    }

    #[test]
    fn an_event_over_the_limit_is_an_error() {
        assert!(events(&[b"data: 12345\n\n"], 5).is_ok());
        assert!(events(&[b"data: 123456\n\n"], 5).is_err());
        assert!(events(&[b"data: 123\n", b"data: 456\n\n"], 5).is_err());
    }
}
