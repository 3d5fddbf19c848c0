//! The table.

use std::{fs, path::Path};

use serde_json::{Value, json};

#[derive(Default)]
pub struct Report {
    rows: Vec<Value>,
}

impl Report {
    /// Adds a figure, with the name and the figure of its baseline, and the ratio of the two.
    pub fn row(
        &mut self,
        id: &str,
        what: &str,
        value: f64,
        unit: &str,
        baseline: Option<(&str, f64, f64)>,
        goal: &str,
    ) {
        let compared = baseline.map_or(String::new(), |(name, value, ratio)| {
            format!("{name} {value:.2} {unit}, ratio {ratio:.2}")
        });
        println!("{id:4} {what:50} {value:10.2} {unit:4} {compared:50} goal {goal}");
        self.rows.push(json!({
            "id": id, "what": what, "value": value, "unit": unit, "goal": goal,
            "baseline": baseline.map(|(name, value, ratio)| json!({ "what": name, "value": value, "ratio": ratio })),
        }));
    }

    /// Adds what is good to know of a figure: it has no goal.
    pub fn note(&mut self, id: &str, what: &str, text: &str) {
        println!("{id:4} {what:50} {text}");
        self.rows
            .push(json!({ "id": id, "what": what, "note": text }));
    }

    /// Writes all figures to a file, with what else the machine was doing.
    pub fn finish(self, path: &Path, fsync: &str) -> anyhow::Result<()> {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let processors = crate::processors::processors();
        println!(
            "{processors} processors, load {}, fsync {fsync}; written to {}",
            load.trim_end(),
            path.display()
        );
        let document = json!({ "processors": processors, "load": load.trim_end(), "fsync": fsync, "rows": self.rows });
        fs::write(path, serde_json::to_string_pretty(&document)?)?;
        Ok(())
    }
}
