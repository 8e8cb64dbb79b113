//! Patterns for JSON values, as cases write them.

use serde_json::Value;

/// Whether `value` matches `pattern`: it has at least the fields of a pattern that is an object, and equals any other
/// pattern. Special objects are `{"$between":[a,b]}`, `{"$absent":true}` (absent or null), `{"$some":true}` (neither),
/// `{"$contains":"text"}`, `{"$unlike":"text"}` (a text without it), `{"$in":[…]}`.
pub(super) fn matches(pattern: &Value, value: &Value) -> bool {
    let Value::Object(fields) = pattern else {
        return match pattern {
            Value::Array(items) => value.as_array().is_some_and(|values| {
                items.len() == values.len() && items.iter().zip(values).all(|(a, b)| matches(a, b))
            }),
            _ => pattern == value,
        };
    };
    fields.iter().all(|(name, wanted)| match name.as_str() {
        "$between" => is_between(wanted, value),
        "$absent" => value.is_null(),
        "$some" => !value.is_null(),
        "$contains" => contains(value, wanted),
        "$unlike" => !contains(value, wanted),
        "$in" => wanted
            .as_array()
            .is_some_and(|any| any.iter().any(|one| matches(one, value))),
        _ => matches(wanted, value.get(name).unwrap_or(&Value::Null)),
    })
}

fn contains(value: &Value, part: &Value) -> bool {
    match (value.as_str(), part.as_str()) {
        (Some(text), Some(part)) => text.contains(part),
        _ => false,
    }
}

fn is_between(bounds: &Value, value: &Value) -> bool {
    match (bounds[0].as_f64(), bounds[1].as_f64(), value.as_f64()) {
        (Some(low), Some(high), Some(number)) => (low..=high).contains(&number),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_may_have_more_fields_than_its_pattern() {
        let value = json!({"a": 1, "b": {"c": [1, 2]}});
        assert!(matches(&json!({"b": {"c": [1, 2]}}), &value));
        assert!(!matches(&json!({"b": {"c": [1]}}), &value));
        assert!(!matches(&json!({"d": 1}), &value));
    }

    #[test]
    fn special_patterns_describe_a_value() {
        let value = json!({"n": 5, "t": "hello"});
        for (pattern, expected) in [
            (json!({"n": {"$between": [0, 5]}}), true),
            (json!({"n": {"$between": [6, 9]}}), false),
            (json!({"x": {"$absent": true}}), true),
            (json!({"n": {"$absent": true}}), false),
            (json!({"n": {"$some": true}}), true),
            (json!({"t": {"$contains": "ell"}}), true),
            (json!({"t": {"$unlike": "ell"}}), false),
            (json!({"t": {"$in": ["a", "hello"]}}), true),
        ] {
            assert_eq!(matches(&pattern, &value), expected, "{pattern}");
        }
    }
}
