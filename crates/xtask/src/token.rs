//! `cargo xtask token`: another token from the development issuer's key.

use anyhow::Result;

use crate::arguments::{Arguments, unexpected};
use crate::issuer::keys::{Claims, Signer};
use crate::issuer::{PORT, TOKEN_SECONDS};
use crate::layout::Layout;
use crate::{clock, dev};

/// Shown by `cargo xtask token --help`.
pub const HELP: &str = "\
cargo xtask token [FLAG …]

Prints a token signed with the development issuer's key. A gateway that `cargo xtask dev`
runs accepts it, unless a flag makes it a token to be refused.

  --audience URL    the resource it is for (default http://127.0.0.1:8787/mcp)
  --issuer URL      who says so (default http://127.0.0.1:9787, where dev serves the key)
  --claims JSON     claims laid over the default ones; null removes one
  --expired         a token whose time is over
";

/// Runs the command.
pub fn run(mut arguments: Arguments) -> Result<()> {
    let mut audience = format!("http://127.0.0.1:{}/mcp", dev::PORT);
    let mut issuer = format!("http://127.0.0.1:{PORT}");
    let mut over = serde_json::Map::new();
    let mut expired = false;
    while let Some(argument) = arguments.next()? {
        match argument.as_str() {
            "--audience" => audience = arguments.text()?,
            "--issuer" => issuer = arguments.text()?,
            "--claims" => over = arguments.object("claims")?,
            "--expired" => expired = true,
            other => return unexpected(other),
        }
    }
    let mut claims = Claims::new(&issuer, &audience);
    if expired {
        let now = clock::unix_seconds();
        claims.set("iat", (now - 2 * TOKEN_SECONDS).into());
        claims.set("nbf", (now - 2 * TOKEN_SECONDS).into());
        claims.set("exp", (now - TOKEN_SECONDS).into());
    }
    claims.merge(over);
    let signer = Signer::open(&Layout::find()?.dev().join("issuer"))?;
    println!("{}", signer.sign(&claims)?);
    Ok(())
}
