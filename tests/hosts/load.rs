//! Many tasks of many clients at once, on the runtime alone: none is lost, none runs twice.

use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::gateway::xtask;
use crate::work::trial;
use crate::world::World;

const TASKS: u64 = 100;

/// A task asks for this much at most: it is stored when it is made, begun and ended, and
/// read for the message and by its polls.
const STORE_PER_TASK_MAX: u64 = 12;

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let title = format!("load::{TASKS} tasks of ten clients all end, each run once");
    vec![trial(world, title, all_end)]
}

fn all_end(world: &World) {
    // Built by then: two builds at once would be in each other's way.
    world.ordinary();
    let count = TASKS.to_string();
    let output = xtask()
        .args(["bench", "--tasks", &count, "--clients", "10"])
        .args(["--seconds", "1", "--rounds", "1", "--json"])
        .output()
        .expect("cargo starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let told: Value = printed
        .lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("{printed} {complaint}"));
    assert!(output.status.success(), "{told} {complaint}");
    assert_eq!(told["completed"], TASKS, "{told}");
    let used = |name: &str| told["used"][name].as_u64().unwrap_or_default();
    assert_eq!(used("upstream tools/call"), TASKS, "{told}");
    assert_eq!(used("queue send"), TASKS, "one message each: {told}");
    let store = used("store get") + used("store swap") + used("store wait");
    assert!(store <= STORE_PER_TASK_MAX * TASKS, "{told}");
}
