//! `[[webhooks]]`: each entry, and conflicts between them.

use std::{collections::HashMap, path::Path};

use super::{
    ConfigError, SECRET_BYTES_MIN, WebhookConfig, WebhookEvent, checks,
    secret_files::read_secret,
    settings::{self, Section, Setting, Settings},
    values::ConfigValue,
};

/// The most webhooks.
const WEBHOOKS_MAX: usize = 16;

/// Each secret, and the key that names a file with it.
const SECRETS: [(&str, &str); 2] = [
    ("secret", "secret_file"),
    ("secret_previous", "secret_previous_file"),
];

/// Sets the secrets to the contents of the files that name them, relative to `folder`.
pub(super) fn read_secret_files(
    settings: &mut Settings,
    folder: &Path,
    errors: &mut Vec<ConfigError>,
) {
    for section in &mut settings.webhooks {
        for (secret, file) in SECRETS {
            let Some(path) = section.optional(file).map(|path| folder.join(path)) else {
                continue;
            };
            settings.secret_files.insert(path.clone());
            if section.optional(secret).is_some() {
                let message = format!("is set, and so is {secret}; keep one of them");
                errors.push(section.error(&[file], message));
                continue;
            }
            let read = read_secret(&path).and_then(|text| {
                checks::secret(&text).map_err(|reason| format!("{}: {reason}", path.display()))?;
                Ok(text)
            });
            let value = read.map_err(|message| errors.push(section.error(&[file], message)));
            if let Some(place) = section
                .values
                .get(file)
                .map(|setting| setting.place.clone())
            {
                let value = value.ok().map(ConfigValue::Text);
                section.values.insert(secret, Setting { value, place });
            }
        }
    }
}

/// Assembles the webhooks, in the order of the file.
pub(super) fn assemble(sections: &[Section], errors: &mut Vec<ConfigError>) -> Vec<WebhookConfig> {
    settings::refuse_repeated(sections, "url", "webhook", errors);
    if let Some(section) = sections.get(WEBHOOKS_MAX) {
        errors.push(ConfigError {
            key: section.path.clone(),
            ..section.error(
                &[],
                format!("is one too many: there may be {WEBHOOKS_MAX} webhooks; send the events of several to one, \
                         which passes them on"),
            )
        });
    }
    let mut hosts = HashMap::new();
    sections
        .iter()
        .map(|section| webhook(section, &mut hosts, errors))
        .collect()
}

fn webhook(
    section: &Section,
    hosts: &mut HashMap<String, usize>,
    errors: &mut Vec<ConfigError>,
) -> WebhookConfig {
    for (name, example) in [
        ("url", "\"https://example.com/signalbox\""),
        ("events", "[\"connected\", \"disconnected\"]"),
    ] {
        section.require(name, example, errors);
    }
    let events = section.texts("events");
    if section.has("events") && section.are_right(&["events"]) && events.is_empty() {
        errors.push(section.error(
            &["events"],
            "is empty, so that the webhook would get nothing; name its events, or remove the webhook",
        ));
    }
    let url = section.text("url");
    WebhookConfig {
        label: label(&url, hosts),
        url,
        secret: secret(section, errors),
        secret_previous: secret_previous(section, errors),
        events: events
            .iter()
            .filter_map(|name| WebhookEvent::named(name))
            .collect(),
        rooms: section.texts("rooms"),
        batch_max: section.count("batch_max") as usize,
        batch_time: section.time("batch_time"),
        timeout: section.time("timeout"),
        queue_max: section.count("queue_max") as usize,
    }
}

fn secret(section: &Section, errors: &mut Vec<ConfigError>) -> String {
    let secret = section.text("secret");
    if !section.are_right(&["secret", "secret_file"]) {
        return secret;
    }
    if secret.is_empty() {
        errors.push(section.error(
            &["secret"],
            "is missing; make one with: openssl rand -hex 32, and set it or secret_file",
        ));
    } else {
        errors.extend(too_short(section, "secret", &secret));
    }
    secret
}

fn secret_previous(section: &Section, errors: &mut Vec<ConfigError>) -> Option<String> {
    let previous = section.optional("secret_previous")?;
    errors.extend(too_short(section, "secret_previous", &previous));
    Some(previous)
}

fn too_short(section: &Section, name: &str, secret: &str) -> Option<ConfigError> {
    (secret.len() < SECRET_BYTES_MIN).then(|| {
        section.error(
            &[name],
            format!(
                "is {} bytes long, and the signature needs {SECRET_BYTES_MIN} or more; make one with: openssl rand -hex 32",
                secret.len()
            ),
        )
    })
}

/// The host of `url`, with a number if it was in `hosts` before.
fn label(url: &str, hosts: &mut HashMap<String, usize>) -> String {
    let uri = url.parse::<hyper::Uri>().ok();
    let host = uri.as_ref().and_then(hyper::Uri::host).unwrap_or_default();
    let number = hosts.entry(host.to_owned()).or_default();
    *number += 1;
    match *number {
        1 => host.to_owned(),
        number => format!("{host}#{number}"),
    }
}
