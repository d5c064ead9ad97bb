//! `tidegate usage`: what has been used of which quota, by whom, from the gateway's own door
//! for operators.

use std::io::Write;

use serde_json::{Value, json};

use crate::args::Usage;
use crate::door::Gateway;
use crate::{Failure, print_json};

const HEADS: [&str; 6] = ["QUOTA", "PERIOD", "WHO", "USED", "LIMIT", "RESETS"];

/// Prints what is asked.
pub fn usage(asked: &Usage, out: &mut impl Write) -> Result<(), Failure> {
    let query = [
        ("quota", asked.quota.clone()),
        ("principal", asked.principal.clone()),
        ("client", asked.client.clone()),
        ("tenant", asked.tenant.clone()),
        ("tool", asked.tool.clone()),
        ("period", asked.period.clone()),
    ];
    let gateway = Gateway::open(&asked.door.gateway)?;
    let (lines, more) = gateway.pages("/admin/usage", &query, asked.limit)?;
    if asked.door.json {
        return print_json(&json!({ "usage": lines, "more": more }), out);
    }
    if lines.is_empty() {
        return Ok(writeln!(
            out,
            "nothing is used of any quota that was asked for"
        )?);
    }
    table(&lines, out)?;
    if more {
        writeln!(
            out,
            "There is more; see --limit, --quota, --tenant and --principal."
        )?;
    }
    Ok(())
}

fn table(lines: &[Value], out: &mut impl Write) -> Result<(), Failure> {
    let rows: Vec<[String; 6]> = std::iter::once(HEADS.map(str::to_owned))
        .chain(lines.iter().map(row))
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

fn row(line: &Value) -> [String; 6] {
    let number = |member: &str| line[member].as_u64().unwrap_or_default();
    let (used, limit) = (number("used"), number("limit"));
    let percent = u128::from(used) * 100 / u128::from(limit.max(1));
    let (money, unit) = (line["unit"] == "money", text(line, "unit"));
    let amount = |amount: u64| match money {
        // Millionths of the currency.
        true => format!("{}.{:06}", amount / 1_000_000, amount % 1_000_000),
        false => format!("{amount} {unit}"),
    };
    let soft = if line["enforce"] == "soft" {
        " (soft)"
    } else {
        ""
    };
    [
        text(line, "quota"),
        text(line, "period"),
        who(line),
        format!("{} ({percent}%)", amount(used)),
        format!("{}{soft}", amount(limit)),
        text(line, "resetsAt"),
    ]
}

/// Whom the quota counts apart.
fn who(line: &Value) -> String {
    let members = ["tenant", "client", "principal", "upstream", "tool"];
    let named = members.map(|member| (member, text(line, member)));
    let named = named.iter().filter(|(_, name)| !name.is_empty());
    let named: Vec<String> = named
        .map(|(member, name)| format!("{member} {name}"))
        .collect();
    match named.is_empty() {
        true => "all".to_owned(),
        false => named.join(", "),
    }
}

/// A member's text. A terminal obeys control characters, so none gets there.
fn text(line: &Value, member: &str) -> String {
    let text = line[member].as_str().unwrap_or_default();
    let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}
