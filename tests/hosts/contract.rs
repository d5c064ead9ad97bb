//! The contract of the ports, kept by the real ones: the same checks the simulator keeps,
//! run inside the function.

use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::json;

use crate::call::get;
use crate::gateway::{Gateway, Host};
use crate::upstream::{closed_url, redirecting};
use crate::work::trial;
use crate::world::World;

/// Fewer are fewer than there are: some were not run.
const CHECKS_MIN: usize = 41;
/// The same without those about keepers, which Spin has none of.
const CHECKS_MIN_WITHOUT_KEEPERS: usize = 34;

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let host = Host::chosen();
    let title = format!("contract::the ports keep every promise on {host:?}");
    vec![trial(world, title, move |_| every_promise(host))]
}

fn every_promise(host: Host) {
    let (flags, checks_min): (&[&str], _) = match host {
        Host::Workerd => (&["--selftest", "--raw"], CHECKS_MIN),
        Host::Spin => (&["--selftest"], CHECKS_MIN_WITHOUT_KEEPERS),
    };
    // Named in the configuration, or Spin lets nothing reach it.
    let server = redirecting();
    let upstreams = json!([
        { "name": "closed", "url": closed_url() },
        { "name": "redirecting", "url": server },
    ]);
    let gateway = Gateway::start_with("contract", json!({ "upstreams": upstreams }), flags);
    let answer = get(&gateway.at(&format!("/selftest?server={server}")));
    let report = answer.json();
    let checks = report["checks"].as_array().expect("a list of checks");
    let broken: Vec<_> = checks
        .iter()
        .filter(|check| check["outcome"] != "kept")
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checks.len() >= checks_min, "{} checks", checks.len());
}
