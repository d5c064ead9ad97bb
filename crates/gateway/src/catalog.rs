//! What the upstreams list, merged: configured order first, then each upstream's own.
//!
//! A dead upstream leaves the others' entries standing; the result's `_meta` names it to
//! those who may know of it.
//! Clients see pages with sealed cursors, filtered by the same policy that decides calls.

mod listed;
pub mod shared;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_mcp::catalog::{CacheHints, CacheScope, Kind, Page};
use tidegate_mcp::headers;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::version::ProtocolVersion;

use crate::auth::{Principal, PrincipalId};
use crate::canary;
use crate::config::Upstream;
use crate::context::Context;
use crate::credentials;
use crate::discover::upstreams;
use crate::error::{Error, Rejection};
use crate::ingress::Endpoint;
use crate::names;
use crate::platform::{LogLevel, Platform};
use crate::policy::{self, Hints, Subject};
use crate::seal::Purpose;
use crate::switches;
use crate::tasks;
use listed::listed;
pub(crate) use listed::{Memory, forget, forget_tools, tools};

/// Most entries on one page.
pub const PAGE_MAX: usize = 250;
/// `_meta` key of a list some upstreams are missing from.
pub const UNAVAILABLE: &str = "io.tidegate/unavailableUpstreams";

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

/// Which list is asked for.
pub struct Asked<'a> {
    /// Of what.
    pub kind: Kind,
    /// From where on.
    pub cursor: Option<&'a str>,
    /// How the client speaks.
    pub version: ProtocolVersion,
}

/// Answers a list request.
pub async fn list<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    asked: Asked<'_>,
) -> Result<Object, Error> {
    let Asked { kind, cursor, .. } = asked;
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
    let mut items = exposed(context, endpoint, principal, &asked, merged.entries);
    let next_cursor = if items.len() > offset.saturating_add(PAGE_MAX) {
        let next = Cursor {
            path: endpoint.key(),
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
        cursor.path == endpoint.key()
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
    // Where names tell upstreams apart, one that is switched off, or that the caller may not
    // know of, is not even asked; else the names it has would go to others.
    let apart = names::prefixed(&context.settings, endpoint) || !endpoint.is_every();
    let known = |upstream: &Upstream| policy::knows(context, principal, upstream);
    let left_out = |upstream: &&Upstream| {
        apart && (switches::kills_upstream(context, &upstream.name) || !known(upstream))
    };
    let (off, on): (Vec<_>, Vec<_>) = upstreams(&context.settings, endpoint).partition(left_out);
    let on = on.into_iter();
    let versions = on.map(|upstream| canary::version(context, upstream, &principal.id));
    let asked = versions.map(|upstream| async move {
        (upstream, listed(context, upstream, principal, kind).await)
    });
    let mut merged = Merged {
        entries: Vec::new(),
        hints: CacheHints {
            ttl_ms: u64::MAX,
            scope: CacheScope::Public,
        },
        unavailable: Vec::new(),
        declared: !off.is_empty(),
    };
    let now = context.now();
    let mut failure = None;
    let mut answered = !off.is_empty();
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
            Err(Error::Rejection(Rejection::NotConnected { .. })) if kind == Kind::Tools => {
                answered = true;
                merged.declared = true;
                merged.hints = merged.hints.combine(CacheHints::NONE);
                let item = credentials::connect_tool(&upstream.name);
                merged.entries.push(Entry { upstream, item });
            }
            Err(error) => {
                let fields = json!({ "upstream": upstream.name, "list": kind.member(), "reason": error.to_string() });
                context.log(LogLevel::Warn, "upstream_left_out", fields);
                if known(upstream) {
                    merged.unavailable.push(upstream.name.clone());
                    failure.get_or_insert(error);
                } else {
                    // As if it listed what this caller does not see.
                    answered = true;
                    merged.declared = true;
                }
            }
        }
    }
    match failure {
        Some(error) if !answered => return Err(error),
        // It may be back any moment.
        Some(_) => merged.hints.ttl_ms = 0,
        None if merged.entries.is_empty() => merged.hints = CacheHints::NONE,
        None => {}
    }
    // What is switched off too.
    if switches::count(&context.memory.switches, now) > 0 {
        merged.hints.ttl_ms = 0;
    }
    Ok(merged)
}

/// The entries this caller may see, under the names this endpoint shows.
fn exposed<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    &Asked { kind, version, .. }: &Asked<'_>,
    entries: Vec<Entry<'_>>,
) -> Vec<Object> {
    let tasks = tasks::legacy::offered(&context.settings, version);
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
        let killed = match kind {
            Kind::Tools => switches::kills_tool(context, &upstream.name, &own),
            Kind::Prompts | Kind::Resources | Kind::ResourceTemplates => {
                switches::kills_upstream(context, &upstream.name)
            }
        };
        if killed {
            continue;
        }
        let hints = || match policy::wants_hints(context) {
            true => Hints::of(&item),
            false => Hints::default(),
        };
        let subject = match kind {
            Kind::Tools => Subject::Tool(&own, Some(hints())),
            Kind::Prompts => Subject::Prompt(&own),
            Kind::Resources => Subject::Resource(Some(&own)),
            Kind::ResourceTemplates => Subject::Resource(None),
        };
        let connects = kind == Kind::Tools && credentials::is_connect_tool(upstream, &own);
        let may = match connects {
            true => policy::may_connect(context, principal, upstream),
            false => policy::shown(context, principal, upstream, subject),
        };
        if !may {
            continue;
        }
        if kind != Kind::Tools || tool_usable(context, upstream, &own, &mut item) {
            if kind == Kind::Tools {
                // Whether a call becomes a task is the gateway's to say.
                item.remove("execution");
            }
            if kind == Kind::Tools && tasks {
                let rule = context.settings.rule(&upstream.name, &own);
                let support = json!({ "taskSupport": tasks::legacy::support(rule) });
                item.insert("execution", &support);
            }
            item.insert(kind.key(), &shown);
            if prefixed && kind == Kind::Tools {
                names::expose_tool(&upstream.name, &mut item);
            }
            items.push(item);
        }
    }
    items
}

/// Whether clients can use the tool; applies its rule's description.
fn tool_usable<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    own: &str,
    item: &mut Object,
) -> bool {
    let rule = context.settings.rule(&upstream.name, own);
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
