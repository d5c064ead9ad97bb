//! The published schemas, the examples and the gateway's types say the same.

use std::collections::BTreeSet;
use std::fs;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_gateway::auth::revocation::{RevocationFamily, RevokedFamily};
use tidegate_gateway::auth::{JwksFamily, KeyFamily, ProofFamily};
use tidegate_gateway::canary::CanaryFamily;
use tidegate_gateway::canary::common::TallyFamily;
use tidegate_gateway::catalog::shared::CatalogFamily;
use tidegate_gateway::config::{Config, ConfigFamily, Snapshot};
use tidegate_gateway::credentials::GrantFamily;
use tidegate_gateway::idempotency::record::{self, IdempotencyFamily};
use tidegate_gateway::keyspace::{FAMILIES, Family};
use tidegate_gateway::limits::leased::QuotaFamily;
use tidegate_gateway::limits::{RateFamily, SeatFamily};
use tidegate_gateway::mailbox::MailFamily;
use tidegate_gateway::queue::Message;
use tidegate_gateway::quotas::{SpendersFamily, SpentFamily};
use tidegate_gateway::request_token::UsedFamily;
use tidegate_gateway::session::SessionFamily;
use tidegate_gateway::switches::{SwitchboardFamily, SwitchesFamily};
use tidegate_gateway::tasks::directory::DirectoryFamily;
use tidegate_gateway::tasks::record::{Record, TaskFamily};
use tidegate_gateway::tasks::roster::RosterFamily;
use tidegate_gateway::tasks::store::PartFamily;
use tidegate_gateway::tasks::sweep::SweepFamily;
use tidegate_gateway::tasks::tenants::TenantFamily;
use tidegate_gateway::upstream::circuit::{CircuitFamily, TurnFamily};
use tidegate_gateway::upstream::facts::UpstreamFamily;

use super::{folder, root, tidegate};

fn stored(path: &str) -> String {
    fs::read_to_string(root().join("kv-schemas").join(path))
        .unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The example parses into the type and is written back equal.
fn round_trips<T: Serialize + DeserializeOwned>(name: &str) {
    round_trips_as::<T>(name, name);
}

/// The same for a further example of a schema.
fn round_trips_as<T: Serialize + DeserializeOwned>(example: &str, name: &str) {
    let text = stored(&format!("examples/{example}.json"));
    let record: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let written: Value = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
    assert_eq!(
        written,
        serde_json::from_str::<Value>(&text).unwrap(),
        "{name}"
    );
    let schema: Value = serde_json::from_str(&stored(&format!("{name}.schema.json"))).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems: Vec<String> = validator
        .iter_errors(&written)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert_eq!(problems, [""; 0], "{name}");
}

fn family<F: Family>() -> &'static str {
    round_trips::<F::Record>(F::NAME);
    F::NAME
}

#[test]
fn every_example_is_a_record_of_its_family_and_every_family_has_one() {
    let checked: BTreeSet<&str> = [
        family::<ConfigFamily>(),
        family::<JwksFamily>(),
        family::<KeyFamily>(),
        family::<ProofFamily>(),
        family::<UsedFamily>(),
        family::<RevocationFamily>(),
        family::<RevokedFamily>(),
        family::<SwitchesFamily>(),
        family::<SwitchboardFamily>(),
        family::<RateFamily>(),
        family::<SeatFamily>(),
        family::<QuotaFamily>(),
        family::<SpentFamily>(),
        family::<SpendersFamily>(),
        family::<UpstreamFamily>(),
        family::<CanaryFamily>(),
        family::<TallyFamily>(),
        family::<CircuitFamily>(),
        family::<TurnFamily>(),
        family::<CatalogFamily>(),
        family::<TaskFamily>(),
        family::<PartFamily>(),
        family::<RosterFamily>(),
        family::<DirectoryFamily>(),
        family::<TenantFamily>(),
        family::<SweepFamily>(),
        family::<IdempotencyFamily>(),
        family::<GrantFamily>(),
        family::<SessionFamily>(),
        family::<MailFamily>(),
    ]
    .into();
    let all: BTreeSet<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        checked, all,
        "a new family belongs in this list, in kv-schemas and in its README"
    );
}

#[test]
fn the_readme_tells_of_every_family() {
    let readme = stored("README.md");
    for (name, store) in FAMILIES {
        let row = readme
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("no row for {name}"));
        let store = format!("{store:?}").to_lowercase();
        assert!(
            row.contains(&format!("| {store} |")),
            "{name} lives in the {store} store: {row}"
        );
        assert!(row.contains(&format!("({name}.schema.json)")), "{row}");
    }
}

#[test]
fn a_task_that_asks_and_one_of_a_large_result_have_examples() {
    round_trips_as::<Record>("task-asking", "task");
    round_trips_as::<Record>("task-parts", "task");
}

#[test]
fn a_call_of_which_nobody_knows_has_an_example() {
    round_trips_as::<record::Record>("idempotency-unknown", "idempotency");
}

#[test]
fn what_is_not_a_record_has_an_example_too() {
    round_trips::<Message>("message");
    round_trips::<Config>("tidegate");
}

#[test]
fn the_published_snapshot_example_is_accepted_by_the_gateway() {
    let snapshot = Snapshot::parse(stored("examples/config.json").as_bytes()).unwrap();
    assert_eq!(snapshot.config.problems(), []);
    let config: Config = serde_json::from_str(&stored("examples/tidegate.json")).unwrap();
    assert_eq!(
        Snapshot::compile(config, 0).unwrap().digest,
        snapshot.digest
    );
}

#[test]
fn the_generated_schemas_are_the_committed_ones() {
    let folder = folder(&[]);
    let run = tidegate(folder.path(), &["schema", "--out", "."]);
    assert_eq!(run.code, 0, "{}", run.err);
    for name in ["tidegate.schema.json", "config.schema.json"] {
        let generated = fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(
            generated == stored(name),
            "kv-schemas/{name} is out of date: cargo run -p tidegate -- schema --out kv-schemas"
        );
    }
    assert_eq!(
        tidegate(folder.path(), &["schema"]).out,
        stored("tidegate.schema.json")
    );
}
