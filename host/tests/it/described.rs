//! A description in OpenAPI, against which responses are checked.

use std::collections::BTreeSet;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

const PLACE: &str = "http://signalbox.example/openapi.json";

/// The description, and the responses that were checked against it.
pub(crate) struct Description {
    document: Value,
    compiler: Compiler,
    schemas: Schemas,
    seen: BTreeSet<(String, String, u16)>,
}

impl Description {
    pub(crate) fn new(document: Value) -> Self {
        let mut compiler = Compiler::new();
        compiler
            .add_resource(PLACE, document.clone())
            .expect("the document is taken");
        Self {
            document,
            compiler,
            schemas: Schemas::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Checks the response to `method` on the described `path`.
    pub(crate) fn check(&mut self, method: &str, path: &str, status: u16, body: &Value) {
        if let Err(error) = self.validate(method, path, status, body) {
            panic!("{method} {path} {status}: {error}\n{body}");
        }
        let seen = (method.to_owned(), path.to_owned(), status);
        self.seen.insert(seen);
    }

    /// Returns the difference between a response and the description.
    pub(crate) fn validate(
        &mut self,
        method: &str,
        path: &str,
        status: u16,
        body: &Value,
    ) -> Result<(), String> {
        let schema = self.schema(method, path, status);
        let validated = self.schemas.validate(body, schema);
        validated.map_err(|error| format!("{error:#}"))
    }

    fn schema(&mut self, method: &str, path: &str, status: u16) -> SchemaIndex {
        let escaped = path.replace('/', "~1");
        let mut pointer = format!(
            "/paths/{escaped}/{}/responses/{status}",
            method.to_lowercase()
        );
        let response = self.document.pointer(&pointer);
        let response =
            response.unwrap_or_else(|| panic!("{method} {path} {status} is not described"));
        if let Some(reference) = response["$ref"].as_str() {
            pointer = reference.trim_start_matches('#').to_owned();
        }
        let location = format!("{PLACE}#{pointer}/content/application~1json/schema")
            .replace('{', "%7B")
            .replace('}', "%7D");
        self.compiler
            .compile(&location, &mut self.schemas)
            .unwrap_or_else(|error| panic!("{location}: {error:#}"))
    }

    /// Every call without a successful response so far.
    pub(crate) fn unseen(&self) -> Vec<String> {
        let paths = self.document["paths"].as_object().expect("paths");
        let calls = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("methods").keys();
            let methods = methods.filter(|name| *name != "parameters");
            methods.map(move |method| (method.to_uppercase(), path.clone(), 200))
        });
        calls
            .filter(|call| !self.seen.contains(call))
            .map(|(method, path, _)| format!("{method} {path}"))
            .collect()
    }
}
