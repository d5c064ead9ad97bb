//! What the upstreams list, merged: configured order first, then each upstream's own.
//!
//! Each upstream's list is read whole, within bounds, and kept for as long as the upstream
//! allows (`ttlMs`, `cacheScope`), here and, if it is for all, in KV. A dead upstream leaves the others' entries standing; the
//! result's `_meta` names it. Clients see pages with sealed cursors, filtered by the same
//! policy that decides calls.

use std::collections::{BTreeMap, BTreeSet};
pub mod shared;

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_mcp::catalog::{CacheHints, CacheScope, Kind, Page};
use tidegate_mcp::headers;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{METHOD_NOT_FOUND, RpcError};

use crate::auth::{Principal, PrincipalId};
use crate::config::Upstream;
use crate::context::Context;
use crate::discover::upstreams;
use crate::egress;
use crate::error::{Error, Rejection};
use crate::ingress::Endpoint;
use crate::memory::Bounded;
use crate::names;
use crate::platform::{LogLevel, Platform};
use crate::policy;
use crate::seal::Purpose;
use crate::time::Timestamp;
use crate::tools;
use crate::upstream::{self, Outgoing};

/// Most entries on one page.
pub const PAGE_MAX: usize = 250;
/// Most pages read from one upstream for one list.
const UPSTREAM_PAGES_MAX: usize = 64;
/// Most entries taken from one upstream for one list.
const UPSTREAM_ITEMS_MAX: usize = 5_000;
/// Longest an upstream's list is kept, whatever it allows.
const KEEP_MAX: Duration = Duration::from_secs(300);
/// Most lists one isolate keeps.
const LISTS_MAX: usize = 256;
/// `_meta` key of a list some upstreams are missing from.
pub const UNAVAILABLE: &str = "io.tidegate/unavailableUpstreams";

/// What an isolate remembers of lists.
pub(crate) struct Memory {
    lists: Bounded<ListKey, (Rc<Listed>, Timestamp)>,
    shared: shared::Memory,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            lists: Bounded::new(LISTS_MAX),
            shared: shared::Memory::default(),
        }
    }
}

/// Configuration, upstream, kind, and for a private list the principal.
type ListKey = (String, String, Kind, Option<PrincipalId>);

/// One upstream's whole list, in its own names.
struct Listed {
    items: Vec<Object>,
    hints: CacheHints,
    asked_at: Timestamp,
}

impl Listed {
    /// What may be said of it to whoever keeps it from now on: nobody keeps it longer than
    /// its upstream allowed.
    fn hints(&self, now: Timestamp) -> CacheHints {
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

/// An entry of the merged list.
pub struct Entry<'a> {
    /// Whose it is.
    pub upstream: &'a Upstream,
    /// The entry, in the upstream's own names.
    pub item: Object,
}

struct Merged<'a> {
    entries: Vec<Entry<'a>>,
    hints: CacheHints,
    unavailable: Vec<String>,
    /// Whether any upstream declares such a list.
    declared: bool,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    path: String,
    member: String,
    principal: PrincipalId,
    offset: usize,
}

/// Answers a list request.
pub async fn list<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    kind: Kind,
    cursor: Option<&str>,
) -> Result<Object, Error> {
    let offset = match cursor {
        None => 0,
        Some(cursor) => open_cursor(context, endpoint, principal, kind, cursor)?,
    };
    let merged = merge(context, endpoint, principal, kind).await?;
    if !merged.declared && merged.unavailable.is_empty() {
        // Its capability is not advertised either.
        let error = RpcError::method_not_found(kind.list_method().as_str());
        return Err(Rejection::protocol(error).into());
    }
    let mut items = exposed(context, endpoint, principal, kind, merged.entries);
    let next_cursor = if items.len() > offset.saturating_add(PAGE_MAX) {
        let next = Cursor {
            path: endpoint.path(),
            member: kind.member().to_owned(),
            principal: principal.id.clone(),
            offset: offset + PAGE_MAX,
        };
        Some(
            context
                .settings
                .sealer
                .seal(context.platform.as_ref(), Purpose::Cursor, &next)?,
        )
    } else {
        None
    };
    items.drain(..offset.min(items.len()));
    items.truncate(PAGE_MAX);
    // What a caller may see depends on who it is, unless everybody is nobody.
    let scope = if principal.issuer.is_empty() {
        merged.hints.scope
    } else {
        CacheScope::Private
    };
    let page = Page {
        items,
        next_cursor,
        ttl_ms: merged.hints.ttl_ms,
        cache_scope: scope,
    };
    let mut result = page.to_result(kind);
    if !merged.unavailable.is_empty() {
        result.insert("_meta", &json!({ UNAVAILABLE: merged.unavailable }));
    }
    Ok(result)
}

