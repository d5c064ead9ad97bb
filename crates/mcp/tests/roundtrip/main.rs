//! Lifting and lowering are each other's inverse, but for a table of documented differences.
//!
//! The values are the official examples, and instances made from each revision's official
//! JSON Schema; every translated one is judged by the schema of the revision it is in.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its fixture has failed"
)]

mod crossing;
mod differences;
mod generate;
mod official;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate_mcp::version::ProtocolVersion;

use crossing::Crossing;
use differences::{DIFFERENCES, Start, WHOLE};
use official::{Judge, LEGACY, MODERN};

/// What differed: where it started, type, member, revision.
type Place = (Start, String, String, ProtocolVersion);

/// What was seen on the way, with an example of each.
#[derive(Default)]
struct Seen {
    differences: BTreeMap<Place, String>,
    /// What a schema had to object to.
    objections: BTreeSet<String>,
    values: usize,
}

#[test]
fn there_and_back_again_is_the_identity_but_for_the_documented_differences() {
    let mut seen = Seen::default();
    for crossing in crossing::all() {
        for version in LEGACY {
            seen.start_legacy(&crossing, version);
            seen.start_modern(&crossing, version);
        }
    }
    println!("{} values went there and back", seen.values);
    let objections = seen.objections;
    assert!(
        objections.is_empty(),
        "{} objections: {objections:#?}",
        objections.len()
    );
    let documented = documented();
    let undocumented: Vec<_> = seen
        .differences
        .iter()
        .filter(|(key, _)| !documented.contains(*key))
        .map(|((start, name, member, version), example)| {
            format!("{start:?} {version} {name} `{member}`: {example}")
        })
        .collect();
    assert!(
        undocumented.is_empty(),
        "{} undocumented differences:\n{}",
        undocumented.len(),
        undocumented.join("\n")
    );
    let unused: Vec<_> = documented
        .iter()
        .filter(|key| !seen.differences.contains_key(*key))
        .collect();
    assert!(unused.is_empty(), "documented, never seen: {unused:#?}");
}

#[test]
fn each_difference_is_documented_once_and_says_why() {
    for row in DIFFERENCES {
        assert!(
            !row.reason.is_empty() && !row.spec.is_empty(),
            "{}",
            row.member
        );
    }
    let rows: usize = DIFFERENCES
        .iter()
        .map(|row| row.types.len() * row.revisions.len())
        .sum();
    assert_eq!(documented().len(), rows);
}

#[test]
fn every_official_example_crosses_or_is_said_to_stay() {
    let mut used: BTreeSet<String> = crossing::STAYS
        .iter()
        .map(|&name| name.to_owned())
        .collect();
    for crossing in crossing::all() {
        used.extend(crossing.carries().into_iter().map(str::to_owned));
    }
    let official: BTreeSet<String> = official::examples().keys().cloned().collect();
    assert_eq!(used, official);
}

fn documented() -> BTreeSet<Place> {
    let mut documented = BTreeSet::new();
    for row in DIFFERENCES {
        for name in row.types {
            for version in row.revisions {
                let (name, member) = ((*name).to_owned(), row.member.to_owned());
                documented.insert((row.start, name, member, *version));
            }
        }
    }
    documented
}

impl Seen {
    fn start_legacy(&mut self, crossing: &Crossing, version: ProtocolVersion) {
        let (own, modern) = (Judge::of(version), Judge::of(MODERN));
        for value in crossing.legacy_values(version).unwrap_or_default() {
            self.judge(own, crossing, &value);
            let back = crossing.lift(&value, None).and_then(|lifted| {
                self.judge(modern, crossing, &lifted);
                let back = crossing.lower(&lifted, version)?;
                self.judge(own, crossing, &back);
                Some(back)
            });
            self.compare(Start::Legacy, crossing, version, &value, back.as_ref());
        }
    }

    fn start_modern(&mut self, crossing: &Crossing, version: ProtocolVersion) {
        let (own, modern) = (Judge::of(version), Judge::of(MODERN));
        for value in crossing.modern_values() {
            self.judge(modern, crossing, &value);
            let back = crossing.lower(&value, version).and_then(|lowered| {
                self.judge(own, crossing, &lowered);
                let back = crossing.lift(&lowered, Some(&value))?;
                self.judge(modern, crossing, &back);
                Some(back)
            });
            self.compare(Start::Modern, crossing, version, &value, back.as_ref());
        }
    }

    fn judge(&mut self, judge: &Judge, crossing: &Crossing, value: &Value) {
        self.objections.extend(judge.objections(crossing, value));
    }

    fn compare(
        &mut self,
        start: Start,
        crossing: &Crossing,
        version: ProtocolVersion,
        value: &Value,
        back: Option<&Value>,
    ) {
        self.values += 1;
        let mut members = Vec::new();
        match back {
            Some(back) => differences::between("", value, back, &mut members),
            None => members.push(WHOLE.to_owned()),
        }
        for member in members {
            self.differences
                .entry((start, crossing.name(), member, version))
                .or_insert_with(|| match back {
                    Some(back) => format!("{value} came back as {back}"),
                    None => format!("{value} did not cross"),
                });
        }
    }
}
