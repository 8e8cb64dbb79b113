//! Finds, checks and cleans the text of a message.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use signalbox_plugin::{Message, Rejection, payload};

/// The maximum length of a blocked word, in characters.
const WORD_CHARS_MAX: usize = 64;

/// A payload and the text in it, if there is one: a string, or the `text` of an object.
pub(crate) struct Payload<'p> {
    json: &'p str,
    /// The JSON of the text, as a part of `json`, and its decoded value.
    text: Option<(&'p str, Cow<'p, str>)>,
}

impl<'p> Payload<'p> {
    /// Reads the payload of `message`. JSON of another shape is a payload without a text.
    ///
    /// # Errors
    /// Returns a rejection if the payload is not JSON, or if receivers could read it differently than this plugin.
    pub(crate) fn read(message: &'p Message) -> Result<Self, Rejection> {
        let json = message.payload.trim();
        let raw = match json.as_bytes().first() {
            Some(b'"') if is_plain_string(json) => Some(json),
            // Without escapes, the only ambiguity that matters is a second field `text`, which is faster to check.
            Some(b'{') if !json.contains('\\') => text_field(json)?,
            // Neither an object nor a string, and no escapes: nothing that this plugin checks is ambiguous.
            Some(first) if *first != b'"' && !json.contains('\\') => {
                serde_json::from_str::<IgnoredAny>(json).map_err(|_| unreadable())?;
                None
            }
            Some(first) => {
                payload::check(message)?;
                match first {
                    b'"' => Some(json),
                    b'{' => text_field(json)?,
                    _ => None,
                }
            }
            None => return Err(unreadable()),
        };
        let text = match raw {
            Some(raw) if raw.starts_with('"') => Some((raw, string(raw).ok_or_else(unreadable)?)),
            _ => None,
        };
        Ok(Self { json, text })
    }

    /// Returns the text, if there is one.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_ref().map(|(_, text)| &**text)
    }

    /// Returns the payload with a new text and every other byte unchanged.
    pub(crate) fn with_text(&self, text: &str) -> String {
        let Some((old, _)) = &self.text else {
            return self.json.to_owned();
        };
        self.json_with(std::iter::once((*old, to_json(text))))
    }

    /// Returns the payload with some parts replaced by other JSON. The parts must be in order.
    fn json_with(&self, parts: impl Iterator<Item = (&'p str, String)>) -> String {
        let mut json = String::with_capacity(self.json.len());
        let mut written = 0;
        for (old, new) in parts {
            let start = old.as_ptr() as usize - self.json.as_ptr() as usize;
            json += &self.json[written..start];
            json += &new;
            written = start + old.len();
        }
        json + &self.json[written..]
    }

    /// Iterates over all string values at any depth: the JSON and the decoded value of each.
    fn strings(&self) -> impl Iterator<Item = (&'p str, Cow<'p, str>)> {
        let mut rest = self.json;
        std::iter::from_fn(move || {
            loop {
                let opening = &rest[rest.find('"')?..];
                let raw = &opening[..end_of_string(opening)?];
                rest = opening[raw.len()..].trim_start();
                if !rest.starts_with(':') {
                    return Some((raw, string(raw)?));
                }
            }
        })
    }

    fn is_text(&self, raw: &str) -> bool {
        let text = self.text.as_ref();
        text.is_some_and(|(text, _)| std::ptr::eq(text.as_ptr(), raw.as_ptr()))
    }
}

fn unreadable() -> Rejection {
    Rejection::new("invalid_payload", "the payload is not JSON")
}

/// Encodes a string as JSON, which cannot fail.
fn to_json(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Whether `json` is a string without escapes.
fn is_plain_string(json: &str) -> bool {
    !json.contains('\\')
        && end_of_string(json) == Some(json.len())
        && !json.bytes().any(|byte| byte < b' ')
}

/// Returns the end of the string that `json` begins with.
fn end_of_string(json: &str) -> Option<usize> {
    let mut escaped = false;
    let end = json.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some(end + 2)
}

/// Returns the JSON of an object's field `text`.
fn text_field(json: &str) -> Result<Option<&str>, Rejection> {
    let field = serde_json::from_str::<TextField<'_>>(json).map_err(|_| unreadable())?;
    if field.twice {
        let reason = "the payload has an object with the same key twice";
        return Err(Rejection::new("invalid_payload", reason));
    }
    Ok(field.text.map(RawValue::get))
}

/// Decodes the JSON string `raw`. Borrows if it has no escape.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// The field called `text` of an object.
struct TextField<'p> {
    text: Option<&'p RawValue>,
    /// Whether there is more than one such field.
    twice: bool,
}

