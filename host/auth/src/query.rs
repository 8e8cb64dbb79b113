//! Parameters of a query string, as browsers write them (`application/x-www-form-urlencoded`).

/// A parameter that is present, but whose bytes are not UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

/// The first parameter with exactly this name, decoded. A `%` that is not followed by two hex digits stands for itself.
pub(super) fn parameter(query: &str, name: &str) -> Option<Result<String, NotUtf8>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name.as_bytes())
            .then(|| String::from_utf8(decode(value)).map_err(|_| NotUtf8))
    })
}

fn decode(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_found_by_name_and_decoded() {
        let get = |query: &str| parameter(query, "userId").map(|value| value.expect("UTF-8"));
        assert_eq!(get("userId=anna").as_deref(), Some("anna"));
        assert_eq!(
            get("a=1&userId=a%20b+c%C3%A4&userId=other").as_deref(),
            Some("a b cä")
        );
        assert_eq!(get("user%49d=x").as_deref(), Some("x"));
        assert_eq!(get("userId").as_deref(), Some(""));
        assert_eq!(get("userId=100%").as_deref(), Some("100%"));
        assert_eq!(get("userid=x&UserId=y"), None);
        assert_eq!(get(""), None);
        assert_eq!(parameter("userId=%ff", "userId"), Some(Err(NotUtf8)));
    }

    proptest! {
        #[test]
        fn any_query_is_read(query: String) {
            let _ = parameter(&query, "userId");
        }

        #[test]
        fn an_encoded_value_reads_back(value: String) {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(parameter(&format!("userId={encoded}"), "userId"), Some(Ok(value)));
        }
    }
}
