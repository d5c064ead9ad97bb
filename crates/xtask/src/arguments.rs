//! Reading a command's arguments, with errors that say what would have been right.

use std::ffi::OsString;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser};
use serde_json::{Map, Value};

/// The arguments after the command's name.
pub struct Arguments(Parser);

impl Arguments {
    /// Arguments in order, without the program's own name.
    pub fn from<T: Into<OsString>>(arguments: impl IntoIterator<Item = T>) -> Self {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        Self(Parser::from_args(arguments))
    }

    /// The next flag, as `--name`, or the next word that is none.
    pub fn next(&mut self) -> Result<Option<String>> {
        Ok(self.0.next()?.map(|argument| match argument {
            Arg::Long(name) => format!("--{name}"),
            Arg::Short(letter) => format!("-{letter}"),
            Arg::Value(word) => word.to_string_lossy().into_owned(),
        }))
    }

    /// The value of the flag just read.
    pub fn text(&mut self) -> Result<String> {
        let value = self.0.value()?;
        value
            .into_string()
            .map_err(|value| anyhow::anyhow!("{value:?} is not text"))
    }

    /// The value of the flag just read, parsed.
    pub fn parsed<T>(&mut self, what: &str) -> Result<T>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let text = self.text()?;
        text.parse()
            .with_context(|| format!("{text:?} is no {what}"))
    }

    /// The value of the flag just read: one of two words.
    pub fn choice(&mut self, flag: &str, yes: &str, no: &str) -> Result<bool> {
        let text = self.text()?;
        match text {
            text if text == yes => Ok(true),
            text if text == no => Ok(false),
            text => bail!("--{flag} takes {yes} or {no}, not {text:?}"),
        }
    }

    /// The value of the flag just read: a JSON object.
    pub fn object(&mut self, flag: &str) -> Result<Map<String, Value>> {
        let text = self.text()?;
        serde_json::from_str(&text).with_context(|| {
            format!("--{flag} takes a JSON object, such as {{\"scope\":\"read\"}}")
        })
    }
}

/// The error for an argument a command does not know.
pub fn unexpected<T>(argument: &str) -> Result<T> {
    bail!("{argument:?} means nothing here; --help shows what there is")
}