impl<'de> Deserialize<'de> for TextField<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = TextField<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let (mut text, mut twice) = (None, false);
                while let Some(IsText(is_text)) = map.next_key()? {
                    if is_text {
                        twice |= text.is_some();
                        text = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(TextField { text, twice })
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Whether the name of a field is `text`. This type avoids allocating the name as a string.
struct IsText(bool);

impl<'de> Deserialize<'de> for IsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = IsText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E>(self, name: &str) -> Result<IsText, E> {
                Ok(IsText(name == "text"))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

/// Checks and cleans texts.
pub(crate) struct Cleaner {
    chars_max: usize,
    blocked: HashSet<String>,
    refuse_blocked: bool,
}

impl Cleaner {
    pub(crate) fn new(chars_max: usize, blocked: &[String], refuse_blocked: bool) -> Self {
        Self {
            chars_max,
            blocked: blocked.iter().map(|word| word.to_lowercase()).collect(),
            refuse_blocked,
        }
    }

    /// Checks whether the text may be sent.
    pub(crate) fn check(&self, text: &str) -> Result<(), Rejection> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(Rejection::new("blank", "the text is blank"));
        }
        // A text has at most as many characters as bytes.
        if trimmed.len() > self.chars_max && trimmed.chars().count() > self.chars_max {
            let reason = format!("the text is longer than {} characters", self.chars_max);
            return Err(Rejection::new("too_long", reason));
        }
        if self.refuse_blocked {
            self.check_words(text)?;
        }
        Ok(())
    }

    /// Checks that no other string in the payload contains a blocked word, if blocked words are refused.
    pub(crate) fn check_others(&self, payload: &Payload<'_>) -> Result<(), Rejection> {
        if self.blocked.is_empty() || !self.refuse_blocked {
            return Ok(());
        }
        let mut others = payload.strings().filter(|(raw, _)| !payload.is_text(raw));
        others.try_for_each(|(_, text)| self.check_words(&text))
    }

    fn check_words(&self, text: &str) -> Result<(), Rejection> {
        if self.has_blocked(text) {
            return Err(Rejection::new(
                "blocked_word",
                "the text contains a blocked word",
            ));
        }
        Ok(())
    }

    fn has_blocked(&self, text: &str) -> bool {
        words(text).any(|(_, word)| self.is_blocked(word))
    }

    /// Returns the payload with its text cleaned and with blocked words masked in all strings. None if nothing changes.
    pub(crate) fn cleaned(&self, payload: &Payload<'_>) -> Option<String> {
        let text = payload.text().and_then(|text| self.clean(text));
        if self.blocked.is_empty() || self.refuse_blocked {
            return text.map(|text| payload.with_text(&text));
        }
        let mut changed = payload
            .strings()
            .filter_map(|(raw, said)| {
                let new = if payload.is_text(raw) {
                    text.clone()?
                } else if self.has_blocked(&said) {
                    self.masked(&said)
                } else {
                    return None;
                };
                Some((raw, to_json(&new)))
            })
            .peekable();
        changed.peek()?;
        Some(payload.json_with(changed))
    }

    /// Returns the cleaned text. None if it is clean already.
    pub(crate) fn clean(&self, text: &str) -> Option<String> {
        let trimmed = text.trim();
        let mut cleaned = Cow::Borrowed(trimmed);
        if !is_plain(trimmed) && trimmed.chars().any(is_unwanted) {
            let kept: String = trimmed.chars().filter(|c| !is_unwanted(*c)).collect();
            cleaned = Cow::Owned(kept.trim().to_owned());
        }
        if !self.blocked.is_empty() && !self.refuse_blocked && self.has_blocked(&cleaned) {
            cleaned = Cow::Owned(self.masked(&cleaned));
        }
        match cleaned {
            Cow::Borrowed(same) if same.len() == text.len() => None,
            cleaned => Some(cleaned.into_owned()),
        }
    }

    fn masked(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut written = 0;
        for (start, word) in words(text).filter(|(_, word)| self.is_blocked(word)) {
            out.push_str(&text[written..start]);
            out.extend(word.chars().map(|_| '*'));
            written = start + word.len();
        }
        out.push_str(&text[written..]);
        out
    }

    fn is_blocked(&self, word: &str) -> bool {
        !self.blocked.is_empty() && self.blocked.contains(&word.to_lowercase())
    }
}

/// Whether `c` is a control character other than a newline or a tab.
fn is_unwanted(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

/// Whether the text is printable ASCII. Most texts are, and the check is fast.
fn is_plain(text: &str) -> bool {
    // Without an early exit inside a chunk, the compiler can check several bytes at once.
    text.as_bytes().chunks(16).all(|piece| {
        piece
            .iter()
            .fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
    })
}

/// Returns the runs of letters and digits, with their offsets.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

/// Whether `word` can be a blocked word: 1 to 64 letters and digits.
pub(crate) fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word.chars().count() <= WORD_CHARS_MAX
        && word.chars().all(char::is_alphanumeric)
}
