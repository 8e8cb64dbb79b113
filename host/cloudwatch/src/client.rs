//! Sends requests with the AWS SDK, and explains errors.

use std::{error::Error, time::Duration};

use aws_config::{AppName, BehaviorVersion, Region, timeout::TimeoutConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_cloudwatch::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::put_metric_data::PutMetricDataError,
    types::MetricDatum,
};
use signalbox_config::CloudWatchConfig;
use signalbox_telemetry::error_chain::{causes, with_causes};

/// Bounds of the time that a request may take with its retries: as long as an interval, within these bounds. A request
/// that is given up may arrive nevertheless and count twice, so it gets that much time.
const REQUEST_TIME: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20));

/// Where requests go.
pub(super) trait MetricSink: Send {
    /// Sends one request.
    ///
    /// # Errors
    /// Returns [`PutError`] if the request failed. If only the answer was lost, CloudWatch may have taken the request
    /// nevertheless.
    fn push(
        &mut self,
        datums: Vec<MetricDatum>,
    ) -> impl Future<Output = Result<(), PutError>> + Send;
}

/// The reason why a request failed, in one line with advice.
#[derive(Debug, thiserror::Error)]
#[error("{reason} ({advice})", advice = kind.advice())]
pub(super) struct PutError {
    pub(super) kind: PutErrorKind,
    pub(super) reason: String,
}

/// The kind of failure, which decides the advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutErrorKind {
    /// No region is known.
    Region,
    /// There are no credentials, or AWS does not accept them.
    Credentials,
    /// The credentials are valid, but do not allow this.
    Denied,
    /// CloudWatch wants fewer requests.
    Throttled,
    /// Nobody answers, or something other than CloudWatch does.
    Unreachable,
    /// CloudWatch has an internal error.
    Broken,
    /// The request is wrong, and would be wrong again.
    Invalid,
}

impl PutErrorKind {
    fn advice(self) -> &'static str {
        match self {
            Self::Region => "set cloudwatch.region or AWS_REGION, or cloudwatch.enabled = false",
            Self::Credentials => {
                "give the process a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or set cloudwatch.enabled = false"
            }
            Self::Denied => {
                "allow cloudwatch:PutMetricData in cloudwatch.namespace, see docs/metrics.md"
            }
            Self::Throttled => {
                "no action is needed if it passes; otherwise set a longer cloudwatch.interval"
            }
            Self::Unreachable => {
                "check cloudwatch.region, cloudwatch.endpoint or AWS_ENDPOINT_URL, and the network"
            }
            Self::Broken => "no action is needed if it passes",
            Self::Invalid => "these values are discarded; please report this",
        }
    }
}

/// CloudWatch.
pub(super) struct CloudWatchSink {
    config: CloudWatchConfig,
    /// Created with the first request, because region and credentials may take a while to become available.
    client: Option<Client>,
}

impl CloudWatchSink {
    pub(super) fn new(config: CloudWatchConfig) -> Self {
        Self {
            config,
            client: None,
        }
    }

    async fn client(&mut self) -> Result<&Client, PutError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => connect(&self.config).await?,
        };
        Ok(self.client.insert(client))
    }
}

impl MetricSink for CloudWatchSink {
    async fn push(&mut self, datums: Vec<MetricDatum>) -> Result<(), PutError> {
        let namespace = self.config.namespace.clone();
        let request = self.client().await?.put_metric_data();
        let request = request.namespace(namespace).set_metric_data(Some(datums));
        request
            .send()
            .await
            .map(drop)
            .map_err(|error| explain(&error))
    }
}

/// Creates a client, with settings from the environment, as every program with the SDK does.
async fn connect(config: &CloudWatchConfig) -> Result<Client, PutError> {
    let in_all = config.interval.clamp(REQUEST_TIME.0, REQUEST_TIME.1);
    let timeouts = TimeoutConfig::builder()
        .operation_timeout(in_all)
        .operation_attempt_timeout(in_all / 2)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).timeout_config(timeouts);
    if let Ok(name) = AppName::new("signalbox") {
        loader = loader.app_name(name);
    }
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &config.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let found = loader.load().await;
    if found.region().is_none() {
        return Err(PutError {
            kind: PutErrorKind::Region,
            reason: "no region is set".to_owned(),
        });
    }
    Ok(Client::new(&found))
}

fn explain(error: &SdkError<PutMetricDataError>) -> PutError {
    let kind = match error {
        _ if has_cause::<CredentialsError>(error) => PutErrorKind::Credentials,
        SdkError::ServiceError(answer) => by_code(
            answer.err().code().unwrap_or_default(),
            answer.raw().status().as_u16(),
        ),
        SdkError::ResponseError(_) => PutErrorKind::Broken,
        _ => PutErrorKind::Unreachable,
    };
    let reason = match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let code = answer.err().code().unwrap_or("no code");
            let message = answer.err().message().unwrap_or("no message");
            format!("CloudWatch answers {status}, {code}: {message}")
        }
        _ if kind == PutErrorKind::Credentials => "no credentials are found".to_owned(),
        _ => in_words(error),
    };
    PutError { kind, reason }
}

fn by_code(code: &str, status: u16) -> PutErrorKind {
    match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => PutErrorKind::Denied,
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired" => PutErrorKind::Credentials,
        "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "LimitExceeded" => {
            PutErrorKind::Throttled
        }
        "InvalidParameterValue"
        | "InvalidParameterValueException"
        | "InvalidParameterCombination"
        | "InvalidParameterCombinationException"
        | "MissingParameter"
        | "MissingRequiredParameterException"
        | "ValidationError" => PutErrorKind::Invalid,
        _ => match status {
            401 | 403 => PutErrorKind::Denied,
            413 => PutErrorKind::Invalid,
            429 => PutErrorKind::Throttled,
            500.. => PutErrorKind::Broken,
            _ => PutErrorKind::Unreachable,
        },
    }
}

fn has_cause<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<E>)
}

/// The error with its causes, on one line.
fn in_words(error: &(dyn Error + 'static)) -> String {
    with_causes(error).replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permanent_errors_are_distinguished_from_temporary_ones() {
        for (code, status, kind) in [
            ("ThrottlingException", 400, PutErrorKind::Throttled),
            ("", 429, PutErrorKind::Throttled),
            ("InvalidParameterValue", 400, PutErrorKind::Invalid),
            ("", 413, PutErrorKind::Invalid),
            ("AccessDenied", 403, PutErrorKind::Denied),
            ("ExpiredToken", 403, PutErrorKind::Credentials),
            ("", 503, PutErrorKind::Broken),
            // Something else answers there.
            ("", 404, PutErrorKind::Unreachable),
        ] {
            assert_eq!(by_code(code, status), kind, "{code} {status}");
        }
    }
}
