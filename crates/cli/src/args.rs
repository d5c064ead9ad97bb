//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use url::Url;

/// Checks, compiles and publishes the configuration of a Tidegate gateway, and looks after
/// its tasks.
#[derive(Parser)]
#[command(name = "tidegate", version, about, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Say everything that is wrong with a configuration, with file, line, field and remedy
    Check {
        /// Where the configuration is.
        #[command(flatten)]
        source: Source,
        /// Say as well what this Spin manifest does not give the gateway
        #[arg(long, value_name = "SPIN.TOML")]
        spin: Option<PathBuf>,
        /// Say as well what limiters this Worker's wrangler.toml does not bind
        #[arg(long, value_name = "WRANGLER.TOML")]
        wrangler: Option<PathBuf>,
        /// How to say it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print the snapshot that would be published
    Compile {
        /// Where the configuration is.
        #[command(flatten)]
        source: Source,
        /// Write it to a file instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Compile and publish to the gateway's KV namespace through wrangler
    Push(Push),
    /// Look after the tasks of a running gateway
    #[command(subcommand)]
    Tasks(Tasks),
    /// Have the upstreams of a running gateway asked and called, and say how they are; exit
    /// code 1 unless all are healthy
    Health(Door),
    /// Switch something off at a running gateway, or list what is
    Kill(Kill),
    /// Switch something on again
    Revive(Revive),
    /// Show what is used of the quotas of a running gateway
    Usage(Usage),
    /// Print the JSON Schema of tidegate.yaml
    Schema {
        /// Write it, and the schema of the snapshot, into a folder instead
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Try out the policy before it is published
    Policy {
        /// What to do with it.
        #[command(subcommand)]
        command: Policy,
    },
    /// Write a commented configuration to begin with
    Init {
        /// The file to write
        #[arg(default_value = "tidegate.yaml")]
        file: PathBuf,
        /// Overwrite it if it is there
        #[arg(long)]
        force: bool,
    },
    /// Make, show, renew and revoke the gateway's own keys
    Keys {
        /// What to do.
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Refuse a token, subject, client or tenant from now on, or no longer
    Revoke(Revoke),
    /// Sign one call of a tool that takes no others
    RequestToken(crate::request_token::RequestToken),
}

/// What to do with keys.
#[derive(Subcommand)]
pub enum KeysCommand {
    /// Make a key and print it, once
    Create {
        /// What its owner calls it
        name: String,
        /// A resource it is for, such as https://mcp.example.com/mcp; may be given several times
        #[arg(long = "audience", value_name = "URL", required = true)]
        audiences: Vec<String>,
        /// A scope it has; may be given several times
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// A role it has; may be given several times
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// The tenant it belongs to
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// In how many days it ends
        #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=730))]
        days: u64,
        /// Where it is kept.
        #[command(flatten)]
        place: Place,
    },
    /// Show every key, without the keys themselves
    List {
        /// Where they are kept.
        #[command(flatten)]
        place: Place,
    },
    /// Make another secret for a key and print it, once; the old one works for a while
    Rotate {
        /// The sixteen digits in the key
        id: String,
        /// For how many hours the old secret still works
        #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u64).range(0..=720))]
        overlap_hours: u64,
        /// Where it is kept.
        #[command(flatten)]
        place: Place,
    },
    /// Refuse a key from now on
    Revoke {
        /// The sixteen digits in the key
        id: String,
        /// Where it is kept.
        #[command(flatten)]
        place: Place,
    },
}

/// What to refuse.
#[derive(Args)]
pub struct Revoke {
    /// What it is.
    #[command(flatten)]
    pub what: What,
    /// The issuer whose token, subject, client or tenant it is, as its tokens say
    #[arg(long, value_name = "URL")]
    pub issuer: String,
    /// For how many days; for ever, if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub days: Option<u64>,
    /// Accept it again
    #[arg(long, conflicts_with = "days")]
    pub lift: bool,
    /// Where the list is kept.
    #[command(flatten)]
    pub place: Place,
}

/// What to refuse: exactly one.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct What {
    /// One token, by its `jti`
    #[arg(long, value_name = "JTI")]
    pub token: Option<String>,
    /// Whatever a subject holds, by its `sub`
    #[arg(long, value_name = "SUB")]
    pub subject: Option<String>,
    /// Whatever is held through an OAuth client
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// Whatever a tenant's subjects hold
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
}

/// Which store is read and written, and how.
#[derive(Args)]
pub struct Place {
    /// The namespace.
    #[command(flatten)]
    pub side: Side,
    /// How it is reached.
    #[command(flatten)]
    pub wrangler: Wrangler,
}

/// Which store: exactly one.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Side {
    /// The local namespace of `wrangler dev`
    #[arg(long)]
    pub local: bool,
    /// The deployed gateway's namespace
    #[arg(long)]
    pub remote: bool,
    /// No namespace: print what is to be written, as KEY=VALUE. What is there comes on
    /// standard input, what is said besides goes to standard error
    #[arg(long, conflicts_with = "persist_to")]
    pub print: bool,
}

/// How a namespace is reached.
#[derive(Args)]
pub struct Wrangler {
    /// Where `wrangler dev` keeps its local state
    #[arg(long, value_name = "DIR", conflicts_with = "remote")]
    pub persist_to: Option<PathBuf>,
    /// The wrangler configuration that binds TIDEGATE_KV
    #[arg(long, value_name = "FILE", default_value = "wrangler.toml")]
    pub wrangler_config: PathBuf,
    /// The wrangler to use [default: node_modules/.bin/wrangler above its configuration, or
    /// the one in PATH]
    #[arg(long, value_name = "PATH")]
    pub wrangler: Option<PathBuf>,
}

/// What to do with the policy.
#[derive(Subcommand)]
pub enum Policy {
    /// Check a table of cases against the policy, and print which rules it covers
    Test {
        /// Where the configuration is.
        #[command(flatten)]
        source: Source,
        /// The cases, as YAML
        cases: PathBuf,
        /// Fail also if a rule decides no case
        #[arg(long)]
        strict: bool,
    },
    /// Say why one request is allowed or denied
    Explain(Box<Explain>),
}

/// One request. What is not said is not there.
#[derive(Args)]
pub struct Explain {
    /// Where the configuration is.
    #[command(flatten)]
    pub source: Source,
    /// The tool that is called, as upstream__tool
    #[arg(long, value_name = "NAME", required_unless_present_any = ["prompt", "resource"])]
    pub tool: Option<String>,
    /// The prompt that is got, as upstream__prompt
    #[arg(long, value_name = "NAME", conflicts_with = "tool")]
    pub prompt: Option<String>,
    /// The resource that is read, as upstream+uri
    #[arg(long, value_name = "URI", conflicts_with_all = ["tool", "prompt"])]
    pub resource: Option<String>,
    /// The arguments, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "list")]
    pub arguments: Option<String>,
    /// It is listed, not called: its arguments are not known yet
    #[arg(long)]
    pub list: bool,
    /// What the upstream says the tool does, as JSON
    #[arg(long, value_name = "JSON")]
    pub annotations: Option<String>,
    /// The token's issuer
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// The token's subject
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
    /// The OAuth client
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// The tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// A role; may be repeated
    #[arg(long, value_name = "NAME")]
    pub role: Vec<String>,
    /// A scope; may be repeated
    #[arg(long, value_name = "NAME")]
    pub scope: Vec<String>,
    /// The network address the request comes from
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// The country it comes from, as two capital letters
    #[arg(long, value_name = "CODE")]
    pub country: Option<String>,
    /// When, as RFC 3339 [default: 2026-01-01T12:00:00Z]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

/// Where a configuration is.
#[derive(Args)]
pub struct Source {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "tidegate.yaml")]
    pub config: PathBuf,
    /// Merge tidegate.NAME.yaml beside it
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
}

