//! `tidegate request-token`: signs one call, as the caller's orchestrator does, to try a tool
//! that asks for that.

use std::fs::File;
use std::io::{Read, Write};

use clap::Args;
use serde_json::value::RawValue;
use tidegate_gateway::request_token::{Asked, NONCE_MAX, SECRET_MIN};

use crate::{Failure, now_ms};

/// Bytes of randomness a nonce is made of.
const NONCE_BYTES: usize = 16;

/// The call to sign, and what with.
#[derive(Args)]
pub struct RequestToken {
    /// The environment variable that holds the secret
    #[arg(long, value_name = "VARIABLE")]
    pub secret_env: String,
    /// The tool, as upstream__tool
    #[arg(long, value_name = "TOOL")]
    pub tool: String,
    /// The arguments of the call, in JSON
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub arguments: String,
    /// The caller, as its access token's `sub` says
    #[arg(long, value_name = "SUB")]
    pub subject: String,
    /// The caller's issuer, as its access token's `iss` says
    #[arg(long, value_name = "URL")]
    pub issuer: String,
    /// The caller's tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// What no other token of the caller's says; by chance, if not given
    #[arg(long, value_name = "TEXT")]
    pub nonce: Option<String>,
    /// When it is signed, in seconds since the epoch; now, if not given
    #[arg(long, value_name = "SECONDS")]
    pub at: Option<u64>,
    /// Print the text that is signed, and not the token
    #[arg(long)]
    pub show: bool,
}

/// Signs it.
pub fn sign(call: &RequestToken, out: &mut impl Write) -> Result<(), Failure> {
    let usage = |text: &str| Failure::Usage(text.to_owned());
    let arguments: &RawValue = serde_json::from_str(call.arguments.trim())
        .ok()
        .filter(|value: &&RawValue| value.get().starts_with('{'))
        .ok_or_else(|| usage("--arguments is no JSON object"))?;
    let secret = std::env::var(&call.secret_env).unwrap_or_default();
    if secret.len() < SECRET_MIN {
        let name = &call.secret_env;
        let text = format!("{name} is not set, or has less than {SECRET_MIN} bytes");
        return Err(Failure::Usage(text));
    }
    let nonce = match &call.nonce {
        Some(nonce) => nonce.clone(),
        None => chance()?,
    };
    let seconds = call.at.unwrap_or_else(|| now_ms() / 1000);
    let asked = Asked {
        issuer: &call.issuer,
        tenant: call.tenant.as_deref(),
        subject: &call.subject,
        tool: &call.tool,
        arguments,
    };
    let message = asked.message(seconds, &nonce);
    let message = message.ok_or_else(|| {
        usage("--arguments have no canonical form: a name stands twice, or a number is not what its double prints")
    })?;
    let token = asked.sign(&secret, seconds, &nonce).ok_or_else(|| {
        let text = format!("--nonce takes 1 to {NONCE_MAX} of A-Z a-z 0-9 - _");
        Failure::Usage(text)
    })?;
    writeln!(out, "{}", if call.show { message } else { token })?;
    Ok(())
}

/// From the system's generator.
fn chance() -> Result<String, Failure> {
    let mut bytes = [0; NONCE_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
