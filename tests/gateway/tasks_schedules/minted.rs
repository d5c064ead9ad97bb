//! The tasks an upstream makes of calls itself, which runs follow.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Value, json};
use tidegate_gateway::platform::HttpError;

use crate::tasks::TASKS;
use crate::tasks_passed::shown;
use crate::world::{Said, Script};

/// The tasks of one upstream; clones are the same.
#[derive(Clone)]
pub struct Minted {
    /// How often each is asked about before it has ended.
    takes: u64,
    /// What each comes to, and how often it was asked about.
    tasks: Rc<RefCell<BTreeMap<String, (Value, u64)>>>,
    asked: Rc<Cell<u64>>,
}

impl Minted {
    pub fn new(takes: u64) -> Self {
        Self {
            takes,
            tasks: Rc::default(),
            asked: Rc::default(),
        }
    }

    /// Makes a task of a call that comes to this.
    pub fn mint(&self, result: Value) -> Said {
        let id = format!("minted-{}", self.tasks.borrow().len());
        self.tasks.borrow_mut().insert(id.clone(), (result, 0));
        let mut made = shown(&id, &json!({ "status": "working" }));
        made["resultType"] = "task".into();
        Said::Result(made)
    }

    /// Lets the upstream be asked about them; every seventh answer is lost.
    pub fn answer_in(&self, script: &Script) {
        script.capability("extensions", json!({ TASKS: {} }));
        let minted = self.clone();
        script.on("tasks/get", move |heard| {
            minted.asked.set(minted.asked.get() + 1);
            if minted.asked.get().is_multiple_of(7) {
                return Said::NoAnswer(HttpError::MaybeSent("cut".to_owned()));
            }
            let id = heard.params()["taskId"].as_str().unwrap();
            let mut tasks = minted.tasks.borrow_mut();
            let (result, asked) = tasks.get_mut(id).expect("a task of its own");
            *asked += 1;
            let view = match *asked > minted.takes {
                true => json!({ "status": "completed", "result": result }),
                false => json!({ "status": "working", "statusMessage": format!("{asked}") }),
            };
            Said::Result(shown(id, &view))
        });
        script.on("tasks/cancel", |_| {
            Said::Result(json!({ "resultType": "complete" }))
        });
    }
}
