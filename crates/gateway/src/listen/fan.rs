//! Many lines as one stream, in the names the endpoint shows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{self, LocalBoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use tidegate_mcp::catalog::Kind;
use tidegate_mcp::jsonrpc::Notification;
use tidegate_mcp::subscription::{
    Filter, PROMPTS_CHANGED, RESOURCE_UPDATED, RESOURCES_CHANGED, TOOLS_CHANGED,
};
use tidegate_mcp::version::Era;

use super::Listener;
use super::line::{Line, Step};
use super::seat::Seat;
use crate::auth::PrincipalId;
use crate::canary;
use crate::catalog;
use crate::config::Upstream;
use crate::context::Context;
use crate::discover::upstreams;
use crate::names;
use crate::platform::Platform;
use crate::settings;
use crate::tasks::watch::{self, Watched};
use crate::time::Timestamp;
use crate::upstream::facts;

/// Most notifications read ahead of a client that is slow to take them.
const AHEAD_MAX: usize = 256;
/// How often a listener looks whether the configuration it goes by is still in force.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The lines of one listener.
pub(super) struct Fan<P> {
    context: Context<P>,
    principal: PrincipalId,
    /// Whether the endpoint shows prefixed names.
    prefixed: bool,
    steps: SelectAll<LocalBoxStream<'static, Heard>>,
    /// The tasks it is told of.
    tasks: BTreeSet<String>,
    lines: Vec<Known>,
    /// Changes nobody has taken yet, no two of them alike.
    ahead: VecDeque<Notification>,
    /// In the endpoint's names, once it is said.
    acknowledged: Option<Filter>,
    until: Timestamp,
    /// When to look whether the configuration is still in force.
    look_at: Timestamp,
    _seat: Seat,
}

/// What is heard.
enum Heard {
    /// On the line of this number.
    Line(usize, Step),
    /// Of a task.
    Task(Notification),
}

/// What is known of one line.
struct Known {
    upstream: Upstream,
    wanted: Filter,
    state: State,
}

enum State {
    Opening,
    Up(Filter),
    Down,
}

impl<P: Platform> Fan<P> {
    /// Opens a line to each upstream that may deliver any of what is wanted, and watches the
    /// tasks.
    pub(super) fn open(
        listener: Listener<P>,
        wanted: &Filter,
        (resources, tasks): (Vec<(Upstream, String)>, Vec<Watched>),
        until: Timestamp,
        seat: Seat,
    ) -> Self {
        let Listener {
            context,
            endpoint,
            principal,
        } = listener;
        let mut uris: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (upstream, own) in resources {
            uris.entry(upstream.name).or_default().insert(own);
        }
        let (mut steps, mut lines) = (SelectAll::new(), Vec::new());
        for upstream in upstreams(&context.settings, &endpoint) {
            let upstream = canary::version(&context, upstream, &principal.id);
            let wanted = Filter {
                uris: uris.remove(&upstream.name).unwrap_or_default(),
                // An upstream's tasks are nothing its clients know of.
                tasks: None,
                ..wanted.clone()
            };
            if wanted.is_empty() {
                continue;
            }
            let line = Line {
                context: context.clone(),
                principal: Rc::clone(&principal),
                upstream: upstream.clone(),
                wanted: wanted.clone(),
                until,
            };
            let index = lines.len();
            let steps_of = line.steps().map(move |step| Heard::Line(index, step));
            steps.push(steps_of.boxed_local());
            lines.push(Known {
                upstream: upstream.clone(),
                wanted,
                state: State::Opening,
            });
        }
        let ids = tasks.iter().map(Watched::handle).collect();
        for task in tasks {
            let changes = watch::changes(context.clone(), task).map(Heard::Task);
            steps.push(changes.boxed_local());
        }
        Self {
            prefixed: names::prefixed(&context.settings, &endpoint),
            principal: principal.id.clone(),
            tasks: ids,
            look_at: context.now() + LOOK_EVERY,
            context,
            steps,
            lines,
            ahead: VecDeque::new(),
            acknowledged: None,
            until,
            _seat: seat,
        }
    }

    /// Waits until every line is up or is known to be down, or until the deadline.
    pub(super) async fn gather(&mut self, deadline: Timestamp) {
        let context = self.context.clone();
        let opening = |line: &Known| matches!(line.state, State::Opening);
        while self.lines.iter().any(opening) && self.ahead.len() < AHEAD_MAX {
            match context.until(deadline, self.steps.next()).await {
                Some(Some(heard)) => self.absorb(heard),
                Some(None) | None => return,
            }
        }
    }

