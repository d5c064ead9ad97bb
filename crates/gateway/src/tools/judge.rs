//! Holding a call's arguments and its structured result to the tool's schemas.
//!
//! What cannot be checked within the bounds of [`crate::schema`] passes unchecked and is
//! logged: upstreams must validate for themselves, and a tool that works must not stop
//! working because a gateway cannot read its schema.

use std::rc::Rc;

use futures_util::StreamExt;
use serde_json::json;
use serde_json::value::RawValue;
use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::{self, Object};

use super::{Definition, definition};
use crate::auth::PrincipalId;
use crate::config::{Upstream, Validation};
use crate::context::Context;
use crate::egress::{Event, Reply};
use crate::error::{Error, Rejection};
use crate::platform::{LogLevel, Platform};
use crate::schema::{self, Document, Unusable, Verdict, Violation};

/// The reply, whose result must fit the tool's output schema.
pub(super) fn hold<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    name: &str,
    definition: Rc<Definition>,
    reply: Reply,
) -> Result<Reply, Error> {
    if definition.output.is_none() {
        return Ok(reply);
    }
    let (context, upstream, name) = (context.clone(), upstream.clone(), name.to_owned());
    let hold = move |result: Object| {
        let tool = Tool {
            context: &context,
            upstream: &upstream,
            name: &name,
            definition: &definition,
        };
        tool.output(&result).map(|()| result)
    };
    match reply {
        Reply::Result(result) => hold(result).map(Reply::Result),
        Reply::Stream(events) => Ok(Reply::Stream(
            events
                .map(move |event| match event {
                    Event::Notification(_) | Event::Request(_) | Event::Question(_) => event,
                    Event::End(end) => Event::End(end.and_then(&hold)),
                })
                .boxed_local(),
        )),
    }
}

/// A result that comes later, of a task for example, if it fits what the tool declares.
/// Where the definition cannot be had it is passed on unjudged.
pub(crate) async fn held<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    name: &str,
    result: Object,
) -> Result<Object, Error> {
    let definition = definition(context, upstream, principal, name).await;
    if let Ok(Some(definition)) = definition {
        let tool = Tool {
            context,
            upstream,
            name,
            definition: &definition,
        };
        tool.output(&result)?;
    }
    Ok(result)
}

/// A tool that is called, and what is known of it.
pub(super) struct Tool<'a, P> {
    pub(super) context: &'a Context<P>,
    pub(super) upstream: &'a Upstream,
    /// Its name at the upstream.
    pub(super) name: &'a str,
    pub(super) definition: &'a Definition,
}