/// The first upstream that lists something under a name of its own that is `meant`, and that
/// name.
pub async fn named<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    kind: Kind,
    meant: impl Fn(&str) -> bool,
) -> Result<Option<(Upstream, String)>, Error> {
    let merged = merge(context, endpoint, principal, kind).await?;
    Ok(merged.entries.iter().find_map(|entry| {
        let own = entry.item.get_str(kind.key())?;
        meant(&own).then(|| (entry.upstream.clone(), own.into_owned()))
    }))
}

/// The upstream that lists a resource, or could resolve its URI, in bare naming.
pub async fn owner<'a, P: Platform>(
    context: &'a Context<P>,
    endpoint: &'a Endpoint,
    principal: &Principal,
    kind: Kind,
    name: &str,
) -> Result<Option<&'a Upstream>, Error> {
    let names = BTreeSet::from([name.to_owned()]);
    let owners = owners(context, endpoint, principal, kind, &names).await?;
    Ok(owners.into_values().next())
}

/// [`owner`] of each of several names; those nobody lists are left out.
pub(crate) async fn owners<'a, P: Platform>(
    context: &'a Context<P>,
    endpoint: &'a Endpoint,
    principal: &Principal,
    kind: Kind,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, &'a Upstream>, Error> {
    let merged = merge(context, endpoint, principal, kind).await?;
    let listed = |entry: &Entry<'_>, name: &str| match entry.item.get_str(kind.key()) {
        Some(own) if kind == Kind::ResourceTemplates => template_covers(&own, name),
        Some(own) => own == name,
        None => false,
    };
    let owned = names.iter().filter_map(|name| {
        let owner = merged.entries.iter().find(|entry| listed(entry, name))?;
        Some((name.clone(), owner.upstream))
    });
    Ok(owned.collect())
}

/// Whether a URI may come from a template: it begins as the template does.
fn template_covers(template: &str, uri: &str) -> bool {
    let literal = template.split('{').next().unwrap_or_default();
    !literal.is_empty() && uri.starts_with(literal)
}

fn open_cursor<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    kind: Kind,
    cursor: &str,
) -> Result<usize, Error> {
    let opened = context
        .settings
        .sealer
        .open::<Cursor>(Purpose::Cursor, cursor);
    let fits = |cursor: &Cursor| {
        cursor.path == endpoint.path()
            && cursor.member == kind.member()
            && cursor.principal == principal.id
    };
    match opened.filter(fits) {
        Some(cursor) => Ok(cursor.offset),
        None => Err(Rejection::protocol(RpcError::invalid_params(
            "unknown cursor; list again from the first page",
        ))
        .into()),
    }
}

