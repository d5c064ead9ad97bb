//! One upstream's whole list: memory → KV → the upstream.
//!
//! It is read within bounds, and kept for as long as the upstream allows (`ttlMs`,
//! `cacheScope`), here and, if it is for all, in KV.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tidegate_mcp::catalog::{CacheHints, CacheScope, Kind, Page};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::METHOD_NOT_FOUND;

use super::shared;
use crate::auth::{Principal, PrincipalId};
use crate::config::Upstream;
use crate::context::Context;
use crate::credentials;
use crate::egress;
use crate::error::{Error, Rejection};
use crate::memory::Bounded;
use crate::platform::{LogLevel, Platform};
use crate::time::Timestamp;
use crate::tools;
use crate::upstream::{self, Outgoing};

/// Most pages read from one upstream for one list.
const UPSTREAM_PAGES_MAX: usize = 64;
/// Most entries taken from one upstream for one list.
pub(super) const UPSTREAM_ITEMS_MAX: usize = 5_000;
/// Longest an upstream's list is kept, whatever it allows.
pub(super) const KEEP_MAX: Duration = Duration::from_secs(300);
/// Most lists one isolate keeps.
const LISTS_MAX: usize = 256;

/// What an isolate remembers of lists.
pub(crate) struct Memory {
    lists: Bounded<ListKey, (Rc<Listed>, Timestamp)>,
    pub(super) shared: shared::Memory,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            lists: Bounded::new(LISTS_MAX),
            shared: shared::Memory::default(),
        }
    }
}

/// Configuration, upstream, kind, and for a private list whose it is.
type ListKey = (String, String, Kind, Option<String>);

/// One upstream's whole list, in its own names.
pub(super) struct Listed {
    pub(super) items: Vec<Object>,
    pub(super) hints: CacheHints,
    pub(super) asked_at: Timestamp,
}

impl Listed {
    /// What may be said of it to whoever keeps it from now on: nobody keeps it longer than
    /// its upstream allowed.
    pub(super) fn hints(&self, now: Timestamp) -> CacheHints {
        let age = u64::try_from(now.since(self.asked_at).as_millis()).unwrap_or(u64::MAX);
        CacheHints {
            ttl_ms: self.hints.ttl_ms.saturating_sub(age),
            scope: self.hints.scope,
        }
    }

    /// Whom it may be kept for; `None`: for all.
    fn owner<'a>(&self, asked_by: &'a PrincipalId) -> Option<&'a PrincipalId> {
        match self.hints.scope {
            CacheScope::Public => None,
            CacheScope::Private => Some(asked_by),
        }
    }
}

/// Forgets what an upstream lists, whoever asked: it says that it lists something else.
pub(crate) fn forget<P: Platform>(context: &Context<P>, upstream: &str, kind: Kind) {
    let lists = &context.memory.catalog.lists;
    lists.forget(|(_, of, listed, _)| of == upstream && *listed == kind);
    shared::changed(context, upstream, kind);
    if kind == Kind::Tools {
        tools::forget(context, upstream);
    }
}

/// One upstream's list, remembered for as long as it allows; `None` if it declares none.
pub(super) async fn listed<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &Principal,
    kind: Kind,
) -> Result<Option<Rc<Listed>>, Error> {
    if let Some(listed) = known(context, upstream, &principal.id, kind).await {
        return Ok(Some(listed));
    }
    // All of it together, so that nobody waits for an upstream longer than for a call of it.
    let until = context.now() + Duration::from_millis(upstream.timeout_ms);
    let facts = upstream::facts(context, upstream, principal).await?;
    let capability = match kind {
        Kind::Tools => "tools",
        Kind::Prompts => "prompts",
        Kind::Resources | Kind::ResourceTemplates => "resources",
    };
    if !facts.capabilities().contains(capability) {
        return Ok(None);
    }
    let left = until.since(context.now());
    let listed = fetch(context, upstream, &principal.id, kind, left).await?;
    let listed = keep(context, upstream, &principal.id, kind, listed);
    shared::share(context, upstream, kind, &listed);
    Ok(Some(listed))
}

/// Sees to it that the definitions of the upstream's tools are known, whether or not the
/// list as a whole may be kept.
pub(crate) async fn tools<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
) -> Result<(), Error> {
    if let Some(listed) = known(context, upstream, principal, Kind::Tools).await {
        learn(context, upstream, principal, &listed);
        return Ok(());
    }
    let timeout = tools::LIST_TIMEOUT.min(Duration::from_millis(upstream.timeout_ms));
    let listed = fetch(context, upstream, principal, Kind::Tools, timeout).await?;
    let listed = keep(context, upstream, principal, Kind::Tools, listed);
    shared::share(context, upstream, Kind::Tools, &listed);
    Ok(())
}

