//! The environment variables that set keys.

use std::path::Path;

pub use super::dotenv::{FILES, gather};
use super::{
    Environment,
    errors::{ConfigError, SettingPlace},
    keys::{self, KEYS, Key, OLD_VARIABLES, PREFIX},
    nearest::nearest,
    secret_files,
    settings::{self, Section, Setting, Settings},
    values::ConfigValue,
};

/// Applies environment variables over the file; our own names take precedence over those of `websocket-app`.
pub(super) fn overlay(
    settings: &mut Settings,
    environment: &Environment,
    folder: &Path,
    errors: &mut Vec<ConfigError>,
) {
    for (name, target) in OLD_VARIABLES {
        let Some((section, name_of_key)) = target else {
            continue;
        };
        // Compose files pass unset variables on as empty ones.
        if let Some(text) = environment.get(name).filter(|text| !text.is_empty()) {
            overlay_old(settings, name, section, name_of_key, text, errors);
        }
        if let Some(key) = keys::find(section, name_of_key).filter(|key| key.secret) {
            secret_files::overlay(settings, key, name, environment, folder, errors);
        }
    }
    let files: Vec<(String, &Key)> = KEYS
        .iter()
        .filter_map(|key| Some((key.file_variable()?, key)))
        .collect();
    for (name, text) in environment {
        if let Some(rest) = name.strip_prefix(PREFIX)
            && !is_reserved(name, text)
            && !files.iter().any(|(file, _)| file == name)
        {
            overlay_ours(settings, name, rest, text, errors);
        }
    }
    for (_, key) in files {
        let name = key.variable();
        secret_files::overlay(settings, key, &name, environment, folder, errors);
    }
}

fn overlay_old(
    settings: &mut Settings,
    variable: &str,
    section: &'static str,
    name: &'static str,
    text: &str,
    errors: &mut Vec<ConfigError>,
) {
    let (Some(section), Some(key)) = (
        settings.sections.get_mut(section),
        keys::find(section, name),
    ) else {
        return;
    };
    if variable != "WSS_PORT" {
        settings::set_from_variable(section, key, variable, text, errors);
        return;
    }
    let place = SettingPlace::Variable(variable.to_owned());
    if !section.has(name) {
        settings.port_alone = Some(variable.to_owned());
    }
    let value = text.trim().parse().map(|port| {
        let mut address = section.address(name);
        address.set_port(port);
        ConfigValue::Address(address)
    });
    if value.is_err() {
        errors.push(ConfigError {
            place: place.clone(),
            key: key.full_name(),
            message: format!("found {text:?}, expected a port from 0 to 65535"),
        });
    }
    section.values.insert(
        key.name,
        Setting {
            value: value.ok(),
            place,
        },
    );
}

fn overlay_ours(
    settings: &mut Settings,
    variable: &str,
    rest: &str,
    text: &str,
    errors: &mut Vec<ConfigError>,
) {
    let plain = KEYS
        .iter()
        .find(|key| is_plain(key) && key.variable() == variable);
    if let Some(key) = plain
        && let Some(section) = settings.sections.get_mut(key.section)
    {
        settings::set_from_variable(section, key, variable, text, errors);
        return;
    }
    let mut meant: Vec<(&mut Section, &Key)> = match rest.strip_prefix("PLUGINS__") {
        Some(rest) => settings
            .plugins
            .iter_mut()
            .filter_map(|plugin| {
                let name = rest.strip_prefix(&plugin_part(plugin)?)?;
                KEYS.iter()
                    .find(|key| is_plugin_key(key) && key.name.to_uppercase() == name)
                    .map(|key| (plugin, key))
            })
            .collect(),
        None => Vec::new(),
    };
    if let [(plugin, key)] = meant.as_mut_slice() {
        settings::set_from_variable(plugin, key, variable, text, errors);
        return;
    }
    let message = if meant.is_empty() {
        unknown(settings, variable)
    } else {
        let paths: Vec<&str> = meant
            .iter()
            .map(|(plugin, _)| plugin.path.as_str())
            .collect();
        format!(
            "is ambiguous: it stands for {}; rename one of them",
            paths.join(" and ")
        )
    };
    errors.push(ConfigError {
        place: SettingPlace::Variable(variable.to_owned()),
        key: String::new(),
        message,
    });
}

