//! The files in `deploy/` match the server. They cannot be run here, so without these tests they would silently become
//! outdated.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use signalbox::config::{Config, Environment, keys};
use yaml_rust2::{Yaml, YamlLoader, yaml::Hash};

use crate::harness::Node;

const CONFIG: &str = "platform.toml";

#[test]
fn every_yaml_file_can_be_parsed() {
    let folders = [
        "",
        "kubernetes",
        "prometheus",
        "cloudwatch",
        "grafana/provisioning/dashboards",
        "grafana/provisioning/datasources",
    ];
    let files: Vec<PathBuf> = folders
        .into_iter()
        .flat_map(|folder| fs::read_dir(deploy(folder)).expect("a folder"))
        .map(|entry| entry.expect("a file").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml")
        })
        .collect();
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        for document in yaml(&file) {
            assert!(document.as_hash().is_some(), "{}", file.display());
        }
    }
}

#[test]
fn the_image_is_configured_and_needs_its_secret() {
    let text = read(&deploy(CONFIG));
    let missing = Config::parse(&text, Path::new(CONFIG), &Environment::new())
        .expect_err("there is no secret");
    assert!(missing.to_string().contains("jwt_secret"), "{missing}");
    load(&text, secrets(["SIGNALBOX_AUTH__JWT_SECRET"]));
}

#[test]
fn the_nodes_of_compose_are_configured_and_get_the_time_to_drain() {
    let text = read(&deploy(CONFIG));
    let file = compose();
    let mut names = Vec::new();
    for service in ["node-a", "node-b"] {
        let node = merged(&file["services"][service]);
        let environment = merged(&node[&Yaml::from_str("environment")]);
        let variables = environment.iter().map(|(name, value)| {
            let value = value.clone().into_string();
            (
                text_of(name),
                value.expect("a variable is written as a text"),
            )
        });
        let config = load(&text, variables.collect());
        let grace = text_of(&node[&Yaml::from_str("stop_grace_period")]);
        let grace = humantime::parse_duration(&grace).expect("a duration");
        assert!(grace > config.server.drain_timeout);
        names.push(config.server.node_id);
    }
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn files_mounted_by_compose_exist() {
    let file = compose();
    let services = file["services"].as_hash().expect("services").values();
    let volumes = services.flat_map(|service| service["volumes"].clone());
    let mounted: Vec<PathBuf> = volumes
        .filter_map(|volume| {
            let (here, _) = volume.as_str()?.split_once(':')?;
            Some(deploy(here.strip_prefix("./")?))
        })
        .collect();
    assert!(mounted.len() >= 4, "{mounted:?}");
    for path in mounted {
        assert!(path.exists(), "{}", path.display());
    }
}

#[test]
fn the_pods_of_kubernetes_are_configured_and_get_the_time_to_drain() {
    let (pod, container) = pod();
    let config = &kubernetes("configmap")["data"][CONFIG];
    let variables = container["env"].as_vec().expect("a list of variables");
    let mut environment = Environment::new();
    for variable in variables {
        let name = text_of(&variable["name"]);
        match variable["value"].as_str() {
            Some(value) => drop(environment.insert(name, value.to_owned())),
            None => environment.extend(secrets([name.as_str()])),
        }
    }
    let config = load(&text_of(config), environment);
    let seconds = |yaml: &Yaml| {
        let seconds = yaml.as_i64().and_then(|number| number.try_into().ok());
        Duration::from_secs(seconds.expect("a number of seconds"))
    };
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    let sleep = seconds(&container["lifecycle"]["preStop"]["sleep"]["seconds"]);
    assert!(grace > sleep + config.server.drain_timeout);
    let port = container["ports"][0]["containerPort"].as_i64();
    assert_eq!(port, Some(i64::from(config.server.listen.port())));
}

#[tokio::test]
async fn the_paths_that_are_probed_answer() {
    let (_, container) = pod();
    let node = Node::start("").await;
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let path = text_of(&container[probe]["httpGet"]["path"]);
        let (status, body) = node.get(&path).await;
        assert_eq!(status, 200, "{probe}: {path}: {body}");
    }
    let balancer = read(&deploy("haproxy.cfg"));
    let probed = words_after(&balancer, "http-check send meth GET uri");
    assert_eq!(node.get(&probed).await.0, 200);
}

#[test]
fn the_balancer_leaves_it_to_the_server_to_drop_a_silent_connection() {
    let balancer = read(&deploy("haproxy.cfg"));
    let tunnel = humantime::parse_duration(&words_after(&balancer, "timeout tunnel"));
    let config = load(
        &read(&deploy(CONFIG)),
        secrets(["SIGNALBOX_AUTH__JWT_SECRET"]),
    );
    assert!(tunnel.expect("a duration") > config.server.idle_timeout);
}

/// Loads the configuration, which must be valid.
fn load(text: &str, environment: Environment) -> Config {
    Config::parse(text, Path::new(CONFIG), &environment).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Variables for secrets, with plausible values.
fn secrets<'n>(names: impl IntoIterator<Item = &'n str>) -> Environment {
    let secret = |name: &'n str| {
        let key = keys::KEYS.iter().find(|key| key.variable() == name);
        let key = key.unwrap_or_else(|| panic!("there is no key for {name}"));
        assert!(key.secret, "{name} is no secret");
        (name.to_owned(), key.example.to_owned())
    };
    names.into_iter().map(secret).collect()
}

/// The pod of the deployment, and its container.
fn pod() -> (Yaml, Yaml) {
    let pod = kubernetes("deployment")["spec"]["template"]["spec"].clone();
    let container = pod["containers"][0].clone();
    (pod, container)
}

fn kubernetes(name: &str) -> Yaml {
    let file = deploy("kubernetes").join(name).with_extension("yaml");
    yaml(&file).remove(0)
}

fn compose() -> Yaml {
    yaml(&deploy("compose.yaml")).remove(0)
}

/// A mapping, merged with the one that `<<` refers to.
fn merged(mapping: &Yaml) -> Hash {
    let own = mapping.as_hash().expect("a mapping");
    let mut all = match own.get(&Yaml::from_str("<<")) {
        Some(base) => merged(base),
        None => Hash::new(),
    };
    for (name, value) in own {
        if name.as_str() != Some("<<") {
            all.insert(name.clone(), value.clone());
        }
    }
    all
}

/// The text after these words in the only line that starts with them.
fn words_after(text: &str, words: &str) -> String {
    let mut found = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(words));
    let value = found.next().expect("a line with these words");
    assert_eq!(found.next(), None, "{words} stands there twice");
    value.trim().to_owned()
}

fn text_of(yaml: &Yaml) -> String {
    yaml.as_str().expect("a text").to_owned()
}

fn yaml(file: &Path) -> Vec<Yaml> {
    YamlLoader::load_from_str(&read(file))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(name)
}
