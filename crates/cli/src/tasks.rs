//! `tidegate tasks`: what operators see of tasks and do about them, at the gateway's own
//! door for them.

use std::io::Write;

use serde_json::{Value, json};

use crate::args::Tasks;
use crate::door::Gateway;
use crate::{Failure, now_ms, print_json};

/// Does what is asked.
pub fn tasks(asked: Tasks, out: &mut impl Write) -> Result<(), Failure> {
    match asked {
        Tasks::List {
            door,
            tenant,
            state,
            older_than,
            limit,
        } => {
            let older_than = older_than.map(|age| age.as_millis().to_string());
            let query = [
                ("tenant", tenant),
                ("state", state.map(|state| state.name().to_owned())),
                ("olderThan", older_than),
            ];
            let gateway = Gateway::open(&door.gateway)?;
            let (tasks, more) = gateway.pages("/admin/tasks", &query, limit)?;
            match door.json {
                true => print_json(&json!({ "tasks": tasks, "more": more }), out),
                false => list(&tasks, more, out),
            }
        }
        Tasks::Show { door, id } => {
            let task = Gateway::open(&door.gateway)?.get(&task_path(&id, "")?, &[])?;
            match door.json {
                true => print_json(&task, out),
                false => show(&task, out),
            }
        }
        Tasks::Cancel { door, id } => {
            let task = Gateway::open(&door.gateway)?.post(&task_path(&id, "/cancel")?)?;
            match door.json {
                true => print_json(&task, out),
                false => Ok(writeln!(out, "cancelled {id}")?),
            }
        }
        Tasks::Retry { door, id } => {
            let task = Gateway::open(&door.gateway)?.post(&task_path(&id, "/retry")?)?;
            let now = text(&task, "id");
            match door.json {
                true => print_json(&task, out),
                false if now == id => Ok(writeln!(out, "queued {id} again")?),
                false => Ok(writeln!(
                    out,
                    "made {now} of the call of {id}, which stays as it is"
                )?),
            }
        }
    }
}

/// The path of one task. Anything that is no id would be another path.
fn task_path(id: &str, what: &str) -> Result<String, Failure> {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match id.len() == 32 && id.bytes().all(digit) {
        true => Ok(format!("/admin/tasks/{id}{what}")),
        false => Err(Failure::Usage(format!(
            "{id:?} is no task's id; `tidegate tasks list` prints them (clients know tasks by handles, which are sealed)"
        ))),
    }
}

fn list(tasks: &[Value], more: bool, out: &mut impl Write) -> Result<(), Failure> {
    if tasks.is_empty() {
        return Ok(writeln!(out, "no tasks")?);
    }
    let heads = ["ID", "STATE", "AGE", "ATTEMPTS", "TENANT", "TOOL"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(heads)
        .chain(tasks.iter().map(row))
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    if more {
        writeln!(
            out,
            "There are more; see --limit, --state, --tenant and --older-than."
        )?;
    }
    Ok(())
}

fn row(task: &Value) -> [String; 6] {
    let tenant = match text(task, "tenant") {
        tenant if tenant.is_empty() => "-".to_owned(),
        tenant => tenant,
    };
    [
        text(task, "id"),
        state(task),
        age(task, "createdAtMs"),
        task["attempts"].to_string(),
        tenant,
        format!("{}/{}", text(task, "upstream"), text(task, "tool")),
    ]
}

fn show(task: &Value, out: &mut impl Write) -> Result<(), Failure> {
    let mut lines = vec![
        ("id", text(task, "id")),
        ("state", state(task)),
        ("upstream", text(task, "upstream")),
        ("tool", text(task, "tool")),
        ("owner", text(task, "owner")),
        ("tenant", text(task, "tenant")),
        ("created", ago(task, "createdAtMs")),
        ("changed", ago(task, "updatedAtMs")),
        ("attempts", task["attempts"].to_string()),
        ("error", text(task, "errorReason")),
    ];
    if let Some(code) = task["errorCode"].as_i64() {
        lines.push(("error code", code.to_string()));
    }
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{name:10}  {value}")?;
    }
    if task["abandoned"] == true {
        let words = "It should run and does not: `tidegate tasks retry` queues it again.";
        writeln!(out, "{words}")?;
    }
    Ok(())
}

fn state(task: &Value) -> String {
    let status = text(task, "status");
    match (task["abandoned"] == true, task["toolError"] == true) {
        (true, _) => format!("{status}, abandoned"),
        (_, true) => format!("{status}, tool error"),
        (false, false) => status,
    }
}

/// A member's text. A terminal obeys control characters, so none gets there.
pub fn text(task: &Value, member: &str) -> String {
    let text = task[member].as_str().unwrap_or_default();
    let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

/// How long ago, in the largest unit there is one whole of.
fn age(task: &Value, member: &str) -> String {
    let at = task[member].as_u64().unwrap_or_default();
    let seconds = now_ms().saturating_sub(at) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn ago(task: &Value, member: &str) -> String {
    format!("{} ago", age(task, member))
}
