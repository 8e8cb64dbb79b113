//! Extracts the fields of an ordinary message in one pass.
//!
//! Nearly all frames are plain: their names are ASCII without escapes, and so are the texts that the protocol reads, except
//! for letters. [`fields`] reads those faster than a general parser, and leaves all others, and everything that is not
//! valid, to it. So a text that it accepts must be one that the general parser and
//! [`check_rules`](super::json::check_rules) accept with the same fields; the tests compare them.

use memchr::memchr2;

use super::{
    JSON_DEPTH_MAX,
    fields::{Fields, Name, Text},
    json::NUMBER_CHARS_MAX,
};

/// The fields of the JSON object `json`; `None` if it is not a plain message.
pub(super) fn fields(json: &str) -> Option<Fields<'_>> {
    let mut scanner = Scanner { json, at: 0 };
    let mut fields = Fields::default();
    scanner.skip_space();
    scanner.expect(b'{')?;
    scanner.skip_space();
    let mut is_over = scanner.skip_if(b'}');
    while !is_over {
        let name = Name::of_plain(scanner.plain_string()?)?;
        scanner.skip_colon()?;
        scanner.field(name, &mut fields)?;
        scanner.skip_space();
        is_over = scanner.skip_if(b'}');
        if !is_over {
            scanner.expect(b',')?;
            scanner.skip_space();
        }
    }
    scanner.skip_space();
    (scanner.at == json.len()).then_some(fields)
}

/// A place in a JSON text.
struct Scanner<'a> {
    json: &'a str,
    at: usize,
}

/// The arrays and objects that are open, innermost last: a bit for each, which is 1 for an object.
#[derive(Default)]
struct OpenValues {
    kinds: u128,
    depth: usize,
}

impl OpenValues {
    /// The message itself is an open object, too.
    const DEPTH_MAX: usize = JSON_DEPTH_MAX - 1;

    fn open(&mut self, is_object: bool) -> Option<()> {
        self.kinds = self.kinds << 1 | u128::from(is_object);
        self.depth += 1;
        (self.depth <= Self::DEPTH_MAX).then_some(())
    }

    fn close(&mut self) {
        self.kinds >>= 1;
        self.depth -= 1;
    }

    fn is_in_object(&self) -> bool {
        self.kinds & 1 == 1
    }
}

impl<'a> Scanner<'a> {
    fn bytes(&self) -> &'a [u8] {
        self.json.as_bytes()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// Skips `byte` if it is next, and returns whether it was.
    fn skip_if(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Reads the value of the field called `name`.
    fn field(&mut self, name: Name, fields: &mut Fields<'a>) -> Option<()> {
        match fields.text(name) {
            Some(text) => {
                // A value of another kind is rare.
                *text = Text::String(self.plain_string()?.into());
            }
            None => {
                let start = self.at;
                self.skip_value()?;
                fields.set_json(name, &self.json[start..self.at]);
            }
        }
        Some(())
    }

    /// Reads a string without escapes.
    fn plain_string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        (self.skip_text()? == b'"').then(|| &self.json[start..self.at - 1])
    }

    /// Skips a string whose first quote has been read. Escapes of four digits are left to the general parser.
    fn skip_string(&mut self) -> Option<()> {
        while self.skip_text()? == b'\\' {
            match self.next()? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                _ => return None,
            }
        }
        Some(())
    }

    /// Skips the text of a string up to a quote or a backslash, and that as well. Returns it.
    fn skip_text(&mut self) -> Option<u8> {
        let rest = &self.bytes()[self.at..];
        let end = memchr2(b'"', b'\\', rest)?;
        self.at += end + 1;
        (!has_control(&rest[..end])).then_some(rest[end])
    }

    /// Skips a value of any kind.
    fn skip_value(&mut self) -> Option<()> {
        let mut open = OpenValues::default();
        loop {
            // A value begins here.
            match self.next()? {
                b'{' => {
                    open.open(true)?;
                    self.skip_space();
                    if !self.skip_if(b'}') {
                        self.skip_name()?;
                        continue;
                    }
                    open.close();
                }
                b'[' => {
                    open.open(false)?;
                    self.skip_space();
                    if !self.skip_if(b']') {
                        continue;
                    }
                    open.close();
                }
                b'"' => self.skip_string()?,
                b't' => self.skip_literal(b"rue")?,
                b'f' => self.skip_literal(b"alse")?,
                b'n' => self.skip_literal(b"ull")?,
                first => self.skip_number(first)?,
            }
            // A value ends here.
            loop {
                if open.depth == 0 {
                    return Some(());
                }
                self.skip_space();
                match (self.next()?, open.is_in_object()) {
                    (b',', true) => {
                        self.skip_space();
                        self.skip_name()?;
                        break;
                    }
                    (b',', false) => {
                        self.skip_space();
                        break;
                    }
                    (b'}', true) | (b']', false) => open.close(),
                    _ => return None,
                }
            }
        }
    }

    /// Skips a name in an object, up to its value.
    fn skip_name(&mut self) -> Option<()> {
        self.expect(b'"')?;
        self.skip_string()?;
        self.skip_colon()
    }

    /// Skips the colon between a name and its value.
    fn skip_colon(&mut self) -> Option<()> {
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Some(())
    }

    fn skip_literal(&mut self, rest: &[u8]) -> Option<()> {
        let found = self.bytes()[self.at..].starts_with(rest);
        self.at += rest.len();
        found.then_some(())
    }

    /// Skips a number that begins with `first`.
    fn skip_number(&mut self, first: u8) -> Option<()> {
        let start = self.at - 1;
        let leading = if first == b'-' { self.next()? } else { first };
        match leading {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.skip_if(b'.') {
            self.skip_some_digits()?;
        }
        if self.skip_if(b'e') || self.skip_if(b'E') {
            let _ = self.skip_if(b'+') || self.skip_if(b'-');
            self.skip_some_digits()?;
        }
        (self.at - start <= NUMBER_CHARS_MAX).then_some(())
    }

    fn skip_digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn skip_some_digits(&mut self) -> Option<()> {
        let start = self.at;
        self.skip_digits();
        (self.at > start).then_some(())
    }
}

/// Whether `text` has a character that a string must not contain unescaped. Reads all of it, because that takes fewer
/// instructions than to stop early.
fn has_control(text: &[u8]) -> bool {
    text.iter()
        .fold(false, |found, byte| found | (*byte < b' '))
}

#[cfg(test)]
mod tests;
