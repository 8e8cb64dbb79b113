//! Chooses the scrape format that a client accepts (RFC 9110 §12.5.1).

use super::prometheus::Format;

/// A format as a media range names it.
struct MediaType {
    kind: &'static str,
    subtype: &'static str,
    version: &'static str,
}

impl Format {
    /// Returns the format for these `Accept` headers: the one with the higher quality, of equal ones the one that is
    /// named more specifically, otherwise the text format. A client that sends no header or accepts neither format gets
    /// one that it did not refuse with `q=0`.
    pub fn wanted(accept: &[&str]) -> Self {
        let wish = |format: Self| {
            let ranges = accept.iter().flat_map(|header| split(header, ','));
            let named = ranges.filter_map(|range| format.media_type().named_by(range));
            // The most specific range counts; of two equally specific ones, the first.
            named.reduce(|best, next| if next.0 > best.0 { next } else { best })
        };
        let (text, open_metrics) = (wish(Self::Text), wish(Self::OpenMetrics));
        let rank = |wish: Option<(RangeCloseness, u16)>| match wish {
            Some((closeness, quality)) if quality > 0 => (2, quality, Some(closeness)),
            Some(_) => (0, 0, None),
            None => (1, 0, None),
        };
        if rank(open_metrics) > rank(text) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    const fn media_type(self) -> MediaType {
        match self {
            Self::OpenMetrics => MediaType {
                kind: "application",
                subtype: "openmetrics-text",
                version: "1.0.0",
            },
            Self::Text => MediaType {
                kind: "text",
                subtype: "plain",
                version: "0.0.4",
            },
        }
    }
}

/// How specifically a media range names a format; a greater value is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RangeCloseness {
    Any,
    Kind,
    Type,
    Version,
}

impl MediaType {
    /// How specifically `range` names this type, and its quality in thousandths. `None` if it does not match or is
    /// malformed.
    fn named_by(&self, range: &str) -> Option<(RangeCloseness, u16)> {
        let mut parts = split(range, ';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut closeness = match (kind, subtype) {
            ("*", "*") => RangeCloseness::Any,
            (kind, "*") if kind.eq_ignore_ascii_case(self.kind) => RangeCloseness::Kind,
            (kind, subtype)
                if kind.eq_ignore_ascii_case(self.kind)
                    && subtype.eq_ignore_ascii_case(self.subtype) =>
            {
                RangeCloseness::Type
            }
            _ => return None,
        };
        let mut quality = 1000;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = thousandths(value)?,
                // Another version is another format.
                "version" if value != self.version => return None,
                "version" => closeness = RangeCloseness::Version,
                _ => {}
            }
        }
        Some((closeness, quality))
    }
}

/// Parses a quality, 0 to 1 with at most three decimals, into thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = decimals.bytes().all(|digit| digit.is_ascii_digit());
    if !matches!(whole, "0" | "1") || decimals.len() > 3 || !are_digits {
        return None;
    }
    let thousandths: u16 = format!("{whole}{decimals:0<3}").parse().ok()?;
    (thousandths <= 1000).then_some(thousandths)
}

/// Splits `text` at the separators outside quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &str) -> Format {
        Format::wanted(&[accept])
    }

    #[test]
    fn prometheus_gets_open_metrics_and_everybody_else_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(wanted(prometheus), Format::OpenMetrics);
        for accept in [
            "",
            "*/*",
            "text/html,*/*;q=0.8",
            "application/json",
            "nonsense",
            "text/plain",
        ] {
            assert_eq!(wanted(accept), Format::Text, "{accept}");
        }
        assert_eq!(Format::wanted(&[]), Format::Text);
    }

    #[test]
    fn a_quality_of_0_refuses_a_format() {
        for accept in [
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.000, */*",
            "application/openmetrics-text; Q=0 ,text/plain;q=0.001",
            "application/openmetrics-text;version=1.0.0;q=0,application/openmetrics-text",
            "application/*;q=0,*/*",
        ] {
            assert_eq!(wanted(accept), Format::Text, "{accept}");
        }
        for accept in [
            "text/plain;q=0",
            "text/plain;q=0,*/*;q=0.1",
            "text/*;q=0,application/openmetrics-text;q=0.001",
        ] {
            assert_eq!(wanted(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn another_version_is_another_format() {
        for accept in [
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text; version=\"2.0.0\", text/plain;q=0.1",
            "application/openmetrics-text;version=0.0.1",
        ] {
            assert_eq!(wanted(accept), Format::Text, "{accept}");
        }
        assert_eq!(
            wanted(
                "application/openmetrics-text;version=2.0.0,application/openmetrics-text;version=1.0.0;q=0.1"
            ),
            Format::OpenMetrics
        );
        assert_eq!(
            wanted("text/plain;version=1.0.0,application/openmetrics-text;q=0.1"),
            Format::OpenMetrics
        );
    }

    #[test]
    fn the_greater_quality_wins_and_of_equal_ones_the_closer_name() {
        for accept in [
            "application/openmetrics-text;q=0.4,text/plain;q=0.5",
            "application/openmetrics-text;q=0.1,*/*",
            "application/openmetrics-text,text/plain",
        ] {
            assert_eq!(wanted(accept), Format::Text, "{accept}");
        }
        for accept in [
            "text/plain;q=0.4,application/openmetrics-text;q=0.5",
            "*/*,application/openmetrics-text",
            "APPLICATION/OpenMetrics-Text ; Version=1.0.0 , text/plain",
            "text/html;a=\"x, text/plain\",application/openmetrics-text",
        ] {
            assert_eq!(wanted(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn a_malformed_quality_makes_a_range_void() {
        for quality in ["2", "-0", "1.001", "0.0001", "x", "", "0.5.5", ".5"] {
            let accept = format!("application/openmetrics-text;q={quality}");
            assert_eq!(wanted(&accept), Format::Text, "{accept}");
        }
    }

    #[test]
    fn several_headers_are_one_list() {
        let headers = ["text/plain;q=0.1", "application/openmetrics-text"];
        assert_eq!(Format::wanted(&headers), Format::OpenMetrics);
    }
}