/// How findings are printed.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// One line each.
    Text,
    /// One JSON document.
    Json,
}

/// Where and how to publish.
#[derive(Args)]
pub struct Push {
    /// Where the configuration is.
    #[command(flatten)]
    pub source: Source,
    /// What is published to.
    #[command(flatten)]
    pub target: Target,
    /// How it is reached.
    #[command(flatten)]
    pub wrangler: Wrangler,
}

/// What is published to: exactly one.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Target {
    /// The local namespace of `wrangler dev`
    #[arg(long)]
    pub local: bool,
    /// The deployed gateway's namespace
    #[arg(long)]
    pub remote: bool,
    /// Nothing: say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// What to do about tasks.
#[derive(Subcommand)]
pub enum Tasks {
    /// List tasks, principal by principal, the newest of each first
    List {
        /// Which gateway.
        #[command(flatten)]
        door: Door,
        /// Only tasks of this tenant
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// Only tasks in this state
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Only tasks created this long ago or earlier: 90s, 10m, 2h, 1d
        #[arg(long, value_name = "AGE", value_parser = age)]
        older_than: Option<Duration>,
        /// List at most so many
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: usize,
    },
    /// Show one task: never its arguments or result
    Show {
        /// Which gateway.
        #[command(flatten)]
        door: Door,
        /// The task's id, as `list` prints it
        id: String,
    },
    /// Cancel a task that has not ended
    Cancel {
        /// Which gateway.
        #[command(flatten)]
        door: Door,
        /// The task's id, as `list` prints it
        id: String,
    },
    /// Queue an abandoned task again, or make a failed or cancelled one anew
    Retry {
        /// Which gateway.
        #[command(flatten)]
        door: Door,
        /// The task's id, as `list` prints it
        id: String,
    },
}

