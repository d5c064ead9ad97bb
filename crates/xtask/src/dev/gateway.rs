//! A running gateway: build, configuration, issuer, upstreams and host, in that order.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::build::{self, Profile};
use crate::dev::config::{self, Overlay, Trust};
use crate::dev::options::{Options, PORT};
use crate::dev::raw::{RawHost, RawOptions};
use crate::dev::{cli, spin, variables, wrangler};
use crate::http;
use crate::issuer::keys::{Claims, Signer};
use crate::issuer::{self, Issuer};
use crate::layout::{Layout, make_dir, read, write_atomically};
use crate::process::{Session, command};
use crate::progress::say;
use crate::setup;

/// How long the gateway may take to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The demo upstream's name.
const DEMO: &str = "everything";

/// The key the function reads its configuration from.
const CONFIG_KEY: &str = "config";

/// A gateway that answers, and everything started for it.
pub struct Gateway {
    // First, so that it is dropped first: programs end before their state is cleared.
    session: Session,
    /// The MCP endpoint.
    pub url: String,
    /// The gateway's port.
    pub port: u16,
    /// The port of a second gateway that shares the first one's objects, if asked for.
    pub twin: Option<u16>,
    /// A token the gateway accepts, unless it asks for none.
    pub token: Option<String>,
    /// The issuer whose tokens it accepts.
    pub issuer: Option<Issuer>,
    /// The raw host, if that is where it runs.
    pub raw: Option<RawHost>,
    /// The upstreams started or given on the command line.
    pub upstreams: Vec<(String, String)>,
    /// Logs and state.
    pub dir: PathBuf,
}

impl Gateway {
    /// Starts everything and waits until it answers.
    pub fn start(layout: &Layout, options: &Options) -> Result<Self> {
        // First: nobody should wait for a build to learn that the port is taken.
        let port = choose_port(options.port)?;
        let built = Built::new(layout, options)?;
        let cli = cli::build(layout)?;
        let dir = layout.dev().join(format!("port-{port}"));
        if options.fresh {
            let _ = std::fs::remove_dir_all(dir.join("state"));
        }
        make_dir(&dir)?;
        let mut session = Session::open()?;
        let mut upstreams = options.upstreams.clone();
        if options.demo {
            let url = start_demo(layout, built.node(), &dir, &mut session)?;
            upstreams.push((DEMO.to_owned(), url));
        }
        let origin = format!("http://127.0.0.1:{port}");
        let url = format!("{origin}/mcp");
        let issuer = if options.auth && !options.own_issuers {
            let signer = Signer::open(&layout.dev().join("issuer"))?;
            Some(Issuer::start(signer, issuer::PORT, &url)?)
        } else {
            None
        };
        let config = write_config(
            layout,
            options,
            &dir,
            &origin,
            issuer.as_ref(),
            &upstreams,
            &cli,
        )?;
        let mut variables = variables::load(layout)?;
        variables.extend(options.secrets.iter().cloned());
        let place = Place {
            layout,
            dir: &dir,
            port,
            cli: &cli,
            config: &config,
            variables,
        };
        let raw = place.start(&built, options, &mut session)?;
        session.wait_until("waiting for the gateway to answer", START_LIMIT, || {
            http::answers(port, "/health", 200)
        })?;
        let twin = match options.twin {
            true => Some(place.start_twin(&built, &mut session)?),
            false => None,
        };
        let token = match &issuer {
            Some(issuer) => {
                let mut claims = Claims::new(issuer.url(), &url);
                claims.merge(options.claims.clone());
                Some(issuer.mint(&claims)?)
            }
            None => None,
        };
        Ok(Self {
            url,
            port,
            twin,
            token,
            issuer,
            raw,
            upstreams,
            dir,
            session,
        })
    }

    /// The processes started, to add more or to wait with.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// A function that was built, and the Node there is.
enum Built {
    /// The Worker: the folder with its modules.
    Worker { node: PathBuf, bundle: PathBuf },
    /// The Spin component.
    Spin { node: PathBuf, component: PathBuf },
}

impl Built {
    fn new(layout: &Layout, options: &Options) -> Result<Self> {
        if options.spin {
            // The demo upstream is a Node program.
            setup::node::packages(layout)?;
            let toolchain = setup::spin(layout)?;
            return Ok(Self::Spin {
                node: setup::node::binary(layout)?,
                component: build::spin(layout, &toolchain, Profile::Release, options.selftest)?,
            });
        }
        let tools = setup::cloudflare(layout)?;
        let bundle = build::cloudflare(layout, &tools, Profile::Release, options.selftest)?;
        Ok(Self::Worker {
            node: tools.node,
            bundle,
        })
    }

    fn node(&self) -> &Path {
        match self {
            Self::Worker { node, .. } | Self::Spin { node, .. } => node,
        }
    }
}

/// Where a gateway is to answer, and with what.
struct Place<'a> {
    layout: &'a Layout,
    dir: &'a Path,
    port: u16,
    cli: &'a Path,
    config: &'a Path,
    variables: Vec<(String, String)>,
}

