//! A TOML table as JSON text, keys in the order of the file.

use std::fmt::Write as _;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::errors::ValueFault;

/// Writes a table as a JSON object. Dates and times become strings as TOML writes them.
///
/// # Errors
///
/// Returns every value that JSON cannot represent: infinity, NaN, integers beyond 64 bits.
pub(super) fn object(table: &DeTable<'_>) -> Result<String, Vec<ValueFault>> {
    let mut writer = Writer::default();
    writer.table(table);
    if writer.problems.is_empty() {
        Ok(writer.out)
    } else {
        Err(writer.problems)
    }
}

#[derive(Default)]
struct Writer {
    out: String,
    /// The path from the table to the value that is being written, such as `.words[2]`.
    within: String,
    problems: Vec<ValueFault>,
}

impl Writer {
    // The parser bounds the depth of a document, and so of these calls, to 80.
    fn value(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::String(text) => self.text(text),
            DeValue::Datetime(moment) => self.text(&moment.to_string()),
            DeValue::Boolean(flag) => self.raw(if *flag { "true" } else { "false" }),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => self.raw(&number.to_string()),
                    Err(_) => self.refuse(value, format!("{number} does not fit into 64 bits")),
                }
            }
            DeValue::Float(number) => {
                let parsed = number
                    .as_str()
                    .parse()
                    .ok()
                    .and_then(serde_json::Number::from_f64);
                match parsed {
                    Some(number) => self.raw(&number.to_string()),
                    None => {
                        self.refuse(
                            value,
                            format!("{number} cannot be written in JSON; write a finite number"),
                        );
                    }
                }
            }
            DeValue::Array(elements) => self.array(elements),
            DeValue::Table(table) => self.table(table),
        }
    }

    fn table(&mut self, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().collect();
        // The map is sorted by name; the places in the file restore the author's order.
        entries.sort_by_key(|(key, _)| key.span().start);
        self.raw("{");
        for (index, (key, value)) in entries.into_iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            self.text(key.get_ref());
            self.raw(":");
            self.inside(&format!(".{}", key.get_ref()), value);
        }
        self.raw("}");
    }

    fn array(&mut self, elements: &[Spanned<DeValue<'_>>]) {
        self.raw("[");
        for (index, element) in elements.iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            self.inside(&format!("[{index}]"), element);
        }
        self.raw("]");
    }

    fn inside(&mut self, step: &str, value: &Spanned<DeValue<'_>>) {
        let length = self.within.len();
        self.within.push_str(step);
        self.value(value);
        self.within.truncate(length);
    }

    fn text(&mut self, text: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.out, "{}", serde_json::Value::from(text));
    }

    fn raw(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn refuse(&mut self, value: &Spanned<DeValue<'_>>, message: String) {
        self.problems.push(ValueFault {
            span: value.span(),
            within: self.within.clone(),
            message,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<String, Vec<ValueFault>> {
        object(DeTable::parse(text).expect("the test's TOML").get_ref())
    }

    #[test]
    fn keys_keep_the_order_of_the_file() {
        let text =
            "z = 1\na = { y = [1, 2.5], b = \"q\\\"\" }\nm.x = true\nm.c = false\n[s]\nk = 0x10";
        let expected =
            r#"{"z":1,"a":{"y":[1,2.5],"b":"q\""},"m":{"x":true,"c":false},"s":{"k":16}}"#;
        assert_eq!(json(text).expect("all of it has a form in JSON"), expected);
    }

    #[test]
    fn dates_and_times_become_strings() {
        let text = "d = 2026-01-02\nt = 1979-05-27T07:32:00Z";
        let expected = r#"{"d":"2026-01-02","t":"1979-05-27T07:32:00Z"}"#;
        assert_eq!(json(text).expect("all of it has a form in JSON"), expected);
    }

    #[test]
    fn a_value_without_a_json_form_is_refused_with_its_path() {
        let text = "a = [1.0, inf]\nb.c = nan\nd = 1e999\ne = 99999999999999999999";
        let problems = json(text).expect_err("four values have no form in JSON");
        let within: Vec<_> = problems
            .iter()
            .map(|problem| problem.within.as_str())
            .collect();
        assert_eq!(
            within,
            ["[1]", ".c", "", ""]
                .iter()
                .zip(["a", "b", "d", "e"])
                .map(|(rest, key)| format!(".{key}{rest}"))
                .collect::<Vec<_>>()
        );
    }
}
