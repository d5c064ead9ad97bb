//! What `cargo xtask dev` is told.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::arguments::{Arguments, unexpected};
use crate::layout::Layout;

/// Shown by `cargo xtask dev --help`.
pub const HELP: &str = "\
cargo xtask dev [FLAG …]

Installs what is missing, builds the function, starts a demo MCP server as upstream and the
gateway in front of it, and prints a URL and a token for an MCP client. Ctrl-C ends it all.

  --config FILE          the configuration to serve (default: ./tidegate.yaml if there is
                         one). Its public URL and issuers are replaced by local ones.
  --upstream NAME=URL    one more upstream; may be given several times
  --no-demo              no demo upstream. It is also left out with --config or --upstream.
  --port N               the gateway's port; taken is an error, 0 is any free one
                         (default: 8787 or the next free one)
  --auth dev|off         off: anybody on this machine may call (default: dev)
  --name-prefix on|off   whether tools are called upstream__tool (default: as configured)
  --own-issuers          the configuration's issuers, on this machine, in place of ours
  --secret NAME=TEXT     one more secret of the platform; may be given several times
  --token-claims JSON    claims laid over the token's; null removes one
  --ready-file FILE      written when the gateway answers: {\"url\",\"token\",\"pid\",…}
  --fresh                with empty local KV, queues and objects
  --twin                 a second gateway beside it, in a process of its own, that shares
                         its objects: what one isolate began another may have to finish
  --spin                 the Spin component instead: under `spin up` if there is a `spin`, else
                         on crates/spin-host (the first build takes minutes)
  --raw                  on bare workerd, without wrangler in front: for benchmarks
  --metered              with --raw: meters before the stores and the queue, which count what
                         is asked and can cut them off; the ready file names their ports
  --selftest             build with the hosts' contract checks mounted at /selftest

Logs and state are under target/dev. Secrets the configuration names come from .dev.vars.
";

/// The port tried first.
pub const PORT: u16 = 8787;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file, if any.
    pub config: Option<PathBuf>,
    /// The port, if it must be this one.
    pub port: Option<u16>,
    /// Whether to start the demo upstream.
    pub demo: bool,
    /// Whether callers need a token.
    pub auth: bool,
    /// Whether tool names carry their upstream's; the configuration decides if unset.
    pub prefix: Option<bool>,
    /// Whether to begin with empty state.
    pub fresh: bool,
    /// Where to write that the gateway answers.
    pub ready_file: Option<PathBuf>,
    /// Claims laid over the token's.
    pub claims: Map<String, Value>,
    /// Whether to run a second gateway that shares the first one's objects.
    pub twin: bool,
    /// Whether to run on bare workerd.
    pub raw: bool,
    /// Whether to run the Spin component.
    pub spin: bool,
    /// Whether to build the contract checks in.
    pub selftest: bool,
    /// On bare workerd: an upstream to also serve through a Worker that only passes on.
    pub pass_through: Option<String>,
    /// On bare workerd: whether what is asked of the objects and the queue is counted.
    pub metered: bool,
    /// Whether the configuration's issuers stay.
    pub own_issuers: bool,
    /// Secrets besides those of `.dev.vars`.
    pub secrets: Vec<(String, String)>,
    /// Upstreams besides the configuration's: name and URL.
    pub upstreams: Vec<(String, String)>,
}

impl Options {
    /// A gateway in front of one upstream, without authentication or demo, starting empty:
    /// what measurements want.
    pub fn bare(upstream: &str, url: &str) -> Self {
        Self {
            config: None,
            port: None,
            demo: false,
            auth: false,
            prefix: Some(false),
            fresh: true,
            ready_file: None,
            claims: Map::new(),
            twin: false,
            raw: false,
            spin: false,
            selftest: false,
            pass_through: None,
            metered: false,
            own_issuers: false,
            secrets: Vec::new(),
            upstreams: vec![(upstream.to_owned(), url.to_owned())],
        }
    }

