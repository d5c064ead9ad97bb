//! `tidegate policy test`: a table of cases against the policy, and what it covers.

use std::io::Write;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::coverage::Coverage;
use super::question::{Answer, Question};
use crate::document::Document;
use crate::finding::Place;
use crate::load::{self, Loaded};
use crate::{Failure, report};

/// One case. What does not concern these members is the [`Question`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    expect: Verdict,
    /// The rule that must decide.
    by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allow,
    Deny,
}

/// Runs the cases in a file.
pub fn test(
    cases: &Path,
    strict: bool,
    loaded: &Loaded,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let document = match load::document(cases) {
        Ok(document) => document,
        Err(error) => return Err(report(error)?),
    };
    let rules = super::rules(loaded)?;
    let mut coverage = Coverage::of(rules.as_ref());
    let (mut failed, mut count) = (0, 0);
    for (index, case) in members(&document, cases)?.iter().enumerate() {
        let at = || place(&document, cases, &format!("/cases/{index}"));
        let (name, expected, question) =
            read(case).map_err(|reason| Failure::Usage(format!("{}: {reason}", at())))?;
        let answer = question
            .ask(&loaded.config, rules.as_ref())
            .map_err(|reason| Failure::Usage(format!("{}: {reason}", at())))?;
        coverage.count(&answer);
        count += 1;
        match difference(&expected, &answer) {
            None => writeln!(out, "ok      {name}")?,
            Some(difference) => {
                failed += 1;
                writeln!(out, "FAILED  {name}: {difference} ({})", at())?;
            }
        }
    }
    writeln!(out, "\n{} of {count} cases hold\n", count - failed)?;
    coverage.write(out)?;
    let missing: Vec<&str> = coverage.missing().collect();
    if failed > 0 || (strict && !missing.is_empty()) {
        return Err(Failure::Problems);
    }
    Ok(())
}

/// What is other than expected.
fn difference(expected: &Expected, answer: &Answer<'_>) -> Option<String> {
    let word = |allowed: bool| if allowed { "allowed" } else { "denied" };
    let Answer {
        allowed, by, why, ..
    } = answer;
    let wanted = expected.expect == Verdict::Allow;
    if wanted != *allowed {
        let (wanted, is) = (word(wanted), word(*allowed));
        return Some(format!("should be {wanted}, is {is} by {by}: {why}"));
    }
    let other = expected.by.as_ref().filter(|rule| *rule != by)?;
    Some(format!("should be {} by {other}, is by {by}", word(wanted)))
}

fn members<'d>(document: &'d Document, cases: &Path) -> Result<&'d [Value], Failure> {
    let list = document.value.get("cases").and_then(Value::as_array);
    match list {
        Some(list) if !list.is_empty() => Ok(list),
        Some(_) | None => Err(Failure::Usage(format!(
            "{}: has no list `cases`, or an empty one",
            place(document, cases, "/cases")
        ))),
    }
}

fn read(case: &Value) -> Result<(String, Expected, Question), String> {
    let mut question = case.clone();
    let own = question.as_object_mut().ok_or("a case is a map")?;
    let name = match own.shift_remove("name") {
        Some(Value::String(name)) => name,
        Some(_) | None => return Err("a case needs a `name`".to_owned()),
    };
    for member in ["expect", "by"] {
        own.shift_remove(member);
    }
    let expected = serde_json::from_value(case.clone()).map_err(|error| error.to_string())?;
    let question = serde_json::from_value(question).map_err(|error| error.to_string())?;
    Ok((name, expected, question))
}

fn place(document: &Document, file: &Path, pointer: &str) -> String {
    let Place { line, column, .. } = document.place(pointer);
    format!("{}:{line}:{column}", file.display())
}
