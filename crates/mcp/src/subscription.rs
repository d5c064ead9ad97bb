//! What a client wants to be told of without asking: the filter of `subscriptions/listen`,
//! and the notifications it lets through.
//!
//! A filter is what was asked for, what was acknowledged, or what a server declares it can
//! deliver; the three are compared by intersection. Spec: 2026-07-28, "Subscriptions".

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use crate::json::Object;
use crate::jsonrpc::{Notification, RpcError};

/// The first frame of a listen stream.
pub const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
/// The list of tools has changed.
pub const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
/// The list of prompts has changed.
pub const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";
/// The list of resources has changed.
pub const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";
/// A resource has changed.
pub const RESOURCE_UPDATED: &str = "notifications/resources/updated";

/// A task has changed.
pub const TASK_CHANGED: &str = "notifications/tasks";

/// Most resources, and most tasks, one filter may name.
pub const NAMED_MAX: usize = 128;

/// Kinds of notifications.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Changes of the list of tools.
    pub tools: bool,
    /// Changes of the list of prompts.
    pub prompts: bool,
    /// Changes of the list of resources.
    pub resources: bool,
    /// Updates of these resources.
    pub uris: BTreeSet<String>,
    /// Changes of these tasks. Naming none is not the same as not asking.
    pub tasks: Option<BTreeSet<String>>,
}

impl Filter {
    /// The filter in the params of `subscriptions/listen`.
    pub fn of_request(params: &Object) -> Result<Self, RpcError> {
        let filter = match params.get_object("notifications") {
            Some(Ok(filter)) => filter,
            Some(Err(_)) | None => {
                return Err(RpcError::invalid_params(
                    "`notifications` must be an object",
                ));
            }
        };
        let flag = |name| member(&filter, name, "true or false").map(Option::unwrap_or_default);
        Ok(Self {
            tools: flag("toolsListChanged")?,
            prompts: flag("promptsListChanged")?,
            resources: flag("resourcesListChanged")?,
            uris: names(&filter, "resourceSubscriptions")?.unwrap_or_default(),
            tasks: names(&filter, "taskIds")?,
        })
    }

    /// What an acknowledgement honours. What it says in a form of its own is not honoured.
    #[must_use]
    pub fn of_acknowledgement(params: &Object) -> Self {
        let Some(Ok(filter)) = params.get_object("notifications") else {
            return Self::default();
        };
        Self {
            tools: is_true(&filter, "toolsListChanged"),
            prompts: is_true(&filter, "promptsListChanged"),
            resources: is_true(&filter, "resourcesListChanged"),
            uris: lenient(&filter, "resourceSubscriptions").unwrap_or_default(),
            tasks: lenient(&filter, "taskIds"),
        }
    }

    /// As much of this filter as a server with these capabilities delivers.
    #[must_use]
    pub fn declared(&self, capabilities: &Object) -> Self {
        let declares = |name: &str, flag: &str| {
            let capability = capabilities.get_object(name);
            matches!(capability, Some(Ok(capability)) if is_true(&capability, flag))
        };
        let subscribe = declares("resources", "subscribe");
        Self {
            tools: self.tools && declares("tools", "listChanged"),
            prompts: self.prompts && declares("prompts", "listChanged"),
            resources: self.resources && declares("resources", "listChanged"),
            uris: match subscribe {
                true => self.uris.clone(),
                false => BTreeSet::new(),
            },
            tasks: None,
        }
    }

    /// What both let through.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let both = |a: &BTreeSet<String>, b| a.intersection(b).cloned().collect();
        Self {
            tools: self.tools && other.tools,
            prompts: self.prompts && other.prompts,
            resources: self.resources && other.resources,
            uris: both(&self.uris, &other.uris),
            tasks: match (&self.tasks, &other.tasks) {
                (Some(a), Some(b)) => Some(both(a, b)),
                (Some(_), None) | (None, _) => None,
            },
        }
    }

    /// Whether it lets nothing through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let tasks = self.tasks.as_ref().is_none_or(BTreeSet::is_empty);
        !(self.tools || self.prompts || self.resources) && self.uris.is_empty() && tasks
    }

    /// Whether a notification is of a kind it lets through. An update may name a part of
    /// the resource that was asked for, so no URI is compared.
    #[must_use]
    pub fn admits(&self, notification: &Notification) -> bool {
        match notification.method.as_str() {
            TOOLS_CHANGED => self.tools,
            PROMPTS_CHANGED => self.prompts,
            RESOURCES_CHANGED => self.resources,
            RESOURCE_UPDATED => {
                !self.uris.is_empty() && notification.params.get_str("uri").is_some()
            }
            _ => false,
        }
    }

    /// The filter as requests and acknowledgements carry it. What is not asked for is left
    /// out.
    #[must_use]
    pub fn to_object(&self) -> Object {
        let mut filter = Object::new();
        let flags = [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ];
        for (name, _) in flags.iter().filter(|(_, asked)| *asked) {
            filter.insert(name, &true);
        }
        if !self.uris.is_empty() {
            filter.insert("resourceSubscriptions", &self.uris);
        }
        if let Some(tasks) = self.tasks.as_ref().filter(|tasks| !tasks.is_empty()) {
            filter.insert("taskIds", tasks);
        }
        filter
    }

    /// Notifications that say: anything this lets through may have changed. For whoever
    /// did not listen for a while.
    #[must_use]
    pub fn everything(&self) -> Vec<Notification> {
        let lists = [
            (TOOLS_CHANGED, self.tools),
            (PROMPTS_CHANGED, self.prompts),
            (RESOURCES_CHANGED, self.resources),
        ];
        let lists = lists.into_iter().filter(|(_, asked)| *asked);
        let lists = lists.map(|(method, _)| (method, Object::new()));
        let updates = self.uris.iter();
        let updates = updates.map(|uri| (RESOURCE_UPDATED, Object::new().with("uri", uri)));
        lists
            .chain(updates)
            .map(|(method, params)| Notification {
                method: method.to_owned(),
                params,
            })
            .collect()
    }
}

