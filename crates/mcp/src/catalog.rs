//! Tools, resources, templates and prompts as listed: pages and how long they stay true.
//!
//! Items stay opaque objects; a gateway reads and renames their key and forwards the rest.
//! Spec: 2026-07-28 "Pagination" and "Caching".

use crate::input::ResultType;
use crate::json::{self, JsonError, Object};
use crate::method::Method;

/// What a list lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Tools, by name.
    Tools,
    /// Resources, by uri.
    Resources,
    /// Resource templates, by uri template.
    ResourceTemplates,
    /// Prompts, by name.
    Prompts,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::Tools,
        Self::Resources,
        Self::ResourceTemplates,
        Self::Prompts,
    ];

    /// The method that lists this kind.
    #[must_use]
    pub const fn list_method(self) -> Method {
        match self {
            Self::Tools => Method::ToolsList,
            Self::Resources => Method::ResourcesList,
            Self::ResourceTemplates => Method::ResourceTemplatesList,
            Self::Prompts => Method::PromptsList,
        }
    }

    /// The kind this method lists.
    #[must_use]
    pub fn of(method: Method) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.list_method() == method)
    }

    /// The result member that holds the items.
    #[must_use]
    pub const fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Resources => "resources",
            Self::ResourceTemplates => "resourceTemplates",
            Self::Prompts => "prompts",
        }
    }

    /// The item member that identifies it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::ResourceTemplates => "uriTemplate",
        }
    }
}

/// Who may share a cached result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheScope {
    /// Any caller.
    Public,
    /// Only callers of the same authorization context.
    Private,
}

impl CacheScope {
    /// The name used on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }
}

/// How long a result stays true, and for whom. Never an access control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheHints {
    /// Milliseconds.
    pub ttl_ms: u64,
    /// Who may share it.
    pub scope: CacheScope,
}

impl CacheHints {
    /// Not cacheable: what absent hints mean.
    pub const NONE: Self = Self {
        ttl_ms: 0,
        scope: CacheScope::Private,
    };

    /// Reads the hints of a result. A negative or malformed TTL counts as 0, and everything
    /// but a plain `public` as private.
    #[must_use]
    pub fn of(result: &Object) -> Self {
        let ttl_ms = result.get_as("ttlMs").and_then(Result::ok).unwrap_or(0);
        let scope = match result.get_str("cacheScope").as_deref() {
            Some("public") => CacheScope::Public,
            Some(_) | None => CacheScope::Private,
        };
        Self { ttl_ms, scope }
    }

    /// The hints of a result made from two: the shorter time, the narrower scope.
    #[must_use]
    pub fn combine(self, other: Self) -> Self {
        Self {
            ttl_ms: self.ttl_ms.min(other.ttl_ms),
            scope: self.scope.max(other.scope),
        }
    }

    /// Writes the hints into a result.
    pub fn write(self, result: &mut Object) {
        result.insert("ttlMs", &self.ttl_ms);
        result.insert("cacheScope", self.scope.as_str());
    }
}

/// Why a result is not a page. `Display` is a fixed label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The items are missing or no array.
    #[error("list result without its items")]
    NoItems,
    /// `nextCursor` is no string.
    #[error("malformed nextCursor")]
    Cursor,
    /// An item is not an acceptable object.
    #[error("malformed item")]
    Item(#[source] JsonError),
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The items, in the server's order.
    pub items: Vec<Object>,
    /// Opaque; an empty string is a cursor, absence is the end.
    pub next_cursor: Option<String>,
    /// How long the page stays true.
    pub ttl_ms: u64,
    /// Who may share it.
    pub cache_scope: CacheScope,
}

