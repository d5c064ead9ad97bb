//! `cargo xtask`: the developer tasks. What CI runs is what a developer runs.
//!
//! One file per command. Progress goes to standard error, results to standard output, and
//! what child programs print goes to logs under `target/dev/log` that are shown on failure.

#![expect(
    clippy::print_stdout,
    reason = "a command line tool prints its results"
)]

mod arguments;
mod bench;
mod build;
mod clock;
mod conformance;
mod dev;
mod http;
mod interop;
mod issuer;
mod layout;
mod pins;
mod process;
mod progress;
mod schemas;
mod setup;
mod size;
mod stop;
mod test;
mod token;
mod toolchain;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::arguments::Arguments;

const HELP: &str = "\
cargo xtask COMMAND [--verbose] [--help]

  dev           build, start and serve the gateway here, with a demo upstream and a token
  test          everything CI checks: formatting, lints, tests, builds, conformance, size
  setup         install what is missing (the other commands do this by themselves)
  build         build the functions
  token         mint another development token
  conformance   the official MCP conformance suite, through the gateway
  interop       third-party clients against third-party servers, through the gateway
  size          the size of the Workers bundle, against its budget
  bench         calls per second through the gateway, against the same upstream directly
  schemas       write kv-schemas/ from the code

`cargo xtask COMMAND --help` says more. --verbose shows what child programs print.
";

/// One command: its name, its help, and what it does.
struct Command {
    name: &'static str,
    help: &'static str,
    run: fn(Arguments) -> Result<()>,
}

const COMMANDS: [Command; 10] = [
    Command {
        name: "dev",
        help: dev::HELP,
        run: dev::run,
    },
    Command {
        name: "test",
        help: test::HELP,
        run: test::run,
    },
    Command {
        name: "setup",
        help: setup::HELP,
        run: setup::run,
    },
    Command {
        name: "build",
        help: build::HELP,
        run: build::run,
    },
    Command {
        name: "token",
        help: token::HELP,
        run: token::run,
    },
    Command {
        name: "conformance",
        help: conformance::HELP,
        run: conformance::run,
    },
    Command {
        name: "interop",
        help: interop::HELP,
        run: interop::run,
    },
    Command {
        name: "size",
        help: size::HELP,
        run: size::run,
    },
    Command {
        name: "bench",
        help: bench::HELP,
        run: bench::run,
    },
    Command {
        name: "schemas",
        help: schemas::HELP,
        run: schemas::run,
    },
];

fn main() -> ExitCode {
    progress::begin();
    match dispatch(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if stop::asked() => {
            eprintln!("stopped");
            ExitCode::from(stop::EXIT_INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(mut words: Vec<OsString>) -> Result<()> {
    let count = words.len();
    words.retain(|word| word != "--verbose");
    if words.len() < count {
        progress::set_verbose();
    }
    let asks_help = |word: &OsString| word == "--help" || word == "-h" || word == "help";
    let Some(first) = words.first().filter(|word| !asks_help(word)) else {
        print!("{HELP}");
        return Ok(());
    };
    if first == process::REAPER {
        process::reap();
        return Ok(());
    }
    let Some(command) = COMMANDS.iter().find(|command| first == command.name) else {
        bail!("no command is called {first:?}\n\n{HELP}");
    };
    if words.iter().skip(1).any(asks_help) {
        print!("{}", command.help);
        return Ok(());
    }
    stop::listen()?;
    (command.run)(Arguments::from(words.drain(..).skip(1)))
}
