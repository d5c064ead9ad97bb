//! Publishing: one KV value, written by wrangler.

use std::io::Write;

use tidegate_gateway::config::ConfigFamily;
use tidegate_gateway::keyspace::Key;

use crate::args::Push;
use crate::store::Namespace;
use crate::{Failure, finding};

/// Compiles and publishes.
pub fn push(push: &Push, out: &mut impl Write) -> Result<(), Failure> {
    let loaded = crate::load_or_report(&push.source)?;
    if let Some(refused) = loaded.refused_remotely().filter(|_| push.target.remote) {
        write!(
            std::io::stderr(),
            "{}",
            finding::text(&[refused], &loaded.files)
        )?;
        return Err(Failure::Problems);
    }
    let (snapshot, bytes) = crate::snapshot(loaded)?;
    let (digest, size) = (&snapshot.digest, bytes.len());
    let key = Key::<ConfigFamily>::single();
    if push.target.dry_run {
        writeln!(
            out,
            "would publish `{}` with digest {digest} ({size} bytes)",
            key.as_str()
        )?;
        return Ok(());
    }
    Namespace::of(&push.wrangler, push.target.remote)?.put(key.as_str(), &bytes)?;
    let place = if push.target.remote {
        "the deployed namespace"
    } else {
        "the local namespace"
    };
    writeln!(out, "published digest {digest} ({size} bytes) to {place}")?;
    Ok(())
}
