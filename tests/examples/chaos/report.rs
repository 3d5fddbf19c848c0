//! The table, and the rules that were broken.

use std::fmt::Display;

#[derive(Default)]
pub struct Report {
    row: &'static str,
    broken: Vec<String>,
}

impl Report {
    /// What follows belongs to this row.
    pub fn begin(&mut self, row: &'static str) {
        self.row = row;
    }

    /// A figure that has no rule.
    pub fn note(&self, what: &str, value: impl Display) {
        println!("{:9} {what:58} {value}", self.row);
    }

    /// A figure with its rule, and whether it holds.
    pub fn rule(&mut self, what: &str, value: impl Display, rule: &str, holds: bool) {
        let verdict = if holds { "ok" } else { "BROKEN" };
        println!("{:9} {what:58} {value:<10} {rule:20} {verdict}", self.row);
        if !holds {
            self.broken
                .push(format!("{} {what}: {value}, not {rule}", self.row));
        }
    }

    /// What must not be found: examples are printed.
    pub fn none(&mut self, what: &str, found: &[String]) {
        self.rule(what, found.len(), "0", found.is_empty());
        for example in found.iter().take(5) {
            println!("{:9}   {example}", "");
        }
    }

    /// # Errors
    /// If a rule was broken.
    pub fn finish(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.broken.is_empty(),
            "rules are broken:\n{}",
            self.broken.join("\n")
        );
        Ok(())
    }
}
