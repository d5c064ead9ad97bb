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

/// A host, as it is started.
struct Front {
    name: &'static str,
    flags: &'static [&'static str],
    checks_min: usize,
}

/// What developers start, and the runtime alone: wrangler puts stores and a proxy of its own
/// before and behind it.
const WORKERD: [Front; 2] = [
    Front {
        name: "wrangler dev",
        flags: &["--selftest"],
        checks_min: CHECKS_MIN,
    },
    Front {
        name: "bare workerd",
        flags: &["--selftest", "--raw"],
        checks_min: CHECKS_MIN,
    },
];

const SPIN: [Front; 1] = [Front {
    name: "Spin",
    flags: &["--selftest"],
    checks_min: CHECKS_MIN_WITHOUT_KEEPERS,
}];

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let fronts: &'static [Front] = match Host::chosen() {
        Host::Workerd => &WORKERD,
        Host::Spin => &SPIN,
    };
    let claim = |front: &'static Front| {
        let title = format!("contract::the ports keep every promise on {}", front.name);
        trial(world, title, move |_| every_promise(front))
    };
    fronts.iter().map(claim).collect()
}

fn every_promise(front: &Front) {
    // Named in the configuration, or Spin lets nothing reach it.
    let server = redirecting();
    let upstreams = json!([
        { "name": "closed", "url": closed_url() },
        { "name": "redirecting", "url": server },
    ]);
    let gateway = Gateway::start_with("contract", json!({ "upstreams": upstreams }), front.flags);
    let answer = get(&gateway.at(&format!("/selftest?server={server}")));
    let report = answer.json();
    let checks = report["checks"].as_array().expect("a list of checks");
    let broken: Vec<_> = checks
        .iter()
        .filter(|check| check["outcome"] != "kept")
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checks.len() >= front.checks_min, "{} checks", checks.len());
}
