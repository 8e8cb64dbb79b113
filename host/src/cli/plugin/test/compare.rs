//! Compares expected and found values, field by field.

use serde_json::Value;

/// The names of the fields that must be equal as a whole. In other objects only the fields that are expected count.
const EXACT: [&str; 2] = ["payload", "data"];

/// A field that differs from its expected value.
#[derive(Debug, PartialEq)]
pub(super) struct FieldDifference {
    /// Path of the field, for example `actions[0].send.payload.text`.
    pub(super) path: String,
    /// `None` if the field should not be there.
    pub(super) expected: Option<Value>,
    /// `None` if the field is not there.
    pub(super) found: Option<Value>,
}

/// Returns all differences between `expected` and `found`, in the order of `expected`.
pub(super) fn differences(expected: &Value, found: &Value) -> Vec<FieldDifference> {
    let mut found_out = Vec::new();
    compare(expected, found, "", false, &mut found_out);
    found_out
}

fn compare(
    expected: &Value,
    found: &Value,
    path: &str,
    exact: bool,
    differences: &mut Vec<FieldDifference>,
) {
    let mut differ = |path: String, expected: Option<&Value>, found: Option<&Value>| {
        differences.push(FieldDifference {
            path,
            expected: expected.cloned(),
            found: found.cloned(),
        });
    };
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            if exact {
                let surplus = found
                    .iter()
                    .filter(|(name, _)| !expected.contains_key(*name));
                surplus.for_each(|(name, value)| differ(below(path, name), None, Some(value)));
            }
            for (name, expected) in expected {
                let path = below(path, name);
                match found.get(name) {
                    Some(found) => {
                        let exact = exact || EXACT.contains(&name.as_str());
                        compare(expected, found, &path, exact, differences);
                    }
                    None => differences.push(FieldDifference {
                        path,
                        expected: Some(expected.clone()),
                        found: None,
                    }),
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            for index in 0..expected.len().max(found.len()) {
                let path = format!("{path}[{index}]");
                match (expected.get(index), found.get(index)) {
                    (Some(expected), Some(found)) => {
                        compare(expected, found, &path, exact, differences);
                    }
                    (expected, found) => differences.push(FieldDifference {
                        path,
                        expected: expected.cloned(),
                        found: found.cloned(),
                    }),
                }
            }
        }
        (expected, found) if expected == found => {}
        (expected, found) => differ(path.to_owned(), Some(expected), Some(found)),
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(expected: Value, found: Value) -> Vec<String> {
        let differences = differences(&expected, &found);
        differences
            .into_iter()
            .map(|difference| difference.path)
            .collect()
    }

    #[test]
    fn outside_the_payload_only_expected_fields_are_compared() {
        let found = json!({"delivered": {"type": "a", "receiver": "u", "payload": {"x": 1}}});
        assert!(paths(json!({"delivered": {}}), found.clone()).is_empty());
        assert!(paths(json!({"delivered": {"type": "a"}}), found.clone()).is_empty());
        assert_eq!(
            paths(
                json!({"delivered": {"type": "b", "room": "r"}}),
                found.clone()
            ),
            ["delivered.room", "delivered.type"]
        );
        assert_eq!(
            paths(json!({"delivered": {"payload": {}}}), found.clone()),
            ["delivered.payload.x"]
        );
        assert_eq!(paths(json!({"dropped": true}), found), ["dropped"]);
        let found = json!({"replied": {"data": {"x": 1}, "actions": []}});
        assert!(paths(json!({"replied": {"data": {"x": 1}}}), found.clone()).is_empty());
        assert_eq!(
            paths(json!({"replied": {"data": {}}}), found),
            ["replied.data.x"]
        );
    }

    #[test]
    fn lists_are_compared_in_order_and_to_the_end() {
        let found = json!({"actions": [{"join": "a"}, {"join": "b"}]});
        assert!(paths(found.clone(), found.clone()).is_empty());
        assert_eq!(
            paths(json!({"actions": [{"join": "b"}]}), found.clone()),
            ["actions[0].join", "actions[1]"]
        );
        assert_eq!(paths(json!({"actions": 1}), found), ["actions"]);
    }
}
