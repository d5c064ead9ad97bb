//! The contract of the ports, kept by the real ones: the same checks the simulator keeps,
//! run inside the function.

use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::json;

use crate::call::get;
use crate::gateway::Gateway;
use crate::upstream::{closed_url, redirecting};
use crate::work::trial;
use crate::world::World;

/// Fewer are fewer than there are: some were not run.
const CHECKS_MIN: usize = 40;

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let title = "contract::the ports keep every promise on workerd".to_owned();
    vec![trial(world, title, |_| every_promise())]
}

fn every_promise() {
    let gateway = Gateway::start_with(
        "contract",
        json!({ "upstreams": [{ "name": "closed", "url": closed_url() }] }),
        &["--selftest", "--raw"],
    );
    let answer = get(&gateway.at(&format!("/selftest?server={}", redirecting())));
    let report = answer.json();
    let checks = report["checks"].as_array().expect("a list of checks");
    let broken: Vec<_> = checks
        .iter()
        .filter(|check| check["outcome"] != "kept")
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checks.len() >= CHECKS_MIN, "{} checks", checks.len());
}
