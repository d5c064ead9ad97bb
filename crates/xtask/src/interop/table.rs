//! `tests/hosts/INTEROP.md`: one row per client, one column per server and era.

use std::fmt::Write as _;

use crate::test::Counts;

/// What one client did with one server.
pub struct Cell {
    /// The era it spoke to the gateway, if it says.
    pub era: Option<String>,
    /// The steps that did not work.
    pub failed: Vec<String>,
}

/// All cells, in the order they were run.
#[derive(Default)]
pub struct Table {
    columns: Vec<(&'static str, &'static str)>,
    rows: Vec<(&'static str, Vec<Cell>)>,
}

impl Table {
    /// Adds a cell: a client's cells follow one another.
    pub fn push(&mut self, client: &'static str, column: (&'static str, &'static str), cell: Cell) {
        if !self.columns.contains(&column) {
            self.columns.push(column);
        }
        match self.rows.last_mut().filter(|(name, _)| *name == client) {
            Some((_, cells)) => cells.push(cell),
            None => self.rows.push((client, vec![cell])),
        }
    }

    /// How many cells work, and how many do not.
    pub fn counts(&self) -> Counts {
        let cells = || self.rows.iter().flat_map(|(_, cells)| cells);
        Counts {
            passed: cells().filter(|cell| cell.failed.is_empty()).count() as u64,
            failed: cells().filter(|cell| !cell.failed.is_empty()).count() as u64,
        }
    }

    /// The whole file.
    pub fn render(&self) -> String {
        let mut text = "# Clients and servers nobody here wrote\n\n\
            Written by `cargo xtask interop --update`; `cargo xtask test` fails when it is no \
            longer true. Each client goes through the gateway to each server, lists and calls \
            tools, reads a resource, gets a prompt, completes an argument and follows a call's \
            progress. A column names the server and the era the gateway speaks to it, a cell \
            the era the client speaks to the gateway (`?`: it does not say).\n\n| Client |"
            .to_owned();
        for (server, era) in &self.columns {
            let _ = write!(text, " {server}: {era} |");
        }
        let _ = write!(text, "\n|---|{}", "---|".repeat(self.columns.len()));
        for (client, cells) in &self.rows {
            let _ = write!(text, "\n| {client} |");
            for cell in cells {
                let era = cell.era.as_deref().unwrap_or("?");
                let _ = match cell.failed.is_empty() {
                    true => write!(text, " {era}: works |"),
                    false => write!(text, " {era}: **fails** {} |", cell.failed.join(", ")),
                };
            }
        }
        text.push('\n');
        text
    }
}