fn member<T: DeserializeOwned>(
    filter: &Object,
    name: &str,
    what: &str,
) -> Result<Option<T>, RpcError> {
    filter.get_as(name).transpose().map_err(|_| {
        RpcError::invalid_params(format_args!("`notifications.{name}` must be {what}"))
    })
}

fn names(filter: &Object, name: &str) -> Result<Option<BTreeSet<String>>, RpcError> {
    let names: Option<BTreeSet<String>> = member(filter, name, "an array of strings")?;
    match names {
        Some(names) if names.len() > NAMED_MAX => Err(RpcError::invalid_params(format_args!(
            "`notifications.{name}` names more than {NAMED_MAX}; listen more than once"
        ))),
        names => Ok(names),
    }
}

fn lenient(filter: &Object, name: &str) -> Option<BTreeSet<String>> {
    filter.get_as(name).and_then(Result::ok)
}

fn is_true(object: &Object, name: &str) -> bool {
    object.get(name).is_some_and(|value| value.get() == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).unwrap()
    }

    fn asked(filter: &str) -> Result<Filter, RpcError> {
        Filter::of_request(&object(&format!("{{\"notifications\":{filter}}}")))
    }

    const ALL: &str = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true,"resourceSubscriptions":["a:1","b:2"],"taskIds":["t"]}"#;

    #[test]
    fn a_filter_is_written_as_it_was_read() {
        for text in [
            "{}",
            ALL,
            r#"{"promptsListChanged":true}"#,
            r#"{"taskIds":["x","y"]}"#,
        ] {
            let filter = asked(text).unwrap();
            assert_eq!(filter.to_object().to_string(), text);
            let params = Object::new().with("notifications", &filter.to_object());
            assert_eq!(Filter::of_acknowledgement(&params), filter);
        }
    }

    #[test]
    fn what_is_not_asked_for_is_left_out() {
        let filter = asked(r#"{"toolsListChanged":false,"resourceSubscriptions":[],"x":1}"#);
        let filter = filter.unwrap();
        assert!(filter.is_empty());
        assert_eq!(filter.to_object().to_string(), "{}");
    }

    #[test]
    fn asking_for_no_task_is_asking() {
        assert_eq!(
            asked(r#"{"taskIds":[]}"#).unwrap().tasks,
            Some(BTreeSet::new())
        );
        assert_eq!(asked("{}").unwrap().tasks, None);
    }

    #[test]
    fn a_malformed_filter_is_refused() {
        let many: Vec<String> = (0..=NAMED_MAX).map(|n| format!("a:{n}")).collect();
        let many = format!("{{\"resourceSubscriptions\":{}}}", crate::json::raw(&many));
        for text in [
            "[]",
            "null",
            r#"{"toolsListChanged":1}"#,
            r#"{"toolsListChanged":null}"#,
            r#"{"resourceSubscriptions":"a:1"}"#,
            r#"{"resourceSubscriptions":[1]}"#,
            r#"{"taskIds":{}}"#,
            &many,
        ] {
            assert!(asked(text).is_err(), "{text}");
        }
        assert!(Filter::of_request(&Object::new()).is_err());
    }

    #[test]
    fn an_acknowledgement_in_another_form_honours_nothing() {
        for text in [
            "{}",
            r#"{"notifications":1}"#,
            r#"{"notifications":{"toolsListChanged":"true","resourceSubscriptions":7}}"#,
        ] {
            assert!(
                Filter::of_acknowledgement(&object(text)).is_empty(),
                "{text}"
            );
        }
    }

    #[test]
    fn only_what_is_declared_is_delivered() {
        let all = asked(ALL).unwrap();
        let cases = [
            ("{}", "{}"),
            (r#"{"tools":{}}"#, "{}"),
            (r#"{"tools":{"listChanged":false}}"#, "{}"),
            (
                r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#,
                r#"{"toolsListChanged":true,"resourceSubscriptions":["a:1","b:2"]}"#,
            ),
            (
                r#"{"prompts":{"listChanged":true},"resources":{"listChanged":true}}"#,
                r#"{"promptsListChanged":true,"resourcesListChanged":true}"#,
            ),
        ];
        for (capabilities, delivered) in cases {
            let declared = all.declared(&object(capabilities));
            assert_eq!(
                declared.to_object().to_string(),
                delivered,
                "{capabilities}"
            );
            assert_eq!(declared.and(&all), declared);
        }
    }

    #[test]
    fn a_filter_admits_its_kinds_alone() {
        let all = asked(ALL).unwrap();
        let everything = all.everything();
        assert_eq!(everything.len(), 5);
        for notification in &everything {
            assert!(all.admits(notification));
            assert!(!Filter::default().admits(notification));
        }
        let progress = Notification {
            method: "notifications/progress".to_owned(),
            params: Object::new(),
        };
        let nameless = Notification {
            method: RESOURCE_UPDATED.to_owned(),
            params: Object::new(),
        };
        assert!(!all.admits(&progress) && !all.admits(&nameless));
    }
}
