//! The dashboards and alarms in `deploy/` use only metrics that exist, and `docs/operations.md` says what to do about
//! each alarm.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use signalbox::metrics::table::{self, MetricKind};
use yaml_rust2::{Yaml, YamlLoader};

/// The default namespace of metrics in CloudWatch.
const NAMESPACE: &str = "wss/metrics";

pub(crate) fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn json(name: &str) -> Value {
    serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(name: &str) -> Yaml {
    let documents = YamlLoader::load_from_str(&read(name));
    documents
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .remove(0)
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// The Grafana dashboard.
fn dashboard() -> Value {
    json("grafana/dashboards/signalbox.json")
}

pub(crate) fn panel_queries() -> Vec<String> {
    let dashboard = dashboard();
    let panels = list(&dashboard, "panels").iter();
    panels
        .flat_map(|panel| list(panel, "targets"))
        .map(|target| target["expr"].as_str().expect("a query").to_owned())
        .collect()
}

pub(crate) fn annotation_queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let annotations = list(&dashboard["annotations"], "list").iter();
    annotations
        .filter_map(|annotation| {
            let query = annotation["target"]["expr"].as_str()?;
            Some((annotation["name"].as_str()?.to_owned(), query.to_owned()))
        })
        .collect()
}

/// The queries of the dashboard's variables.
fn variable_queries() -> Vec<String> {
    let dashboard = dashboard();
    let variables = list(&dashboard["templating"], "list").iter();
    variables
        .filter_map(|variable| Some(variable["query"]["query"].as_str()?.to_owned()))
        .collect()
}

pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) query: String,
    runbook: String,
}

pub(crate) fn rules() -> Vec<Rule> {
    let text = |yaml: &Yaml| yaml.as_str().expect("a text").to_owned();
    let rules = yaml("prometheus/rules.yml")["groups"][0]["rules"].clone();
    let rules = rules.into_iter().map(|rule| Rule {
        name: text(&rule["alert"]),
        query: text(&rule["expr"]),
        runbook: text(&rule["annotations"]["runbook"]),
    });
    rules.collect()
}

/// The names of our metrics in a query.
fn names(query: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    query
        .split(|c| !is_name(c))
        .filter(|word| word.starts_with("wss_"))
        .collect()
}

#[test]
fn every_query_names_metrics_that_exist() {
    let mut known = HashSet::new();
    for metric in table::ALL {
        let name = metric.prometheus_name();
        if metric.kind == MetricKind::Histogram {
            known.extend(["_bucket", "_count", "_sum"].map(|part| format!("{name}{part}")));
        } else {
            known.insert(name);
        }
    }
    let annotations = annotation_queries().into_iter().map(|(_, query)| query);
    let alarms = rules().into_iter().map(|rule| rule.query);
    let queries: Vec<String> = panel_queries()
        .into_iter()
        .chain(annotations)
        .chain(variable_queries())
        .chain(alarms)
        .collect();
    assert!(queries.len() > 70);
    for query in &queries {
        let names = names(query);
        assert!(!names.is_empty() || query.starts_with("up"), "{query}");
        for name in names {
            assert!(known.contains(name), "there is no {name}: {query}");
        }
    }
}

#[test]
fn every_metric_of_prometheus_is_on_the_dashboard() {
    let queries = panel_queries().concat();
    for metric in table::ALL {
        let name = metric.prometheus_name();
        // An all-time mean is useless in a graph, and versions are in a table that shows all their labels.
        if ["wss_average_latency_ms", "wss_plugin_live"].contains(&name.as_str()) {
            continue;
        }
        assert!(queries.contains(&name), "{name} is on no panel");
    }
}

#[test]
fn panels_have_numbers_of_their_own_and_do_not_overlap() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (HashSet::new(), HashSet::new());
    for panel in list(&dashboard, "panels") {
        assert!(
            ids.insert(panel["id"].as_u64().expect("a number")),
            "{panel}"
        );
        let [x, y, width, height] =
            ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().expect("a number"));
        assert!(x + width <= 24, "{panel}");
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{cell:?} is taken: {panel}");
        }
    }
}

/// A metric in CloudWatch: its name and the names of its dimensions.
type InCloudWatch = (String, BTreeSet<String>);

fn assert_pushed((name, dimensions): &InCloudWatch) {
    let pushed = table::ALL
        .iter()
        .filter_map(|metric| metric.cloudwatch)
        .filter(|metric| metric.name == name)
        .flat_map(|metric| metric.dimensions)
        .any(|set| {
            let set: BTreeSet<String> = set.iter().map(|name| (*name).to_owned()).collect();
            set == *dimensions
        });
    assert!(pushed, "{name} is not pushed with {dimensions:?}");
}

