//! What has been spent of which quota, in pages, for operators.

use std::collections::BTreeMap;
use std::ops::Bound;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tidegate_mcp::timestamp::format_utc;

use super::account;
use super::period::Stretch;
use super::spenders::{self, SHARDS, Spender};
use crate::config::Quota;
use crate::config::quota::{Enforce, Unit};
use crate::context::Context;
use crate::error::Error;
use crate::keyspace::{self, atomic_add};
use crate::platform::Platform;

/// Most entries on one page.
pub const PAGE_MAX: usize = 100;
/// Most lists read for one page.
pub const PAGE_LISTS_MAX: usize = 64;
/// How many counters are read at once.
const READS_AT_ONCE: usize = 10;

/// What is listed.
#[derive(Default)]
pub(crate) struct Filter {
    pub(crate) quota: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) tool: Option<String>,
    /// A day or a month; the present ones if absent.
    pub(crate) period: Option<String>,
}

impl Filter {
    /// Whether `period` can be one.
    pub(crate) fn is_period(period: &str) -> bool {
        Stretch::parse(period).is_some()
    }

    /// The period of a quota that is asked for.
    fn stretch<P: Platform>(&self, context: &Context<P>, quota: &Quota) -> Option<Stretch> {
        if self.quota.as_ref().is_some_and(|name| *name != quota.name) {
            return None;
        }
        match &self.period {
            None => Some(Stretch::at(quota.period, context.now())),
            Some(label) => Stretch::parse(label)
                .filter(|(period, _)| *period == quota.period)
                .map(|(_, stretch)| stretch),
        }
    }

    fn takes(&self, spender: &Spender) -> bool {
        [
            (&self.principal, &spender.principal),
            (&self.client, &spender.client),
            (&self.tenant, &spender.tenant),
            (&self.tool, &spender.tool),
        ]
        .iter()
        .all(|(wanted, is)| wanted.is_none() || wanted == is)
    }
}

/// Where a page begins: in this quota's list, after this entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    quota: usize,
    shard: usize,
    after: Option<String>,
}

impl Cursor {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let digits = |who: &&str| who.len() == 32 && who.bytes().all(|b| b.is_ascii_hexdigit());
        let quota = parts.next()?.parse().ok()?;
        let shard = parts.next()?.parse().ok().filter(|shard| *shard < SHARDS)?;
        let after = match parts.next() {
            Some(who) => Some(Some(who).filter(digits)?.to_owned()),
            None => None,
        };
        let cursor = Self {
            quota,
            shard,
            after,
        };
        parts.next().is_none().then_some(cursor)
    }

    fn text(&self) -> String {
        let Self {
            quota,
            shard,
            after,
        } = self;
        match after {
            Some(after) => format!("{quota}.{shard}.{after}"),
            None => format!("{quota}.{shard}"),
        }
    }

    /// The next list.
    fn next(&self) -> Self {
        let last = self.shard + 1 >= SHARDS;
        Self {
            quota: self.quota + usize::from(last),
            shard: if last { 0 } else { self.shard + 1 },
            after: None,
        }
    }
}

/// How one quota stands for one of those it counts apart.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    quota: String,
    unit: Unit,
    enforce: Enforce,
    period: String,
    resets_at: String,
    limit: u64,
    /// With what is leased and not spent yet.
    used: u64,
    #[serde(flatten)]
    spender: Spender,
}

/// A page of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    usage: Vec<Line>,
    /// Where the next page begins. A page may be empty and have a next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists what is spent, quota by quota.
pub(crate) async fn list<P: Platform>(
    context: &Context<P>,
    filter: &Filter,
    mut at: Cursor,
) -> Result<Page, Error> {
    let quotas = &context.settings.config.limits.quotas;
    let mut usage = Vec::new();
    for _ in 0..PAGE_LISTS_MAX {
        let Some(quota) = quotas.get(at.quota) else {
            return Ok(Page {
                usage,
                next_cursor: None,
            });
        };
        let Some(stretch) = filter.stretch(context, quota) else {
            at = Cursor {
                quota: at.quota + 1,
                ..Cursor::default()
            };
            continue;
        };
        let found = some(context, quota, &stretch, &at).await?;
        let found = found
            .into_iter()
            .filter(|(_, spender)| filter.takes(spender));
        let room = PAGE_MAX - usage.len();
        let mut found: Vec<(String, Spender)> = found.take(room + 1).collect();
        let more = found.len() > room;
        found.truncate(room);
        let last = found.last().map(|(who, _)| who.clone());
        let read = stream::iter(found).map(|one| line(context, quota, &stretch, one));
        let lines: Vec<Result<Line, Error>> = read.buffered(READS_AT_ONCE).collect().await;
        usage.extend(lines.into_iter().collect::<Result<Vec<Line>, Error>>()?);
        if more {
            at.after = last.or(at.after);
            break;
        }
        at = at.next();
    }
    let next_cursor = Some(at.text());
    Ok(Page { usage, next_cursor })
}

/// The entries of a list after a place in it.
async fn some<P: Platform>(
    context: &Context<P>,
    quota: &Quota,
    stretch: &Stretch,
    at: &Cursor,
) -> Result<BTreeMap<String, Spender>, Error> {
    let key = spenders::key(quota, stretch, at.shard);
    let read = keyspace::atomic_get(context.platform.atomic(), &key).await;
    let Some((_, shard)) = read.map_err(|error| spenders::failed(&error))? else {
        return Ok(BTreeMap::new());
    };
    let after = at.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let rest = shard.spenders.range::<String, _>((after, Bound::Unbounded));
    Ok(rest
        .map(|(who, spender)| (who.clone(), spender.clone()))
        .collect())
}

async fn line<P: Platform>(
    context: &Context<P>,
    quota: &Quota,
    stretch: &Stretch,
    (who, spender): (String, Spender),
) -> Result<Line, Error> {
    let account = account(quota, &who, stretch);
    let sum = atomic_add(
        context.platform.atomic(),
        &account.key,
        0,
        account.kept_until,
    )
    .await?;
    Ok(Line {
        quota: quota.name.clone(),
        unit: quota.unit,
        enforce: quota.enforce,
        period: stretch.label.clone(),
        resets_at: format_utc(stretch.ends.0),
        limit: quota.limit,
        used: u64::try_from(sum).unwrap_or(0),
        spender,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let who = "0123456789abcdef0123456789abcdef";
        for text in ["0.0".to_owned(), "31.15".to_owned(), format!("2.7.{who}")] {
            assert_eq!(Cursor::parse(&text).map(|cursor| cursor.text()), Some(text));
        }
        for text in ["", "0", "0.16", "x.1", "0.0.x", &format!("0.0.{who}.")] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
