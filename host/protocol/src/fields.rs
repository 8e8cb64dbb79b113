//! The fields of a message, and the general parser that extracts them from JSON.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

/// The fields that the protocol knows.
///
/// Names match in any case, and the last of two fields with the same name counts, as in Go's `encoding/json`, which the
/// clients and workers of `websocket-app` expect. Unknown fields are ignored.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) event_type: Text<'a>,
    /// JSON text.
    pub(super) payload: Option<&'a str>,
    pub(super) receiver: Text<'a>,
    pub(super) sender: Text<'a>,
    pub(super) timestamp: Text<'a>,
    pub(super) room: Text<'a>,
    pub(super) id: Text<'a>,
    pub(super) message_id: Text<'a>,
    /// JSON text.
    pub(super) once: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Parses the JSON object `json`. Checks the syntax, but no [other rule for JSON](super::json::check_rules).
    ///
    /// # Errors
    /// Returns why it is not an object, for people.
    pub(super) fn parse(json: &'a str) -> Result<Self, String> {
        let mut fields = Self::default();
        if fields.fill::<Text<'a>>(json).is_ok() {
            return Ok(fields);
        }
        // `1e999` and half of a surrogate pair are errors only if they are read.
        fields = Self::default();
        match fields.fill::<Unread<'a>>(json) {
            Ok(()) => Ok(fields),
            Err(error) if error.classify() == Category::Data => {
                Err("it is not a JSON object".to_owned())
            }
            Err(error) => Err(format!("it is not valid JSON: {error}")),
        }
    }

    /// The text that the field `name` holds; `None` if it holds none.
    pub(super) fn text(&mut self, name: Name) -> Option<&mut Text<'a>> {
        Some(match name {
            Name::Type => &mut self.event_type,
            Name::Receiver => &mut self.receiver,
            Name::Sender => &mut self.sender,
            Name::Timestamp => &mut self.timestamp,
            Name::Room => &mut self.room,
            Name::Id => &mut self.id,
            Name::MessageId => &mut self.message_id,
            Name::Payload | Name::Once | Name::Other => return None,
        })
    }

    /// Sets the field `name` to the JSON text `json`, if it is one that is kept as JSON.
    pub(super) fn set_json(&mut self, name: Name, json: &'a str) {
        match name {
            Name::Payload => self.payload = Some(json),
            Name::Once if json != "null" => self.once = Some(json),
            _ => {}
        }
    }

    /// Parses `json`, reading each text by way of `T`.
    fn fill<T: Deserialize<'a> + Into<Text<'a>>>(
        &mut self,
        json: &'a str,
    ) -> serde_json::Result<()> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        deserializer.deserialize_map(Filler(self, PhantomData::<T>))?;
        deserializer.end()
    }
}

/// The value of a field that holds, or should hold, a text; borrowed if it contains no escape.
#[derive(Debug, Default)]
pub(super) enum Text<'a> {
    /// The field is missing or `null`.
    #[default]
    Absent,
    String(Cow<'a, str>),
    /// The value is of another kind, or not Unicode.
    Other,
}

/// A field's value is not a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WrongKind;

impl<'a> Text<'a> {
    /// The text; `None` if it is missing, `null` or empty, which is how a Go client omits a field.
    pub(super) fn read(self) -> Result<Option<Cow<'a, str>>, WrongKind> {
        match self {
            Self::Absent => Ok(None),
            Self::String(text) => Ok((!text.is_empty()).then_some(text)),
            Self::Other => Err(WrongKind),
        }
    }

    /// A `null` changes nothing, as in Go.
    fn set(&mut self, value: Self) {
        if !matches!(value, Self::Absent) {
            *self = value;
        }
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text::String(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text::String(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Text::Absent)
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Text::Other)
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Text::Other)
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Text::Other)
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Text::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                IgnoredAny.visit_seq(seq).map(|_| Text::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                IgnoredAny.visit_map(map).map(|_| Text::Other)
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// The same value, parsed only once the whole object is known to be JSON.
#[derive(Deserialize)]
#[serde(transparent)]
struct Unread<'a>(#[serde(borrow)] &'a RawValue);