    /// What will be delivered, in the endpoint's names: what is acknowledged where a line
    /// is up, and what may be hoped for where it is not.
    pub(super) async fn acknowledge(&mut self) -> Filter {
        let mut honoured = Filter {
            tasks: (!self.tasks.is_empty()).then(|| self.tasks.clone()),
            ..Filter::default()
        };
        for line in &self.lines {
            let delivers = match &line.state {
                State::Up(filter) => filter.clone(),
                State::Opening | State::Down => {
                    match facts::known(&self.context, &line.upstream, &self.principal, Era::Modern)
                        .await
                    {
                        Some(facts) => line.wanted.declared(&facts.capabilities()),
                        // Whatever it has, it has changed when it is back.
                        None => line.wanted.clone(),
                    }
                }
            };
            honoured.tools |= delivers.tools;
            honoured.prompts |= delivers.prompts;
            honoured.resources |= delivers.resources;
            let uris = delivers.uris.iter();
            let uris = uris.map(|own| names::exposed_uri(self.prefixed, &line.upstream.name, own));
            honoured.uris.extend(uris);
        }
        self.acknowledged = Some(honoured.clone());
        honoured
    }

    /// What changes from now on, until the time is over.
    pub(super) fn into_stream(self) -> LocalBoxStream<'static, Notification> {
        stream::unfold(self, |mut fan| async move {
            let next = fan.next().await?;
            Some((next, fan))
        })
        .boxed_local()
    }

    async fn next(&mut self) -> Option<Notification> {
        let context = self.context.clone();
        loop {
            if let Some(next) = self.ahead.pop_front() {
                return Some(next);
            }
            if context.now() >= self.until {
                return None;
            }
            let next = async {
                match self.steps.next().await {
                    Some(next) => next,
                    // There is no line at all.
                    None => std::future::pending().await,
                }
            };
            match context.until(self.look_at.min(self.until), next).await {
                Some(heard) => self.absorb(heard),
                None => self.look().await,
            }
            // Whatever has come by now is one burst: who is told twice asks twice.
            while self.ahead.len() < AHEAD_MAX
                && let Some(Some(heard)) = self.steps.next().now_or_never()
            {
                self.absorb(heard);
            }
        }
    }

    /// Ends in good order once another configuration is in force: there may be other
    /// upstreams, and other rules for who sees what of them.
    async fn look(&mut self) {
        let context = &self.context;
        self.look_at = context.now() + LOOK_EVERY;
        let force = settings::load(&context.platform, &context.memory).await;
        if force.is_ok_and(|force| force.digest != context.settings.digest) {
            self.until = context.now();
            let promised = self.acknowledged.as_ref();
            self.ahead
                .extend(promised.into_iter().flat_map(Filter::everything));
        }
    }

    fn absorb(&mut self, heard: Heard) {
        let (index, step) = match heard {
            Heard::Line(index, step) => (index, step),
            Heard::Task(changed) => return self.ahead.push_back(changed),
        };
        let Some(line) = self.lines.get_mut(index) else {
            return;
        };
        match step {
            Step::Up(filter) => {
                // Nothing is lost to a client that was promised nothing yet.
                let mut missed = Filter::default();
                if let Some(promised) = &self.acknowledged {
                    missed = filter.clone();
                    missed.uris.retain(|own| {
                        let exposed = names::exposed_uri(self.prefixed, &line.upstream.name, own);
                        promised.uris.contains(&exposed)
                    });
                }
                line.state = State::Up(filter);
                for notification in missed.everything() {
                    self.take(index, notification);
                }
            }
            Step::Down => line.state = State::Down,
            Step::Changed(notification) => self.take(index, notification),
        }
    }

    fn take(&mut self, index: usize, mut notification: Notification) {
        let Some(line) = self.lines.get(index) else {
            return;
        };
        let upstream = &line.upstream.name;
        for kind in stale(&notification.method) {
            catalog::forget(&self.context, line.upstream.key(), *kind);
        }
        if notification.method == RESOURCE_UPDATED
            && let Some(own) = notification.params.get_str("uri")
        {
            let exposed = names::exposed_uri(self.prefixed, upstream, &own);
            notification.params.insert("uri", &exposed);
        }
        let promised = self.acknowledged.as_ref();
        let admitted = promised.is_none_or(|promised| promised.admits(&notification));
        if admitted && !self.ahead.contains(&notification) {
            self.ahead.push_back(notification);
        }
    }
}

/// The lists that a notification makes stale.
fn stale(method: &str) -> &'static [Kind] {
    match method {
        TOOLS_CHANGED => &[Kind::Tools],
        PROMPTS_CHANGED => &[Kind::Prompts],
        RESOURCES_CHANGED => &[Kind::Resources, Kind::ResourceTemplates],
        _ => &[],
    }
}