async fn merge<'a, P: Platform>(
    context: &'a Context<P>,
    endpoint: &'a Endpoint,
    principal: &Principal,
    kind: Kind,
) -> Result<Merged<'a>, Error> {
    let asked = upstreams(&context.settings, endpoint).map(|upstream| async move {
        (upstream, listed(context, upstream, principal, kind).await)
    });
    let mut merged = Merged {
        entries: Vec::new(),
        hints: CacheHints {
            ttl_ms: u64::MAX,
            scope: CacheScope::Public,
        },
        unavailable: Vec::new(),
        declared: false,
    };
    let now = context.now();
    let mut failure = None;
    let mut answered = false;
    for (upstream, listed) in join_all(asked).await {
        match listed {
            Ok(None) => answered = true,
            Ok(Some(listed)) => {
                answered = true;
                merged.declared = true;
                merged.hints = merged.hints.combine(listed.hints(now));
                merged.entries.extend(listed.items.iter().map(|item| Entry {
                    upstream,
                    item: item.clone(),
                }));
            }
            Err(error) => {
                let fields = json!({ "upstream": upstream.name, "list": kind.member(), "reason": error.to_string() });
                context.log(LogLevel::Warn, "upstream_left_out", fields);
                merged.unavailable.push(upstream.name.clone());
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(error) if !answered => Err(error),
        Some(_) => {
            // It may be back any moment.
            merged.hints.ttl_ms = 0;
            Ok(merged)
        }
        None => {
            if merged.entries.is_empty() {
                merged.hints = CacheHints::NONE;
            }
            Ok(merged)
        }
    }
}

/// One upstream's list, remembered for as long as it allows; `None` if it declares none.
async fn listed<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &Principal,
    kind: Kind,
) -> Result<Option<Rc<Listed>>, Error> {
    if let Some(listed) = known(context, upstream, &principal.id, kind).await {
        return Ok(Some(listed));
    }
    let facts = upstream::facts(context, upstream, principal).await?;
    let capability = match kind {
        Kind::Tools => "tools",
        Kind::Prompts => "prompts",
        Kind::Resources | Kind::ResourceTemplates => "resources",
    };
    if !facts.capabilities().contains(capability) {
        return Ok(None);
    }
    let timeout = Duration::from_millis(upstream.timeout_ms);
    let listed = fetch(context, upstream, &principal.id, kind, timeout).await?;
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
    shared::changed(context, &upstream.name, Kind::Tools);
}

fn list_key<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    kind: Kind,
    owner: Option<&PrincipalId>,
) -> ListKey {
    let digest = context.settings.digest.clone();
    (digest, upstream.name.clone(), kind, owner.cloned())
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
    let mut cursor: Option<String> = None;
    for _ in 0..UPSTREAM_PAGES_MAX {
        let mut params = Object::default();
        if let Some(cursor) = &cursor {
            params.insert("cursor", cursor);
        }
        let outgoing = Outgoing::own(kind.list_method(), params, principal.clone(), timeout);
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
        })?;
        listed.hints = listed.hints.combine(page.hints());
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

/// The entries this caller may see, under the names this endpoint shows.
fn exposed<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    kind: Kind,
    entries: Vec<Entry<'_>>,
) -> Vec<Object> {
    let prefixed = names::prefixed(&context.settings, endpoint);
    let mut seen = std::collections::BTreeSet::new();
    let mut items = Vec::with_capacity(entries.len());
    for Entry { upstream, mut item } in entries {
        let Some(own) = item.get_str(kind.key()).map(std::borrow::Cow::into_owned) else {
            continue;
        };
        let shown = match kind {
            Kind::Tools | Kind::Prompts => names::exposed_name(prefixed, &upstream.name, &own),
            Kind::Resources | Kind::ResourceTemplates => {
                names::exposed_uri(prefixed, &upstream.name, &own)
            }
        };
        // In bare naming the first upstream that lists a name has it, also when this caller
        // may not see it: calls go by the same rule.
        if !seen.insert(shown.clone()) {
            continue;
        }
        if kind != Kind::Tools || tool_shown(context, principal, upstream, &own, &mut item) {
            item.insert(kind.key(), &shown);
            if prefixed && kind == Kind::Tools {
                names::expose_tool(&upstream.name, &mut item);
            }
            items.push(item);
        }
    }
    items
}

/// Whether this caller may see the tool; applies its rule's description.
fn tool_shown<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    upstream: &Upstream,
    own: &str,
    item: &mut Object,
) -> bool {
    let rule = context.settings.rule(&upstream.name, own);
    if rule.is_some_and(|rule| !policy::permits(principal, rule)) {
        return false;
    }
    // A client must not use a tool whose header annotations are invalid (MCP 2026-07-28).
    if let Some(Err(error)) = item.get("inputSchema").map(headers::header_params) {
        let fields = json!({ "upstream": upstream.name, "tool": own, "reason": error.to_string() });
        context.log(LogLevel::Warn, "tool_dropped", fields);
        return false;
    }
    if let Some(description) = rule.and_then(|rule| rule.description.as_ref()) {
        item.insert("description", description);
    }
    true
}
