//! The OpenAPI descriptions of the APIs: 3.1, which uses the schemas of JSON Schema 2020-12. Tests compare each with its router and
//! with real responses.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

/// The response with a description.
pub(super) fn response(description: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], description).into_response()
}

/// What the tests of both descriptions check.
#[cfg(test)]
pub(super) mod checks {
    use std::collections::BTreeSet;

    use axum::http::Method;
    use serde_json::Value;

    /// Checks that `description` describes `calls` and nothing else.
    pub(in crate::http) fn describes(
        description: &str,
        calls: impl Iterator<Item = (Method, &'static str)>,
    ) {
        let description = parse(description);
        let described: BTreeSet<(String, String)> = methods(&description)
            .map(|(method, path, _)| (method.to_uppercase(), path.to_owned()))
            .collect();
        let routed = calls
            .map(|(method, path)| (method.to_string(), path.to_owned()))
            .collect();
        assert_eq!(described, routed);
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    /// Checks that every reference leads somewhere, and that every call says what it may answer.
    pub(in crate::http) fn is_complete(description: &str) {
        let description = parse(description);
        let mut references = Vec::new();
        collect(&description, &mut references);
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(description.pointer(pointer).is_some(), "{reference}");
        }
        for (method, path, call) in methods(&description) {
            for status in ["200", "401", "429"] {
                let answer = &call["responses"][status];
                assert!(answer.is_object(), "{method} {path}: {status}");
            }
            assert!(call["operationId"].is_string(), "{method} {path}");
            assert!(call["summary"].is_string(), "{method} {path}");
        }
    }

    fn parse(description: &str) -> Value {
        serde_json::from_str(description).expect("JSON")
    }

    /// The method, path and description of each call.
    fn methods(description: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = description["paths"].as_object().expect("paths");
        paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("a path's methods").iter();
            let methods = methods.filter(|(name, _)| *name != "parameters");
            methods.map(move |(method, call)| (method.as_str(), path.as_str(), call))
        })
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    references.push(reference.clone());
                }
                fields.values().for_each(|value| collect(value, references));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }
}
