//! Changes of plugins on this node: carries them out, audits them, and answers.

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use signalbox_plugin_manager::{Change, ChangeError, Unchanged};
use signalbox_plugin_runtime::{AdmissionReport, Sha256};

use super::caller::Caller;
use crate::http::error::{ApiError, json};

/// The result of a change.
#[derive(Serialize)]
struct Changed<'a> {
    plugin: &'a str,
    /// `live`, `canary` or `shadow` (tried next to the live version), or `unchanged`.
    outcome: &'static str,
    /// The first twelve digits of the SHA-256 of the version that is now live or on trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256>,
    /// Like `version`, for the version that was live before.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<String>,
    /// The share of users that a canary serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<AdmissionReport<'a>>,
    /// Why nothing changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

/// The report of a refused change.
#[derive(Serialize)]
struct RefusedChange {
    plugin: String,
    /// The refused version; `None` if nothing could be read.
    version: Option<String>,
    sha256: Option<Sha256>,
    /// The version that stays live.
    live: Option<String>,
    #[serde(flatten)]
    report: AdmissionReport<'static>,
}

/// Runs `change` in a separate task, so that a client that disconnects does not cancel it, and audits it.
pub(super) async fn to_its_end(
    caller: Caller,
    action: &'static str,
    plugin: String,
    change: impl Future<Output = Result<Change, ChangeError>> + Send + 'static,
) -> Result<Response, ApiError> {
    let task = tokio::spawn(async move {
        let changed = change.await;
        let (outcome, detail) = in_words(&changed);
        caller.did(action, &plugin, outcome, &detail);
        answer(&plugin, changed)
    });
    task.await.unwrap_or_else(|_| Err(ApiError::panicked()))
}

/// Outcome and detail for the audit line.
fn in_words(changed: &Result<Change, ChangeError>) -> (&'static str, String) {
    match changed {
        Ok(Change::Live {
            version, replaced, ..
        }) => {
            let replaced = replaced.as_deref().unwrap_or("none");
            let detail = format!("{} in the place of {replaced}", version.label());
            ("live", detail)
        }
        Ok(Change::OnTrial { version, mode, .. }) => (
            mode,
            format!("{} is tried next to the live version", version.label()),
        ),
        Ok(Change::Unchanged(why)) => ("unchanged", why_in_words(*why).1.to_owned()),
        Err(error) => (error_code(error).1, error.to_string()),
    }
}

fn answer(plugin: &str, changed: Result<Change, ChangeError>) -> Result<Response, ApiError> {
    match changed {
        Ok(Change::Live {
            version,
            replaced,
            took,
        }) => Ok(json(
            StatusCode::OK,
            &Changed {
                plugin,
                outcome: "live",
                version: Some(version.label()),
                sha256: Some(*version.hash()),
                replaced,
                percent: None,
                took_ms: Some(took.as_secs_f64() * 1e3),
                report: Some(version.admission().into()),
                reason: None,
                message: None,
            },
        )),
        Ok(Change::OnTrial {
            version,
            mode,
            percent,
            took,
        }) => Ok(json(
            StatusCode::OK,
            &Changed {
                plugin,
                outcome: mode,
                version: Some(version.label()),
                sha256: Some(*version.hash()),
                replaced: None,
                percent,
                took_ms: Some(took.as_secs_f64() * 1e3),
                report: Some(version.admission().into()),
                reason: None,
                message: None,
            },
        )),
        Ok(Change::Unchanged(why)) => {
            let (reason, message) = why_in_words(why);
            Ok(json(
                StatusCode::OK,
                &Changed {
                    plugin,
                    outcome: "unchanged",
                    version: None,
                    sha256: None,
                    replaced: None,
                    percent: None,
                    took_ms: None,
                    report: None,
                    reason: Some(reason),
                    message: Some(message),
                },
            ))
        }
        Err(error) => Err(refused(plugin, error)),
    }
}

fn why_in_words(why: Unchanged) -> (&'static str, &'static str) {
    match why {
        Unchanged::Live => ("live", "this version is live already"),
        Unchanged::Held => (
            "held",
            "a version that was pushed or rolled back to is live, and the file has not changed since; reload with \
             force to load it anyway",
        ),
        Unchanged::Refused => (
            "refused",
            "the file was refused before and has not changed since; reload it to try again",
        ),
        Unchanged::OnTrial => (
            "on_trial",
            "this version is already tried next to the live one; reload or push it with force to make it live at \
             once",
        ),
        Unchanged::RolledBack => (
            "rolled_back",
            "this version was rolled back because it failed, and has not changed since; reload with force to load it \
             anyway",
        ),
    }
}

pub(super) fn error_code(error: &ChangeError) -> (StatusCode, &'static str) {
    match error {
        ChangeError::UnknownPlugin(_) => (StatusCode::NOT_FOUND, "unknown_plugin"),
        ChangeError::NoSuchVersion(_) => (StatusCode::NOT_FOUND, "unknown_version"),
        ChangeError::NoEarlierVersion => (StatusCode::CONFLICT, "no_earlier_version"),
        ChangeError::RolledBack { .. } => (StatusCode::CONFLICT, "rolled_back"),
        ChangeError::Refused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
    }
}

/// Converts the error to an error of this API.
pub(super) fn refused(plugin: &str, error: ChangeError) -> ApiError {
    let (status, code) = error_code(&error);
    let message = match &error {
        ChangeError::Refused {
            live: Some(live), ..
        } => {
            format!("plugin refused, version {live} stays live: {error}")
        }
        ChangeError::Refused { live: None, .. } => {
            format!("plugin refused, and no version of it is live: {error}")
        }
        other => other.to_string(),
    };
    let api_error = ApiError::new(status, code, message);
    let ChangeError::Refused { hash, error, live } = error else {
        return api_error;
    };
    let refusal = RefusedChange {
        plugin: plugin.to_owned(),
        version: hash.as_ref().map(Sha256::label),
        sha256: hash,
        live,
        report: AdmissionReport::from(&error),
    };
    api_error.with_report(&refusal)
}

pub(super) fn unknown(plugin: &str) -> ApiError {
    refused(plugin, ChangeError::UnknownPlugin(plugin.to_owned()))
}
