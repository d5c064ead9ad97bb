//! Calls the client no longer wants.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::converse::CANCELLABLE_AFTER;
use tidegate_simulator::End;

use crate::world::{Said, Script, Setup, Step, complete};

use super::talk::{Client, VERSION, asking, everything, form, name, requiring};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// An upstream that does not answer for an hour; it may begin a stream or say nothing.
fn slow(version: &'static str, begins: bool) -> Script {
    let script = if version == VERSION {
        Script::legacy(version, &["ask"])
    } else {
        Script::modern(&["ask"])
    };
    script.on("tools/call", move |heard| {
        if !begins {
            return Said::After(60 * MINUTE, Box::new(Said::Result(complete("late"))));
        }
        Said::Stream(vec![
            Step::Bytes(b": begun\n\n".to_vec()),
            Step::Wait(60 * MINUTE),
            Step::Send(heard.response(&complete("late"))),
        ])
    });
    script
}

const PATIENT: fn() -> Value = || json!({ "timeoutMs": 600_000 });

#[test]
fn a_call_that_is_cancelled_through_another_isolate_ends_without_a_response() {
    let like = [
        (json!(7), json!("7")),
        (json!("7"), json!(7)),
        (json!("\u{e4} b"), json!("a b")),
    ];
    for (version, begins) in [
        (VERSION, true),
        (VERSION, false),
        ("2026-07-28", true),
        ("2026-07-28", false),
    ] {
        // Before the answer is committed to a stream, and after.
        for ((id, other), running) in like.clone().into_iter().zip([2, 2, 30]) {
            let script = slow(version, begins);
            let world = Setup::new()
                .upstream_with("up", &script, &PATIENT())
                .start();
            let client = Client::of(&world, everything());
            let mut call = client.open(client.tool().id(id.clone()));
            call.wait(CANCELLABLE_AFTER + running * SECOND);
            let elsewhere = world.isolate();
            client.at(&elsewhere).cancel(other);
            // The same id in another session is another call.
            Client::of(&world, everything()).cancel(id.clone());
            call.wait(SECOND);
            assert!(
                world
                    .audits()
                    .iter()
                    .all(|line| line["method"] != "tools/call")
            );
            client.at(&elsewhere).cancel(id);
            assert_eq!(call.next(), None, "no response");
            let lines = world.audits();
            let lines: Vec<_> = lines
                .iter()
                .filter(|line| line["method"] == "tools/call")
                .collect();
            assert_eq!(lines.len(), 1);
            assert_eq!(lines[0]["outcome"], "cancelled");
            drop(call);
            world.step_deferred();
            if script.is_modern() {
                let ends: Vec<End> = world.exchanges("up").iter().map(|e| e.end()).collect();
                assert_eq!(ends.last(), Some(&End::Cancelled));
                assert_eq!(world.count("up", "notifications/cancelled"), 0);
            } else {
                let told = world.bodies("up", "notifications/cancelled");
                let call = world.bodies("up", "tools/call");
                assert_eq!(told.len(), 1);
                assert_eq!(told[0]["params"], json!({ "requestId": call[0]["id"] }));
            }
        }
    }
}

#[test]
fn a_call_that_waits_for_an_answer_can_be_cancelled_too() {
    let (ours, _) = asking(&[("elicitation/create", form())]);
    let requests = json!({ "k": { "method": "elicitation/create", "params": form() } });
    for script in [ours, requiring(requests)] {
        let world = Setup::new().upstream("up", &script).start();
        let client = Client::of(&world, everything());
        let mut call = client.call();
        let question = call.question();
        client.cancel(json!(1));
        assert_eq!(call.next(), None);
        drop(call);
        world.settle();
        client.answer(&question, name("Late"));
        let legacy = usize::from(!script.is_modern());
        assert_eq!(world.count("up", "notifications/cancelled"), legacy);
        assert_eq!(world.count("up", "tools/call"), 1);
        assert_eq!(
            world
                .sim
                .atomic
                .keys()
                .iter()
                .filter(|key| key.starts_with("mail/"))
                .count(),
            0
        );
    }
}

#[test]
fn a_short_call_has_no_mailbox() {
    let script = Script::modern(&["ask"]);
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    assert_eq!(world.call(client.tool()).status, 200);
    client.cancel(json!(1));
    assert_eq!(
        world.sim.atomic.operations("mail/"),
        1,
        "where the cancellation looked"
    );
    assert_eq!(world.sim.atomic.keys(), [""; 0]);
}

#[test]
fn a_client_that_goes_away_is_recorded_as_gone() {
    let script = slow(VERSION, true);
    let world = Setup::new()
        .upstream_with("up", &script, &PATIENT())
        .start();
    let client = Client::of(&world, everything());
    let mut call = client.call();
    call.wait(10 * SECOND);
    drop(call);
    assert_eq!(world.audits().last().unwrap()["outcome"], "disconnected");
    world.settle();
    assert_eq!(world.count("up", "notifications/cancelled"), 1);
    assert_eq!(
        world
            .sim
            .atomic
            .keys()
            .iter()
            .filter(|key| key.starts_with("mail/"))
            .count(),
        0
    );
}

#[test]
fn a_call_that_runs_long_looks_for_mail_a_few_times_a_minute() {
    let world = Setup::new()
        .upstream_with("up", &slow(VERSION, true), &PATIENT())
        .start();
    let mut call = Client::of(&world, everything()).call();
    call.wait(CANCELLABLE_AFTER + SECOND);
    let before = world.sim.atomic.operations("mail/");
    call.wait(5 * MINUTE);
    let looks = world.sim.atomic.operations("mail/") - before;
    assert!((10..=24).contains(&looks), "{looks}");
}

#[test]
fn a_client_that_goes_away_has_not_cancelled() {
    for version in [VERSION, "2026-07-28"] {
        let script = slow(version, true);
        let ended = Rc::new(Cell::new(false));
        let end = Rc::clone(&ended);
        script.on("tools/call", move |heard| {
            let end = Rc::clone(&end);
            Said::Stream(vec![
                Step::Bytes(b": begun\n\n".to_vec()),
                Step::Wait(20 * SECOND),
                Step::Until(Rc::new(move || {
                    end.set(true);
                    true
                })),
                Step::Send(heard.response(&complete("late"))),
            ])
        });
        let world = Setup::new()
            .upstream_with("up", &script, &PATIENT())
            .start();
        let client = Client::of(&world, everything());
        let mut call = client.call();
        call.wait(10 * SECOND);
        drop(call);
        world.settle();
        assert_eq!(world.count("up", "notifications/cancelled"), 0, "{version}");
        assert!(ended.get(), "{version}: it ran to its end");
    }
}