/// Whether one variable sets the key, without the name of a plugin in it.
fn is_plain(key: &Key) -> bool {
    !keys::is_list(key.section)
}

/// Whether a variable with the name of a plugin in it sets the key.
fn is_plugin_key(key: &Key) -> bool {
    key.section == "plugins" && key.has_variable()
}

/// `CHAT_2__` for the plugin `chat-2`; `None` if its name is not valid.
fn plugin_part(plugin: &Section) -> Option<String> {
    let name = plugin.path.strip_prefix("plugins.")?;
    Some(format!("{}__", name.to_uppercase().replace('-', "_")))
}

fn unknown(settings: &Settings, variable: &str) -> String {
    let rest = variable.strip_prefix(PREFIX).unwrap_or_default();
    if rest == "ROOMS" || rest.starts_with("ROOMS__") {
        return "unknown variable; rules for rooms have none, because names of rooms may contain characters that \
                variables cannot: write [[rooms]] in the file"
            .to_owned();
    }
    if rest == "WEBHOOKS" || rest.starts_with("WEBHOOKS__") {
        return "unknown variable; webhooks have none, because they have no names: write [[webhooks]] in the file, and \
                each secret into a file that secret_file names"
            .to_owned();
    }
    let plain = KEYS.iter().filter(|key| is_plain(key)).map(Key::variable);
    let of_plugins = settings
        .plugins
        .iter()
        .filter_map(plugin_part)
        .flat_map(|part| {
            let keys = KEYS.iter().filter(|key| is_plugin_key(key));
            keys.map(move |key| format!("{PREFIX}PLUGINS__{part}{}", key.name.to_uppercase()))
        });
    let reserved = keys::RESERVED_VARIABLES
        .iter()
        .map(|name| (*name).to_owned());
    let files = KEYS.iter().filter_map(Key::file_variable);
    let known = plain.chain(of_plugins).chain(reserved).chain(files);
    let near = nearest(variable, known);
    match near {
        // In a long name, a third is too many: beyond four typos it is probably a different key.
        Some(near) if strsim::damerau_levenshtein(variable, &near) <= 4 => {
            format!("unknown variable; did you mean {near}")
        }
        _ => format!(
            "unknown variable; settings are {PREFIX}<SECTION>__<KEY>, see docs/configuration.md"
        ),
    }
}

/// Whether a variable with our prefix is not a setting: those of the command line, and those that Kubernetes and Docker
/// links set automatically for a service named `signalbox` or `signalbox-...`
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
fn is_reserved(name: &str, text: &str) -> bool {
    if keys::RESERVED_VARIABLES.contains(&name) {
        return true;
    }
    let of_port = name.rsplit_once("_PORT_").is_some_and(|(_, rest)| {
        let (port, rest) = rest.split_once('_').unwrap_or((rest, ""));
        let protocol = rest.split('_').next().unwrap_or_default();
        port.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&protocol)
    });
    let is_link = name.ends_with("_PORT") && text.contains("://");
    let is_service = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    !name.contains("__") && (of_port || is_link || is_service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_orchestrators_are_no_settings() {
        for (name, text) in [
            ("SIGNALBOX_SERVICE_HOST", "10.0.0.1"),
            ("SIGNALBOX_SERVICE_PORT", "8080"),
            ("SIGNALBOX_SERVICE_PORT_WS", "8080"),
            ("SIGNALBOX_PORT", "tcp://10.0.0.1:8080"),
            ("SIGNALBOX_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("SIGNALBOX_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("SIGNALBOX_REDIS_SERVICE_HOST", "10.0.0.2"),
            ("SIGNALBOX_ADMIN_KEY", "k"),
            ("SIGNALBOX_URL", "http://localhost:8080"),
        ] {
            assert!(is_reserved(name, text), "{name}");
        }
        assert!(!is_reserved("SIGNALBOX_PORT", "8080"));
        assert!(!is_reserved("SIGNALBOX_SERVER__LISTEN", "tcp://a:1"));
    }
}
