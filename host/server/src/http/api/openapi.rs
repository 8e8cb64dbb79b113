//! `GET /api/openapi.json`: the description of this API.

use axum::response::Response;

use crate::http::openapi;

const DESCRIPTION: &str = include_str!("openapi.json");

pub(super) async fn describe() -> Response {
    openapi::response(DESCRIPTION)
}

#[cfg(test)]
mod tests {
    use super::{super::calls, *};
    use crate::http::openapi::checks;

    #[test]
    fn every_call_is_described_and_nothing_else_is() {
        let calls = calls().into_iter().map(|(method, path, _)| (method, path));
        checks::describes(DESCRIPTION, calls);
    }

    #[test]
    fn every_reference_resolves_and_every_call_describes_its_answers() {
        checks::is_complete(DESCRIPTION);
    }
}