impl Page {
    /// Reads a list result of either era. `null` for `nextCursor` ends the list, too: some
    /// legacy servers send it.
    pub fn parse(kind: Kind, result: &Object) -> Result<Self, PageError> {
        let items = result.get(kind.member()).ok_or(PageError::NoItems)?;
        let items = json::elements(items)
            .map_err(|_| PageError::NoItems)?
            .iter()
            .map(|item| Object::from_raw(item).map_err(PageError::Item))
            .collect::<Result<Vec<_>, _>>()?;
        let next_cursor = match result.get("nextCursor") {
            None => None,
            Some(cursor) if cursor.get() == "null" => None,
            Some(cursor) => Some(json::as_str(cursor).ok_or(PageError::Cursor)?.into_owned()),
        };
        let hints = CacheHints::of(result);
        Ok(Self {
            items,
            next_cursor,
            ttl_ms: hints.ttl_ms,
            cache_scope: hints.scope,
        })
    }

    /// How long the page stays true, and for whom.
    #[must_use]
    pub const fn hints(&self) -> CacheHints {
        CacheHints {
            ttl_ms: self.ttl_ms,
            scope: self.cache_scope,
        }
    }

    /// The page as a complete modern result.
    #[must_use]
    pub fn to_result(&self, kind: Kind) -> Object {
        let mut result = Object::new()
            .with("resultType", ResultType::COMPLETE)
            .with(kind.member(), &self.items);
        if let Some(cursor) = &self.next_cursor {
            result.insert("nextCursor", cursor);
        }
        self.hints().write(&mut result);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn every_kind_is_found_by_the_method_that_lists_it() {
        for kind in Kind::ALL {
            assert!(kind.list_method().is_list());
            assert_eq!(Kind::of(kind.list_method()), Some(kind));
        }
        assert_eq!(Kind::of(Method::ToolsCall), None);
    }

    #[test]
    fn a_modern_page_is_written_as_it_was_read() {
        for kind in Kind::ALL {
            let text = format!(
                r#"{{"resultType":"complete","{}":[{{"{}":"a","x":1.0}}],"nextCursor":"","ttlMs":300,"cacheScope":"public"}}"#,
                kind.member(),
                kind.key()
            );
            let page = Page::parse(kind, &object(&text)).unwrap();
            assert_eq!(page.items[0].get_str(kind.key()).unwrap(), "a");
            assert_eq!(page.next_cursor.as_deref(), Some(""));
            assert_eq!(page.to_result(kind).to_string(), text);
        }
    }

    #[test]
    fn a_page_without_hints_is_not_cacheable() {
        for hints in [
            "",
            r#","ttlMs":-5,"cacheScope":"public2""#,
            r#","ttlMs":1.5,"cacheScope":null"#,
            r#","ttlMs":"9","cacheScope":"PUBLIC""#,
        ] {
            let text = format!(r#"{{"tools":[],"nextCursor":null{hints}}}"#);
            let page = Page::parse(Kind::Tools, &object(&text)).unwrap();
            assert_eq!(page.hints(), CacheHints::NONE, "{hints}");
            assert_eq!(page.next_cursor, None);
        }
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for (text, error) in [
            ("{}", PageError::NoItems),
            (r#"{"prompts":[]}"#, PageError::NoItems),
            (r#"{"tools":{}}"#, PageError::NoItems),
            (r#"{"tools":[],"nextCursor":5}"#, PageError::Cursor),
            (r#"{"tools":[5]}"#, PageError::Item(JsonError::NotAnObject)),
            (
                r#"{"tools":[{"name":"a","name":"b"}]}"#,
                PageError::Item(JsonError::DuplicateMember("name".into())),
            ),
        ] {
            assert_eq!(
                Page::parse(Kind::Tools, &object(text)),
                Err(error),
                "{text}"
            );
        }
    }

    #[test]
    fn combined_hints_are_the_shorter_and_narrower() {
        let hints = |ttl_ms, scope| CacheHints { ttl_ms, scope };
        for (a, b, both) in [
            (
                hints(5, CacheScope::Public),
                hints(9, CacheScope::Public),
                hints(5, CacheScope::Public),
            ),
            (
                hints(5, CacheScope::Public),
                hints(9, CacheScope::Private),
                hints(5, CacheScope::Private),
            ),
            (
                hints(5, CacheScope::Public),
                CacheHints::NONE,
                CacheHints::NONE,
            ),
        ] {
            assert_eq!(a.combine(b), both);
            assert_eq!(b.combine(a), both);
        }
    }
}