impl Place<'_> {
    /// Starts the host with the configuration published to it.
    fn start(
        &self,
        built: &Built,
        options: &Options,
        session: &mut Session,
    ) -> Result<Option<RawHost>> {
        let (layout, dir) = (self.layout, self.dir);
        match built {
            Built::Spin { component, .. } => {
                self.start_spin(component, dir, self.port, session)?;
                Ok(None)
            }
            Built::Worker { bundle, .. } if options.raw => {
                let raw = RawOptions {
                    port: self.port,
                    variables: &self.variables,
                    pass_through: options.pass_through.as_deref(),
                    metered: options.metered,
                };
                let host = RawHost::start(layout, session, dir, bundle, &raw)?;
                let snapshot = cli::compile(layout, self.cli, self.config, dir)?;
                host.put(CONFIG_KEY, read(&snapshot)?.as_bytes())?;
                Ok(Some(host))
            }
            Built::Worker { node, bundle } => {
                cli::push(layout, self.cli, self.config, dir)?;
                let (port, variables, config) = (self.port, &self.variables, self.config);
                wrangler::start(layout, node, dir, bundle, port, variables, config, session)?;
                Ok(None)
            }
        }
    }

    /// Starts the Spin component, its log in `home`; all share one state.
    fn start_spin(
        &self,
        component: &Path,
        home: &Path,
        port: u16,
        session: &mut Session,
    ) -> Result<()> {
        let snapshot = cli::compile(self.layout, self.cli, self.config, self.dir)?;
        let run = spin::Run {
            dir: home,
            state: &self.dir.join("state"),
            component,
            port,
            variables: &self.variables,
            config: self.config,
            value: (CONFIG_KEY, &snapshot),
        };
        spin::start(self.layout, &run, session)
    }

    /// Starts a second gateway that shares the first one's objects; gives its port.
    fn start_twin(&self, built: &Built, session: &mut Session) -> Result<u16> {
        let port = http::free_port(0)?;
        let twin = self.dir.join("twin");
        make_dir(&twin)?;
        match built {
            Built::Spin { component, .. } => self.start_spin(component, &twin, port, session)?,
            Built::Worker { node, bundle } => {
                cli::push(self.layout, self.cli, self.config, &twin)?;
                let (layout, dir, variables) = (self.layout, self.dir, &self.variables);
                wrangler::start_twin(layout, node, dir, bundle, port, variables, session)?;
            }
        }
        session.wait_until("waiting for its twin to answer", START_LIMIT, || {
            http::answers(port, "/health", 200)
        })?;
        Ok(port)
    }
}

fn choose_port(wanted: Option<u16>) -> Result<u16> {
    match wanted {
        Some(port) => match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => Ok(listener.local_addr()?.port()),
            Err(error) => bail!(
                "port {port} cannot be used ({error}).\nRemedy: end what listens there, name \
                 another with --port, or leave --port out to get the next free one."
            ),
        },
        None => {
            let port = http::free_port(PORT)?;
            if port != PORT {
                say(&format!("port {PORT} is taken; using {port}"));
            }
            Ok(port)
        }
    }
}

fn start_demo(layout: &Layout, node: &Path, dir: &Path, session: &mut Session) -> Result<String> {
    let port = http::free_port(0)?;
    let mut demo = command(node);
    demo.current_dir(layout.root())
        .arg("--import")
        .arg(layout.root().join("crates/xtask/js/loopback.mjs"))
        .arg(
            layout
                .node_modules()
                .join("@modelcontextprotocol/server-everything/dist/index.js"),
        )
        .arg("streamableHttp")
        .env("PORT", port.to_string());
    session.start("the demo upstream", &mut demo, &dir.join("demo.log"))?;
    session.wait_until("starting the demo upstream", START_LIMIT, || {
        http::accepts(port)
    })?;
    Ok(format!("http://127.0.0.1:{port}/mcp"))
}

fn write_config(
    layout: &Layout,
    options: &Options,
    dir: &Path,
    origin: &str,
    issuer: Option<&Issuer>,
    upstreams: &[(String, String)],
    cli: &Path,
) -> Result<PathBuf> {
    // As its author wrote it, so that errors name its lines. With upstreams to come from
    // elsewhere the file may be incomplete; what is pushed is checked in any case.
    if let Some(file) = &options.config
        && upstreams.is_empty()
    {
        cli::check(layout, cli, file, dir)?;
    }
    let mut config = config::load(options.config.as_deref())?;
    let overlay = Overlay {
        public_url: origin,
        trust: match issuer {
            Some(issuer) => Trust::Issuer(issuer.url()),
            None if options.own_issuers => Trust::Own,
            None => Trust::Nobody,
        },
        prefix: options.prefix,
        upstreams,
    };
    config::overlay(&mut config, &overlay)?;
    if options.demo {
        config::demo_task(&mut config, DEMO);
    }
    // JSON is YAML.
    let file = dir.join("tidegate.yaml");
    write_atomically(&file, serde_json::to_string_pretty(&config)?.as_bytes())?;
    Ok(file)
}
