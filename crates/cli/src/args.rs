//! What the command line says.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Checks, compiles and publishes the configuration of a Tidegate gateway.
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
    /// Print the JSON Schema of tidegate.yaml
    Schema {
        /// Write it, and the schema of the snapshot, into a folder instead
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
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
    /// Where `wrangler dev` keeps its local state
    #[arg(long, value_name = "DIR", conflicts_with_all = ["remote", "dry_run"])]
    pub persist_to: Option<PathBuf>,
    /// The wrangler configuration that binds TIDEGATE_KV
    #[arg(long, value_name = "FILE", default_value = "wrangler.toml")]
    pub wrangler_config: PathBuf,
    /// The wrangler to use [default: node_modules/.bin/wrangler above its configuration, or
    /// the one in PATH]
    #[arg(long, value_name = "PATH")]
    pub wrangler: Option<PathBuf>,
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
