//! What is posted for another isolate arrives once, whatever the store does meanwhile.

use std::time::Duration;

use serde_json::json;
use tidegate_simulator::Fault;

use crate::world::{Ask, Live, Script, Setup, World};

use super::talk::{Client, asking, everything, form};

#[test]
fn an_answer_is_heard_once() {
    for (reader, fault) in [
        (true, Fault::Fail),
        (true, Fault::FailButPersist),
        (true, Fault::Conflict),
        (false, Fault::Conflict),
    ] {
        let (script, answers) =
            asking(&[("elicitation/create", form()), ("roots/list", json!({}))]);
        let world = Setup::new().upstream("up", &script).start();
        let client = Client::of(&world, everything());
        let mut call = client.call();
        let questions = [call.question(), call.question()];
        let elsewhere = world.isolate();
        // The reader's next write empties the mailbox of the first answer.
        let writes = if reader { (&world, 1) } else { (&elsewhere, 3) };
        writes.0.sim.atomic.faults.arrange("mail/", writes.1, fault);
        for question in &questions {
            let answer = json!({ "for": question["method"] });
            client.at(&elsewhere).answer(question, answer);
            call.wait(Duration::from_secs(2));
        }
        let end = call.end();
        assert_eq!(
            end["result"]["content"][0]["text"], "thanks",
            "{reader} {fault:?}"
        );
        let answers = answers.borrow();
        assert_eq!(answers.len(), 2, "each once");
        let all = answers
            .iter()
            .all(|told| told["result"]["for"] == told["id"]);
        assert!(all, "{fault:?} {answers:?}");
        assert_eq!(writes.0.sim.atomic.faults.pending(), 0);
    }
}

#[test]
fn a_call_for_the_stream_of_a_client_of_2024_11_05_runs_once() {
    for fault in [Fault::Fail, Fault::FailButPersist, Fault::Conflict] {
        let world = Setup::new()
            .upstream("up", &Script::modern(&["ask"]))
            .start();
        let elsewhere = world.isolate();
        let mut stream = world.open(Ask::http("GET", "/sse"));
        stream.head();
        let opened = stream.text();
        let path = opened
            .lines()
            .find_map(|line| line.strip_prefix("data: "))
            .unwrap();
        world.sim.atomic.faults.arrange("mail/", 1, fault);
        for id in 1..=3 {
            let params = json!({ "name": "up__ask" });
            let call =
                json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
            assert_eq!(elsewhere.ask(Ask::post(call).to(path)).status, 202);
            let told = passing(&world, &mut stream, 3);
            assert_eq!(told.matches("\"result\"").count(), 1, "{fault:?} {told}");
            assert!(told.contains(&format!("\"id\":{id}")), "{told}");
        }
        assert_eq!(world.count("up", "tools/call"), 3, "{fault:?}");
        assert_eq!(world.audits().len(), 3);
    }
}

fn passing(world: &World, stream: &mut Live, seconds: u32) -> String {
    let mut told = String::new();
    for _ in 0..seconds * 10 {
        told.push_str(&stream.text());
        world.step_deferred();
        world.sim.clock.advance(Duration::from_millis(100));
    }
    told
}
