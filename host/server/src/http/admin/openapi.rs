//! `GET /admin/openapi.json`: the description of this API. Tests compare it with the router and its responses.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

use super::query::{NoQuery, StrictQuery};

/// OpenAPI 3.1, which uses the schemas of JSON Schema 2020-12.
const DESCRIPTION: &str = include_str!("openapi.json");

pub(super) async fn describe(_: StrictQuery<NoQuery>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{super::calls, *};

    fn description() -> Value {
        serde_json::from_str(DESCRIPTION).expect("JSON")
    }

    #[test]
    fn every_call_is_described_and_nothing_else_is() {
        let description = description();
        let paths = description["paths"].as_object().expect("paths");
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().expect("a path's methods").keys();
                let methods = methods.filter(|name| *name != "parameters");
                methods.map(|method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        let routed = calls()
            .into_iter()
            .map(|(method, path, _)| (method.to_string(), path.to_owned()))
            .collect();
        assert_eq!(described, routed);
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_call_says_what_it_may_answer() {
        let description = description();
        let mut references = Vec::new();
        collect(&description, &mut references);
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(description.pointer(pointer).is_some(), "{reference}");
        }
        for (path, item) in description["paths"].as_object().expect("paths") {
            for (method, call) in item.as_object().expect("methods") {
                if method == "parameters" {
                    continue;
                }
                for status in ["200", "401", "429"] {
                    let answer = &call["responses"][status];
                    assert!(answer.is_object(), "{method} {path}: {status}");
                }
                assert!(call["operationId"].is_string(), "{method} {path}");
                assert!(call["summary"].is_string(), "{method} {path}");
            }
        }
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
