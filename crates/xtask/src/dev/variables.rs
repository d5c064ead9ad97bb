//! The function's secrets in development: those of `.dev.vars`, a sealing key, and the
//! operators' token of this shell.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::issuer::keys::random_bytes;
use crate::layout::{Layout, make_dir, read, write_private};

/// The variable that holds the key for sealed handles.
const SEALING_KEY: &str = "TIDEGATE_SEALING_KEY";

/// The variable that opens the operators' door; of this shell, where `.dev.vars` has none.
const ADMIN_TOKEN: &str = "TIDEGATE_ADMIN_TOKEN";

/// The function's variables: those of `.dev.vars`, and a sealing key of this machine.
pub fn load(layout: &Layout) -> Result<Vec<(String, String)>> {
    let own = layout.root().join(".dev.vars");
    let mut variables = if own.exists() {
        parse(&read(&own)?)
    } else {
        Vec::new()
    };
    if !variables.iter().any(|(name, _)| name == SEALING_KEY) {
        // Kept, so that task handles survive a restart.
        make_dir(&layout.dev())?;
        let file = layout.dev().join("sealing-key");
        if !file.exists() {
            write_private(&file, STANDARD.encode(random_bytes()).as_bytes())?;
        }
        variables.push((SEALING_KEY.to_owned(), read(&file)?));
    }
    if let Ok(token) = std::env::var(ADMIN_TOKEN)
        && !variables.iter().any(|(name, _)| name == ADMIN_TOKEN)
    {
        variables.push((ADMIN_TOKEN.to_owned(), token));
    }
    Ok(variables)
}

fn parse(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            let value = value.trim();
            let bare = ['"', '\'']
                .iter()
                .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
            (name.trim().to_owned(), bare.unwrap_or(value).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_wrangler_reads_them() {
        let text = "# a comment\nA=1\n B = \"two words\" \nC='x=y'\n\nnot a variable\n";
        let expected = [("A", "1"), ("B", "two words"), ("C", "x=y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), expected);
    }
}
