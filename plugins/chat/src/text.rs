//! The text of a message: where it is in a payload, what it may be, and how it is cleaned.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use signalbox_plugin::{Message, Rejection, payload};

/// Longest blocked word, in characters.
const WORD_CHARS_MAX: usize = 64;

/// A payload, and the text in it, if it has one: a string, or the `text` of an object.
pub(crate) struct Payload<'p> {
    json: &'p str,
    /// Where the text's JSON stands, and what it says.
    text: Option<(&'p str, Cow<'p, str>)>,
}

impl<'p> Payload<'p> {
    /// JSON of another shape is a payload without a text.
    ///
    /// # Errors
    /// Where it cannot be read, or receivers could read another text in it than this plugin: the refusal for its sender.
    pub(crate) fn read(message: &'p Message) -> Result<Self, Rejection> {
        let json = message.payload.trim();
        let raw = match json.as_bytes().first() {
            Some(b'"') if is_plain_string(json) => Some(json),
            // Where nothing is escaped, only the field `text` could be there twice: that is quicker to see.
            Some(b'{') if !json.contains('\\') => text_field(json)?,
            // Nothing in it has a name or an escape that others could read differently.
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

    /// What it says.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_ref().map(|(_, text)| &**text)
    }

    /// The payload with another text; every other byte stays.
    pub(crate) fn with_text(&self, text: &str) -> String {
        let Some((old, _)) = &self.text else {
            return self.json.to_owned();
        };
        self.json_with(std::iter::once((*old, to_json(text))))
    }

    /// The payload with other JSON in the place of parts of it, which come in their order.
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

    /// The strings that are values in it, wherever they stand, with the JSON of each.
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

/// A str always serializes.
fn to_json(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Whether `json` is a string as it stands, without an escape.
fn is_plain_string(json: &str) -> bool {
    !json.contains('\\')
        && end_of_string(json) == Some(json.len())
        && !json.bytes().any(|byte| byte < b' ')
}

/// Where the string that `json` begins with ends.
fn end_of_string(json: &str) -> Option<usize> {
    let mut escaped = false;
    let end = json.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some(end + 2)
}

/// The JSON of an object's field `text`.
fn text_field(json: &str) -> Result<Option<&str>, Rejection> {
    let field = serde_json::from_str::<TextField<'_>>(json).map_err(|_| unreadable())?;
    if field.twice {
        let reason = "the payload has an object with the same key twice";
        return Err(Rejection::new("invalid_payload", reason));
    }
    Ok(field.text.map(RawValue::get))
}

/// The JSON string `raw`; borrowed where it holds no escape.
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
    /// Whether there is more than one.
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

/// Whether the name of a field is `text`. Its own type, because a name as a string would be allocated.
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

    /// Whether the text may be sent.
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

    /// Whether none of the other texts in a payload, in whatever place a client has put them, has a word that is refused.
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

    /// The payload with its text cleaned, and with blocked words masked in all texts; none where it is clean.
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

    /// The cleaned text; none where it is clean.
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

/// A control character other than those that lay a text out.
fn is_unwanted(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

/// Whether the text is printable ASCII, which most texts are and which is quick to see.
fn is_plain(text: &str) -> bool {
    // Without a way out in the middle of a piece, several bytes are looked at in one step.
    text.as_bytes().chunks(16).all(|piece| {
        piece
            .iter()
            .fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
    })
}

/// Runs of letters and digits, with where they start.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

/// Whether it can be found as a word in a text.
pub(crate) fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word.chars().count() <= WORD_CHARS_MAX
        && word.chars().all(char::is_alphanumeric)
}
