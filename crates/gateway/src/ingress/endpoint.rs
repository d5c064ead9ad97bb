//! Which part of the gateway a request was sent to, and what is seen through it.

use std::rc::Rc;

use crate::auth::Resource;
use crate::config::{Config, Upstream};
use crate::settings::Settings;
use crate::tenancy::{Place, Site};

/// `/mcp` or `/servers/{name}/mcp`, of the gateway or of one tenant's part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The one upstream it is of; every one, if none.
    one: Option<String>,
    site: Option<Rc<Site>>,
    /// Whose upstreams are seen through it, besides those everybody sees.
    tenant: Option<Rc<str>>,
}

impl Endpoint {
    /// The endpoint at a place, if there is one.
    pub fn of(place: &Place, settings: &Settings) -> Option<Self> {
        let site = place.site.clone();
        let tenant: Option<Rc<str>> = site.as_ref().map(|site| site.tenant.as_str().into());
        let one = if place.path == "/mcp" {
            None
        } else {
            let name = place.path.strip_prefix("/servers/")?.strip_suffix("/mcp")?;
            // Who is not told that an upstream exists is not told by its path either.
            let upstream = settings.upstream(name)?;
            let seen = upstream.is_seen_by(tenant.as_deref());
            Some(seen.then(|| upstream.name.clone())?)
        };
        Some(Self { one, site, tenant })
    }

    /// The same, as a principal of this tenant sees it.
    pub fn seen_by(&self, tenant: Option<&str>) -> Self {
        let tenant = tenant.map(Rc::from);
        Self {
            tenant,
            ..self.clone()
        }
    }

    /// One upstream's own endpoint beside it.
    pub fn alone(&self, upstream: &str) -> Self {
        let one = Some(upstream.to_owned());
        Self {
            one,
            ..self.clone()
        }
    }

    /// Whether it is every upstream's.
    pub const fn is_every(&self) -> bool {
        self.one.is_none()
    }

    /// Whether an upstream is behind it, and seen.
    pub fn shows(&self, upstream: &Upstream) -> bool {
        self.one.as_ref().is_none_or(|one| *one == upstream.name)
            && upstream.is_seen_by(self.tenant.as_deref())
    }

    /// Its path, as clients write it.
    pub fn path(&self) -> String {
        let prefix = self.site.as_ref().map_or("", |site| &site.prefix);
        match &self.one {
            None => format!("{prefix}/mcp"),
            Some(name) => format!("{prefix}/servers/{name}/mcp"),
        }
    }

    /// Tells it from every other: what is for one is not for another.
    pub fn key(&self) -> String {
        let host = self.site.as_ref().and_then(|site| site.host.as_deref());
        format!("{}{}", host.unwrap_or_default(), self.path())
    }

    /// What tokens must be meant for.
    pub fn resource(&self, config: &Config) -> Resource {
        match &self.site {
            None => Resource::of(config, &self.path()),
            Some(site) => Resource::within(config, site, &self.path()),
        }
    }
}
