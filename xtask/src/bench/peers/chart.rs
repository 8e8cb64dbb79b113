//! The figures as an SVG chart: horizontal bars, one colour for each server, with values as text.
//!
//! The chart brings its own background, and takes light or dark colours from what the reader's system prefers. It has no
//! scripts and refers to nothing.

use std::fmt::Write as _;

use super::figures::{Figure, rows};

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 24.0;
/// Where the bars begin, and the length of the longest one. The value stands to the right of the bar.
const BARS_X: f64 = 130.0;
const BAR_LENGTH_MAX: f64 = 520.0;
const BAR_HEIGHT: f64 = 16.0;
const LINE_HEIGHT: f64 = 22.0;
/// Space above the bars of a case, with its name.
const CASE_HEAD: f64 = 40.0;
const CASE_GAP: f64 = 14.0;
/// The longest line of the head, in characters.
const HEAD_CHARS_MAX: usize = 115;

const STYLE: &str = "text{font-family:system-ui,sans-serif;font-size:13px;fill:#1f2328}\
.title{font-size:17px;font-weight:600}.case{font-weight:600}.note{fill:#59636e;font-size:12px}\
.paper{fill:#ffffff;stroke:#d1d9e0}.spread{stroke:#1f2328;stroke-width:1.5}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.note{fill:#9198a1}.paper{fill:#0d1117;stroke:#3d444d}.spread{stroke:#f0f6fc}}";

/// Returns the chart. `notes` are lines below the title: versions, machine, settings.
pub(super) fn svg(title: &str, notes: &[String], figures: &[Figure]) -> String {
    let mut body = String::new();
    let mut y = MARGIN + 14.0;
    text(&mut body, "title", MARGIN, y, title);
    for note in notes.iter().flat_map(|note| wrapped(note)) {
        y += 18.0;
        text(&mut body, "note", MARGIN, y, &note);
    }
    y += 12.0;
    for bars in rows(figures) {
        let (case, measure) = (bars[0].case, bars[0].measure);
        let longest = bars.iter().map(|bar| bar.spread().1).fold(0.0, f64::max);
        let better = if measure.more_is_better {
            "more"
        } else {
            "less"
        };
        y += CASE_HEAD - LINE_HEIGHT;
        let head = format!("{case}: {}, {better} is better", measure.name);
        text(&mut body, "case", MARGIN, y, &head);
        y += LINE_HEIGHT - BAR_HEIGHT + 4.0;
        for figure in bars {
            bar(&mut body, y, figure, longest);
            y += LINE_HEIGHT;
        }
        y += CASE_GAP;
    }
    let height = y + MARGIN - CASE_GAP;
    let (title, inner_width, inner_height) = (escaped(title), WIDTH - 1.0, height - 1.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" x=\"0.5\" y=\"0.5\" width=\"{inner_width}\" height=\"{inner_height}\" rx=\"6\"/>\n{body}</svg>\n"
    )
}

/// Draws one bar with the server's name, the median, and a line from the lowest to the highest round.
fn bar(body: &mut String, y: f64, figure: &Figure, longest: f64) {
    let length = |value: f64| {
        let share = if longest > 0.0 { value / longest } else { 0.0 };
        share.clamp(0.0, 1.0) * BAR_LENGTH_MAX
    };
    let (lowest, highest) = figure.spread();
    let median = figure.median();
    let (middle, baseline) = (y + BAR_HEIGHT / 2.0, y + BAR_HEIGHT - 3.0);
    text(body, "name", MARGIN, baseline, figure.server.name);
    // Writing to a String cannot fail.
    let _ = writeln!(
        body,
        "<rect x=\"{BARS_X}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\" fill=\"{}\"/>",
        length(median).max(1.0),
        figure.server.colour
    );
    let _ = writeln!(
        body,
        "<line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>",
        BARS_X + length(lowest),
        BARS_X + length(highest)
    );
    let x = BARS_X + length(highest).max(1.0) + 8.0;
    text(body, "value", x, baseline, &figure.write(median));
}

fn text(body: &mut String, class: &str, x: f64, y: f64, words: &str) {
    let words = escaped(words);
    // Writing to a String cannot fail.
    let _ = writeln!(
        body,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"
    );
}

/// Breaks a line between words.
fn wrapped(line: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in line.split(' ') {
        match lines.last_mut() {
            Some(last) if last.chars().count() + 1 + word.chars().count() <= HEAD_CHARS_MAX => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::{MEMORY, Measure, PER_CPU_SECOND};
    use crate::bench::peers::SERVERS;

    fn chart() -> String {
        let figure = |case, measure: &'static Measure, server: usize, samples: &[f64]| Figure {
            case,
            measure,
            server: &SERVERS[server],
            samples: samples.to_vec(),
        };
        let figures = [
            figure("pairs_100x1", &PER_CPU_SECOND, 0, &[170e3, 173e3, 180e3]),
            figure("pairs_100x1", &PER_CPU_SECOND, 2, &[41e3, 40e3, 42e3]),
            figure("idle_memory", &MEMORY, 3, &[5_971.0]),
        ];
        let notes = ["2 cores of a <fast> CPU & more".to_owned()];
        svg("Against \"other\" servers", &notes, &figures)
    }

    /// Checks what XML demands of a document as plain as this one: tags that match, quoted attributes, escaped text.
    fn assert_well_formed(xml: &str) {
        let mut open = Vec::new();
        let mut rest = xml;
        while let Some(start) = rest.find('<') {
            let words = &rest[..start];
            assert!(!words.contains('>'), "{words}");
            for entity in words.split('&').skip(1) {
                let known = ["amp;", "lt;", "gt;", "quot;"];
                assert!(known.iter().any(|name| entity.starts_with(name)), "{words}");
            }
            let end = rest[start..].find('>').expect("the tag ends") + start;
            let tag = &rest[start + 1..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
                continue;
            }
            let name = tag.split([' ', '/']).next().unwrap_or_default();
            let attributes = tag[name.len()..].trim_end_matches('/');
            assert!(!attributes.contains('<') && attributes.matches('"').count().is_multiple_of(2));
            // Between the values in quotes there are only names, equals signs and spaces.
            let outside: String = attributes.split('"').step_by(2).collect();
            let plain = |c: char| c.is_ascii_alphanumeric() || " =:-".contains(c);
            assert!(outside.chars().all(plain), "{tag}");
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?}");
    }

    #[test]
    fn the_chart_is_well_formed_and_has_no_scripts() {
        let chart = chart();
        assert_well_formed(&chart);
        assert!(chart.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
        assert!(!chart.contains("<script") && !chart.contains("href"));
        assert!(chart.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn every_value_and_every_name_is_in_the_chart_as_text() {
        let chart = chart();
        for words in [
            ">173k</text>",
            ">41k</text>",
            ">6.0 KB</text>",
            ">Signalbox</text>",
            ">Socket.IO</text>",
            ">Centrifuge</text>",
            "pairs_100x1: delivered per CPU second, more is better",
            "idle_memory: memory of a connection, less is better",
            "2 cores of a &lt;fast&gt; CPU &amp; more",
            "Against &quot;other&quot; servers",
        ] {
            assert!(chart.contains(words), "{words}");
        }
        for server in [0, 2, 3] {
            assert!(chart.contains(SERVERS[server].colour));
        }
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        let line = "word ".repeat(60);
        let lines = wrapped(line.trim());
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= HEAD_CHARS_MAX));
        assert_eq!(lines.join(" "), line.trim());
    }
}
