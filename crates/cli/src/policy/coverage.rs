//! Which rules a table of cases reaches.

use std::io::{self, Write};

use tidegate_gateway::config::Effect;
use tidegate_gateway::policy::Rules;

use super::question::Answer;

/// How often each rule had something to say.
pub struct Coverage {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    effect: Effect,
    concerned: usize,
    applied: usize,
    spared: usize,
    decided: usize,
}

impl Coverage {
    /// Nothing is covered yet.
    pub fn of(rules: Option<&Rules>) -> Self {
        let row = |(name, effect): (&str, Effect)| Row {
            name: name.to_owned(),
            effect,
            concerned: 0,
            applied: 0,
            spared: 0,
            decided: 0,
        };
        Self {
            rows: rules.into_iter().flat_map(Rules::names).map(row).collect(),
        }
    }

    /// Counts one case.
    pub fn count(&mut self, answer: &Answer<'_>) {
        for (row, opinion) in self.rows.iter_mut().zip(&answer.opinions) {
            let Some(outcome) = opinion.outcome else {
                continue;
            };
            row.concerned += 1;
            row.applied += usize::from(outcome.yes);
            row.spared += usize::from(outcome.no);
            row.decided += usize::from(row.name == answer.by);
        }
    }

    /// Rules no case was decided by.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let missing = self.rows.iter().filter(|row| row.decided == 0);
        missing.map(|row| row.name.as_str())
    }

    /// The table.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = self.rows.iter().map(|row| row.name.len()).max();
        let width = width.unwrap_or_default().max("rule".len());
        writeln!(
            out,
            "{:<width$}  effect  cases  true  false  decided",
            "rule"
        )?;
        for row in &self.rows {
            let Row {
                name,
                concerned,
                applied,
                spared,
                decided,
                ..
            } = row;
            let effect = effect(row.effect);
            let missing = if *decided == 0 { "  <- by no case" } else { "" };
            writeln!(
                out,
                "{name:<width$}  {effect:<6}  {concerned:>5}  {applied:>4}  {spared:>5}  {decided:>7}{missing}"
            )?;
        }
        Ok(())
    }
}

/// As configurations write it.
pub const fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
}