impl<P: Platform> Tool<'_, P> {
    /// What is wrong with the arguments. A schema nobody here can read is told now: once
    /// the tool has run it would be too late.
    pub(super) fn input(&self, params: &Object) -> Result<Vec<Violation>, Error> {
        if self.upstream.validation == Validation::Off {
            return Ok(Vec::new());
        }
        if let Some(output) = &self.definition.output
            && let Some((why, first)) = schema::unusable(self.schemas(), output)
        {
            self.unusable("outputSchema", &why, first)?;
        }
        let Some(document) = &self.definition.input else {
            return Ok(Vec::new());
        };
        let none = json::raw(&Object::default());
        let arguments = params.get("arguments");
        let arguments = arguments.filter(|arguments| arguments.get() != "null");
        let arguments = arguments.unwrap_or(&none);
        // Many clients say `null` for what they leave out, and so may headers (MCP 2026-07-28):
        // whether the tool takes it is for the tool.
        let spoken = without_nulls(arguments);
        let fits = |value: &RawValue| {
            let verdict = schema::check(self.schemas(), document, value);
            matches!(verdict, Verdict::Fits)
        };
        if spoken.is_some_and(|spoken| fits(&spoken)) {
            return Ok(Vec::new());
        }
        let violations = self.judge("inputSchema", document, arguments)?;
        match self.upstream.validation {
            Validation::Enforce => Ok(violations),
            Validation::Warn | Validation::Off => Ok(Vec::new()),
        }
    }

    /// Whether the result may be passed on.
    fn output(&self, result: &Object) -> Result<(), Error> {
        let failed = result
            .get("isError")
            .is_some_and(|flag| flag.get() == "true");
        let (Some(document), Some(content)) =
            (&self.definition.output, result.get("structuredContent"))
        else {
            return Ok(());
        };
        let complete = ResultType::of(result) == ResultType::Complete;
        if self.upstream.validation == Validation::Off || failed || !complete {
            return Ok(());
        }
        let violations = self.judge("outputSchema", document, content)?;
        match (violations.first(), self.upstream.validation) {
            (Some(first), Validation::Enforce) => Err(self.invalid(format!(
                "`structuredContent` does not fit the tool's output schema at {}: {}",
                place(first),
                first.expected
            ))),
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// What is wrong with a value; what of it the operator should know is logged.
    fn judge(
        &self,
        which: &'static str,
        document: &Document,
        value: &RawValue,
    ) -> Result<Vec<Violation>, Error> {
        match schema::check(self.schemas(), document, value) {
            Verdict::Fits => Ok(Vec::new()),
            Verdict::Unchecked(why) => {
                self.log(LogLevel::Warn, "unchecked", which, why);
                Ok(Vec::new())
            }
            Verdict::Unusable { why, first } => {
                self.unusable(which, &why, first)?;
                Ok(Vec::new())
            }
            Verdict::Violates(violations) => {
                // Not the path to the value: parts of it may be the caller's words.
                let rule = violations.first().map_or("", |first| &first.rule);
                self.log(LogLevel::Warn, "schema_violated", which, rule);
                Ok(violations)
            }
        }
    }

    /// A schema nothing can be checked against. An unknown dialect is an error, as the
    /// specification has it; any other defect is the upstream's own affair, whose tool has
    /// worked without the gateway's checks before.
    fn unusable(&self, which: &'static str, why: &Unusable, first: bool) -> Result<(), Error> {
        if first {
            self.log(LogLevel::Warn, "schema_unusable", which, &why.to_string());
        }
        match (why, self.upstream.validation) {
            (Unusable::Dialect(_), Validation::Enforce) => {
                Err(self.invalid(format!("the tool's `{which}` is of an {why}")))
            }
            (Unusable::Dialect(_) | Unusable::TooLarge | Unusable::Invalid(_), _) => Ok(()),
        }
    }

    fn schemas(&self) -> &schema::Memory {
        &self.context.memory.tools.schemas
    }

    fn invalid(&self, reason: String) -> Error {
        let upstream = self.upstream.name.clone();
        Rejection::UpstreamInvalid {
            upstream,
            reason,
            asked: true,
        }
        .into()
    }

    fn log(&self, level: LogLevel, event: &str, which: &str, reason: &str) {
        let upstream = &self.upstream.name;
        let fields =
            json!({ "upstream": upstream, "tool": self.name, "schema": which, "reason": reason });
        self.context.log(level, event, fields);
    }
}

/// The arguments without those that are null, if some are.
fn without_nulls(arguments: &RawValue) -> Option<Box<RawValue>> {
    if !arguments.get().contains("null") {
        return None;
    }
    let mut arguments = Object::from_raw(arguments).ok()?;
    let all: Vec<String> = arguments.keys().map(str::to_owned).collect();
    let is_null = |name: &String| {
        arguments
            .get(name)
            .is_some_and(|value| value.get() == "null")
    };
    let nulls: Vec<String> = all.into_iter().filter(is_null).collect();
    for name in &nulls {
        arguments.remove(name);
    }
    (!nulls.is_empty()).then(|| arguments.to_raw())
}

/// What is wrong with the arguments of a call, as the tool itself would say it.
pub(super) fn told(exposed: &str, violations: &[Violation]) -> Object {
    let mut text = format!("The arguments do not fit the input schema of `{exposed}`:");
    for violation in violations {
        text.push_str(&format!("\n- {}: {}", place(violation), violation.expected));
    }
    Object::new()
        .with("resultType", &ResultType::COMPLETE)
        .with("content", &json!([{ "type": "text", "text": text }]))
        .with("isError", &true)
}

fn place(violation: &Violation) -> &str {
    match violation.at.as_str() {
        "" => "the top level",
        at => at,
    }
}