/// Every metric that a widget shows, either by name or through `SEARCH` in an expression.
fn of_widget(widget: &Value) -> Vec<InCloudWatch> {
    let mut found: Vec<InCloudWatch> = Vec::new();
    for line in list(&widget["properties"], "metrics") {
        let line = line.as_array().expect("a list");
        if let Some(expression) = line[0]["expression"].as_str() {
            found.push(searched(expression));
            continue;
        }
        let words: Vec<&str> = line.iter().filter_map(Value::as_str).collect();
        match words.as_slice() {
            // The metric before it, shown in another way.
            ["..."] => found.push(found.last().expect("there is one before it").clone()),
            [namespace, name, dimensions @ ..] => {
                assert_eq!(*namespace, NAMESPACE);
                let dimensions = dimensions.iter().step_by(2);
                found.push((
                    (*name).to_owned(),
                    dimensions.map(|d| (*d).to_owned()).collect(),
                ));
            }
            _ => panic!("{words:?}"),
        }
    }
    found
}

/// The metric that `SEARCH('{namespace,dimensions} MetricName="name"', ...)` in an expression matches.
fn searched(expression: &str) -> InCloudWatch {
    let between = |begin: &str, end: &str| {
        let (_, rest) = expression.split_once(begin)?;
        Some(rest.split_once(end)?.0)
    };
    let schema = between("SEARCH('{", "}").expect("a schema");
    let name = between("MetricName=\"", "\"").expect("a name");
    let mut schema = schema.split(',');
    assert_eq!(schema.next(), Some(NAMESPACE));
    (name.to_owned(), schema.map(str::to_owned).collect())
}

#[test]
fn cloudwatch_dashboards_show_exactly_the_pushed_metrics() {
    let dashboard = json("cloudwatch/dashboard.json");
    let widgets = list(&dashboard, "widgets").iter();
    let shown: Vec<InCloudWatch> = widgets.flat_map(of_widget).collect();
    shown.iter().for_each(assert_pushed);
    for metric in table::ALL.iter().filter_map(|metric| metric.cloudwatch) {
        assert!(
            shown.iter().any(|(name, _)| name == metric.name),
            "{} is on no widget",
            metric.name
        );
    }
}

/// The CloudWatch alarms: name, metric and description of each.
fn cloudwatch_alarms() -> Vec<(String, InCloudWatch, String)> {
    let template = yaml("cloudwatch/alarms.yaml");
    assert_eq!(
        template["Parameters"]["Namespace"]["Default"].as_str(),
        Some(NAMESPACE)
    );
    let resources = template["Resources"].as_hash().expect("resources").iter();
    resources
        .map(|(name, alarm)| {
            assert_eq!(alarm["Type"].as_str(), Some("AWS::CloudWatch::Alarm"));
            let text = |yaml: &Yaml| yaml.as_str().expect("a text").to_owned();
            let properties = &alarm["Properties"];
            let dimensions = properties["Dimensions"].clone();
            let dimensions = dimensions
                .into_iter()
                .map(|dimension| text(&dimension["Name"]));
            let metric = (text(&properties["MetricName"]), dimensions.collect());
            (text(name), metric, text(&properties["AlarmDescription"]))
        })
        .collect()
}

#[test]
fn cloudwatch_alarms_use_pushed_metrics() {
    let alarms = cloudwatch_alarms();
    assert!(alarms.len() >= 8);
    for (_, metric, _) in &alarms {
        assert_pushed(metric);
    }
}

#[test]
fn every_alarm_has_a_line_and_a_section_in_operations() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = fs::read_to_string(page).expect("the page");
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let anchors: HashSet<String> = headings
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let of_prometheus = rules().into_iter().map(|rule| (rule.name, rule.runbook));
    let of_cloudwatch = cloudwatch_alarms()
        .into_iter()
        .map(|(name, _, says)| (name, says));
    let mut alarms = HashSet::new();
    for (name, says) in of_prometheus.chain(of_cloudwatch) {
        let (_, anchor) = says.split_once("docs/operations.md#").expect("a link");
        assert!(anchors.contains(anchor), "{name}: no section {anchor}");
        let in_table = page.lines().find(|line| {
            let cells = line.split([' ', ',', '|']);
            line.starts_with('|') && cells.into_iter().any(|cell| cell == name)
        });
        let line = in_table.unwrap_or_else(|| panic!("{name} is not in the table"));
        assert!(line.contains(&format!("(#{anchor})")), "{name}: {line}");
        alarms.insert(name);
    }
    // The page names no alarms that do not exist.
    let words = page.split(|c: char| !c.is_ascii_alphanumeric());
    for word in words.filter(|word| word.starts_with("Signalbox") && word.len() > "Signalbox".len())
    {
        assert!(alarms.contains(word), "there is no alarm {word}");
    }
}

#[test]
fn every_alarm_of_prometheus_is_tested() {
    let tests = read("prometheus/rules_test.yml");
    for rule in rules() {
        let name = format!("alertname=\"{}\"", rule.name);
        assert!(tests.contains(&name), "{} is not tested", rule.name);
    }
}