    /// Reads the command line.
    pub fn parse(mut arguments: Arguments, layout: &Layout) -> Result<Self> {
        let own = layout.root().join("tidegate.yaml");
        let mut demo = true;
        let mut options = Self {
            config: own.exists().then_some(own),
            auth: true,
            prefix: None,
            fresh: false,
            upstreams: Vec::new(),
            ..Self::bare("", "")
        };
        while let Some(argument) = arguments.next()? {
            match argument.as_str() {
                "--config" => options.config = Some(arguments.text()?.into()),
                "--upstream" => options.upstreams.push(upstream(&arguments.text()?)?),
                "--own-issuers" => options.own_issuers = true,
                "--secret" => options.secrets.push(secret(&arguments.text()?)?),
                "--no-demo" => demo = false,
                "--port" => options.port = Some(arguments.parsed("port")?),
                "--auth" => options.auth = arguments.choice("auth", "dev", "off")?,
                "--name-prefix" => {
                    options.prefix = Some(arguments.choice("name-prefix", "on", "off")?);
                }
                "--token-claims" => options.claims = arguments.object("token-claims")?,
                "--ready-file" => options.ready_file = Some(arguments.text()?.into()),
                "--fresh" => options.fresh = true,
                "--twin" => options.twin = true,
                "--raw" => options.raw = true,
                "--metered" => options.metered = true,
                "--selftest" => options.selftest = true,
                "--spin" => options.spin = true,
                other => return unexpected(other),
            }
        }
        if let Some(file) = &options.config
            && !file.exists()
        {
            bail!("--config: there is no {}", file.display());
        }
        if options.own_issuers && !options.auth {
            bail!("--own-issuers asks for tokens; leave --auth off out");
        }
        if options.twin && options.raw {
            bail!("--twin needs wrangler, which lets two processes share objects");
        }
        if options.metered && !options.raw {
            bail!("--metered goes with --raw: wrangler wires the stores itself");
        }
        if options.spin && options.raw {
            bail!("--raw is about the Worker; --spin runs the Spin component");
        }
        options.demo = demo && options.config.is_none() && options.upstreams.is_empty();
        Ok(options)
    }
}

fn upstream(text: &str) -> Result<(String, String)> {
    let (name, url) = text
        .split_once('=')
        .with_context(|| format!("--upstream takes NAME=URL, not {text:?}"))?;
    Ok((name.to_owned(), url.to_owned()))
}

fn secret(text: &str) -> Result<(String, String)> {
    // Not repeated: what was mistyped may be the secret.
    let (name, value) = text.split_once('=').context("--secret takes NAME=TEXT")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        Options::parse(Arguments::from(words.iter().copied()), &Layout::find()?)
    }

    #[test]
    fn an_upstream_of_ones_own_replaces_the_demo() {
        let options = parse(&["--upstream", "a=http://127.0.0.1:1/mcp?x=y"]).unwrap();
        assert!(!options.demo);
        let expected = ("a".to_owned(), "http://127.0.0.1:1/mcp?x=y".to_owned());
        assert_eq!(options.upstreams, [expected]);
    }

    #[test]
    fn a_flag_that_makes_no_sense_is_refused_with_what_would() {
        for (words, hint) in [
            (&["--auth", "maybe"][..], "dev or off"),
            (&["--port", "many"], "no port"),
            (&["--token-claims", "[]"], "JSON object"),
            (&["--upstream", "a"], "NAME=URL"),
            (&["--config", "/nowhere.yaml"], "there is no"),
            (&["--spin", "--raw"], "about the Worker"),
            (&["--twin", "--raw"], "needs wrangler"),
            (&["--metered"], "goes with --raw"),
            (&["--secret", "a"], "NAME=TEXT"),
            (&["--own-issuers", "--auth", "off"], "asks for tokens"),
            (&["--frehs"], "--help"),
        ] {
            let error = format!("{:#}", parse(words).unwrap_err());
            assert!(error.contains(hint), "{words:?}: {error}");
        }
    }
}