/// Forgets the upstream's list of tools: it has changed.
pub(crate) fn forget_tools<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
) {
    for owner in [None, Some(principal)] {
        let key = list_key(context, upstream, Kind::Tools, owner);
        context.memory.catalog.lists.remove(&key);
    }
    shared::changed(context, upstream.key(), Kind::Tools);
}

fn list_key<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    kind: Kind,
    owner: Option<&PrincipalId>,
) -> ListKey {
    let digest = context.settings.digest.clone();
    let owner = owner.map(|owner| credentials::known_as(context, upstream, owner));
    (digest, upstream.key().clone(), kind, owner)
}

/// A list that may be used for this principal, from memory or KV.
async fn known<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    kind: Kind,
) -> Option<Rc<Listed>> {
    if let Some(listed) = remembered(context, upstream, principal, kind) {
        return Some(listed);
    }
    let listed = shared::read(context, upstream, kind).await?;
    Some(keep(context, upstream, principal, kind, listed))
}

/// A list this isolate may still use for this principal.
fn remembered<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    kind: Kind,
) -> Option<Rc<Listed>> {
    let (now, lists) = (context.now(), &context.memory.catalog.lists);
    [None, Some(principal)].into_iter().find_map(|owner| {
        let kept = lists.get(&list_key(context, upstream, kind, owner));
        let (listed, until) = kept?;
        (until > now).then_some(listed)
    })
}

/// Remembers a list for as long as its upstream allows, and for whom.
fn keep<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    kind: Kind,
    listed: Listed,
) -> Rc<Listed> {
    let listed = Rc::new(listed);
    if kind == Kind::Tools {
        learn(context, upstream, principal, &listed);
    }
    let keep = Duration::from_millis(listed.hints.ttl_ms).min(KEEP_MAX);
    if keep > Duration::ZERO {
        let key = list_key(context, upstream, kind, listed.owner(principal));
        let kept = (Rc::clone(&listed), listed.asked_at + keep);
        context.memory.catalog.lists.insert(key, kept);
    }
    listed
}

fn learn<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    listed: &Listed,
) {
    let owner = listed.owner(principal);
    tools::learn(context, upstream, owner, &listed.items, listed.asked_at);
}

/// Every page, within `timeout` in all.
async fn fetch<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    kind: Kind,
    timeout: Duration,
) -> Result<Listed, Error> {
    let mut listed = Listed {
        items: Vec::new(),
        hints: CacheHints {
            ttl_ms: u64::MAX,
            scope: CacheScope::Public,
        },
        asked_at: context.now(),
    };
    let until = listed.asked_at + timeout;
    let mut cursor: Option<String> = None;
    for _ in 0..UPSTREAM_PAGES_MAX {
        let mut params = Object::default();
        if let Some(cursor) = &cursor {
            params.insert("cursor", cursor);
        }
        let left = until.since(context.now());
        let outgoing = Outgoing::own(kind.list_method(), params, principal.clone(), left);
        let result = match egress::whole(upstream::call(context, upstream, outgoing).await).await {
            // Advertised, yet not served: nothing to list.
            Err(Error::Rejection(Rejection::Protocol { error, .. }))
                if error.code == METHOD_NOT_FOUND =>
            {
                listed.hints = CacheHints::NONE;
                return Ok(listed);
            }
            result => result?,
        };
        let page = Page::parse(kind, &result).map_err(|e| Rejection::UpstreamInvalid {
            upstream: upstream.name.clone(),
            reason: e.to_string(),
            asked: true,
        })?;
        listed.hints = listed.hints.combine(page.hints());
        if upstream.credentials.are_personal() {
            // Whatever it says: nobody else has shown it this.
            listed.hints.scope = CacheScope::Private;
        }
        listed.items.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(listed);
        }
        if listed.items.len() >= UPSTREAM_ITEMS_MAX {
            break;
        }
    }
    let fields =
        json!({ "upstream": upstream.name, "list": kind.member(), "items": listed.items.len() });
    context.log(LogLevel::Warn, "list_cut", fields);
    listed.items.truncate(UPSTREAM_ITEMS_MAX);
    Ok(listed)
}