/// What to switch off.
#[derive(Args)]
pub struct Kill {
    /// Which gateway.
    #[command(flatten)]
    pub door: Door,
    /// all, upstream:NAME, tool:UPSTREAM__NAME (NAME may end with *), tenant:NAME or
    /// principal:SUBJECT
    #[arg(value_name = "WHAT", required_unless_present = "list")]
    pub what: Option<String>,
    /// Why; whoever is refused reads it
    #[arg(long, value_name = "TEXT", required_unless_present = "list")]
    pub reason: Option<String>,
    /// For how long: 90s, 10m, 2h, 1d; until it is revived, if not given
    #[arg(long = "for", value_name = "TIME", value_parser = age)]
    pub lasts: Option<Duration>,
    /// The issuer whose subject a principal is, as its tokens say
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// List what is switched off
    #[arg(long, conflicts_with_all = ["what", "reason", "lasts", "issuer"])]
    pub list: bool,
}

/// What to switch on again.
#[derive(Args)]
pub struct Revive {
    /// Which gateway.
    #[command(flatten)]
    pub door: Door,
    /// As `tidegate kill --list` prints it
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// The issuer whose subject a principal is
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
}

/// Which quotas, and whose use of them.
#[derive(Args)]
pub struct Usage {
    /// Which gateway.
    #[command(flatten)]
    pub door: Door,
    /// Only this quota
    #[arg(long, value_name = "NAME")]
    pub quota: Option<String>,
    /// Only of this token subject
    #[arg(long, value_name = "SUBJECT")]
    pub principal: Option<String>,
    /// Only of this OAuth client
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// Only of this tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Only of this tool, as upstream__tool
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// In this day or month (UTC), as 2026-11-21 or 2026-11 [default: today and this month]
    #[arg(long, value_name = "PERIOD")]
    pub period: Option<String>,
    /// List at most so many
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub limit: usize,
}

/// Which gateway, and how to say what it answers. The token is TIDEGATE_ADMIN_TOKEN of the
/// environment, the same as the gateway's secret of that name.
#[derive(Args)]
pub struct Door {
    /// Where the gateway is, such as https://mcp.example.com; the token is taken from the
    /// environment variable TIDEGATE_ADMIN_TOKEN
    #[arg(long, value_name = "URL")]
    pub gateway: Url,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What tasks can be listed by.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum State {
    /// Being run, or about to be.
    Working,
    /// Waiting for the client's answer.
    InputRequired,
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by its client or an operator.
    Cancelled,
    /// Should run and does not.
    Abandoned,
}

impl State {
    /// Its name, here and at the gateway.
    pub fn name(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A number and a unit.
fn age(text: &str) -> Result<Duration, String> {
    let wanted = || "use a number and s, m, h or d, such as 10m".to_owned();
    let unit = text.chars().last().ok_or_else(wanted)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wanted()),
    };
    let number = text.strip_suffix(unit).and_then(|n| n.parse::<u32>().ok());
    let number = number.ok_or_else(wanted)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}