impl<'a> From<Unread<'a>> for Text<'a> {
    fn from(Unread(value): Unread<'a>) -> Self {
        serde_json::from_str(value.get()).unwrap_or(Text::Other)
    }
}

/// Assigns the fields of an object; texts are read by way of `T`.
struct Filler<'f, 'a, T>(&'f mut Fields<'a>, PhantomData<T>);

impl<'de, T: Deserialize<'de> + Into<Text<'de>>> Visitor<'de> for Filler<'_, 'de, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let fields = self.0;
        while let Some(name) = map.next_key::<Name>()? {
            match (fields.text(name), name) {
                (Some(text), _) => text.set(map.next_value::<T>()?.into()),
                (None, Name::Payload | Name::Once) => {
                    fields.set_json(name, map.next_value::<&RawValue>()?.get());
                }
                (None, _) => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The field that a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Type,
    Payload,
    Receiver,
    Sender,
    Timestamp,
    Room,
    Id,
    MessageId,
    Once,
    Other,
}

impl Name {
    fn of(name: &[u8]) -> Self {
        if name.is_ascii() {
            return Self::of_ascii(name);
        }
        // The only letter outside ASCII that Go treats as a letter of a known name.
        let folded = String::from_utf8_lossy(name).replace('ſ', "s");
        Self::of_ascii(folded.as_bytes())
    }

    /// The field that `name` names; `None` if it has letters outside ASCII, which [`Self::of`] folds.
    pub(super) fn of_plain(name: &str) -> Option<Self> {
        name.is_ascii().then(|| Self::of_ascii(name.as_bytes()))
    }

    fn of_ascii(name: &[u8]) -> Self {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"type") => Self::Type,
            7 if is(b"payload") => Self::Payload,
            10 if is(b"receiverid") => Self::Receiver,
            8 if is(b"senderid") => Self::Sender,
            9 if is(b"timestamp") => Self::Timestamp,
            4 if is(b"room") => Self::Room,
            2 if is(b"id") => Self::Id,
            9 if is(b"messageid") => Self::MessageId,
            4 if is(b"once") => Self::Once,
            _ => Self::Other,
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_bytes<E: de::Error>(self, name: &[u8]) -> Result<Name, E> {
                Ok(Name::of(name))
            }
        }
        // Read as bytes, so that half of a surrogate pair in a name does not hide the other fields.
        deserializer.deserialize_bytes(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        for (name, field) in [
            ("type", Name::Type),
            ("TYPE", Name::Type),
            ("receiverID", Name::Receiver),
            ("receiverid", Name::Receiver),
            ("SenderId", Name::Sender),
            ("ſenderId", Name::Sender),
            ("timeſtamp", Name::Timestamp),
            ("meſſageID", Name::MessageId),
            ("receiver_id", Name::Other),
            ("typé", Name::Other),
            ("", Name::Other),
        ] {
            assert_eq!(Name::of(name.as_bytes()), field, "{name}");
        }
    }

    #[test]
    fn a_later_null_and_an_unpaired_surrogate_in_a_name_hide_no_value() {
        let fields =
            Fields::parse(r#"{"receiverID":"a","receiverId":null,"\ud83d":1,"id":"\u0062"}"#)
                .unwrap();
        assert_eq!(fields.receiver.read(), Ok(Some("a".into())));
        assert_eq!(fields.id.read(), Ok(Some("b".into())));
    }

    #[test]
    fn a_text_is_a_string() {
        let read = |json: &str| {
            let text = format!(r#"{{"room":{json}}}"#);
            let fields = Fields::parse(&text).unwrap();
            fields.room.read().map(|text| text.map(Cow::into_owned))
        };
        assert_eq!(read("null"), Ok(None));
        assert_eq!(read(r#""""#), Ok(None));
        assert_eq!(read(r#""\"""#), Ok(Some("\"".to_owned())));
        for wrong in ["5", "1e999", "true", "[]", r#"{"a":"b"}"#, r#""\ud83d""#] {
            assert_eq!(read(wrong), Err(WrongKind), "{wrong}");
        }
    }
}
