//! The published form: making a snapshot, and reading one that may have been tampered with
//! or written by another version.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::bounds::SNAPSHOT_BYTES_MAX;
use super::{Config, Snapshot};

/// The shape of [`Snapshot`] this build writes and reads.
pub const SNAPSHOT_VERSION: u32 = 1;

/// Bytes of the digest that are kept: 16 hexadecimal digits tell versions apart.
const DIGEST_BYTES: usize = 8;

impl Snapshot {
    /// The snapshot of `config`, ready to be published.
    pub fn compile(config: Config, now_ms: u64) -> Result<Self, serde_json::Error> {
        let digest = digest(&serde_json::to_value(&config)?)?;
        Ok(Self {
            v: SNAPSHOT_VERSION,
            digest,
            compiled_at_ms: now_ms,
            config,
        })
    }

    /// A published snapshot, if it is whole, of a known version, and without problems.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        if json.len() > SNAPSHOT_BYTES_MAX {
            return Err(format!(
                "the snapshot is larger than {SNAPSHOT_BYTES_MAX} bytes"
            ));
        }
        let document: Value =
            serde_json::from_slice(json).map_err(|e| format!("the snapshot is not JSON: {e}"))?;
        let version = document.get("v").and_then(Value::as_u64);
        if version != Some(u64::from(SNAPSHOT_VERSION)) {
            return Err(format!("the snapshot is not of version {SNAPSHOT_VERSION}"));
        }
        // Over the document and not over what was understood of it: a field that this build
        // fills in by default must not change the digest.
        let found = document
            .get("config")
            .map(digest)
            .transpose()
            .map_err(|e| e.to_string())?;
        if found.as_deref() != document.get("digest").and_then(Value::as_str) {
            return Err("the snapshot's digest does not match its content".to_owned());
        }
        let snapshot: Self = serde_json::from_value(document)
            // serde's messages may quote the value they stumbled over, which may be a secret.
            .map_err(|_| {
                "the snapshot's configuration is not of the shape this build reads".to_owned()
            })?;
        match snapshot.config.problems().as_slice() {
            [] => Ok(snapshot),
            [first, rest @ ..] => Err(format!(
                "the configuration has {} problem(s): {first}",
                rest.len() + 1
            )),
        }
    }
}

/// First 16 hexadecimal digits of the SHA-256 of `config` as compact JSON, keys in the
/// order they have in the document.
fn digest(config: &Value) -> Result<String, serde_json::Error> {
    let hash = Sha256::digest(serde_json::to_vec(config)?);
    Ok(hash
        .iter()
        .take(DIGEST_BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problems::tests::sound;

    fn published() -> Vec<u8> {
        serde_json::to_vec(&Snapshot::compile(sound(), 1_700_000_000_000).unwrap()).unwrap()
    }

    fn with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut document: Value = serde_json::from_slice(&published()).unwrap();
        change(&mut document);
        serde_json::to_vec(&document).unwrap()
    }

    #[test]
    fn what_is_compiled_can_be_read() {
        let snapshot = Snapshot::parse(&published()).unwrap();
        assert_eq!(
            (snapshot.v, snapshot.digest.len(), snapshot.compiled_at_ms),
            (1, 16, 1_700_000_000_000)
        );
    }

    #[test]
    fn layout_does_not_change_the_digest_but_content_does() {
        let document: Value = serde_json::from_slice(&published()).unwrap();
        assert!(Snapshot::parse(&serde_json::to_vec_pretty(&document).unwrap()).is_ok());
        let mut other = sound();
        other.metadata.name = "another".to_owned();
        assert_ne!(
            Snapshot::compile(other, 0).unwrap().digest,
            Snapshot::compile(sound(), 0).unwrap().digest,
        );
    }

    #[test]
    fn a_snapshot_that_cannot_be_trusted_is_refused_with_the_reason() {
        let redigested = |document: &mut Value| {
            document["digest"] = digest(&document["config"]).unwrap().into();
        };
        for (bytes, reason) in [
            (b"{".to_vec(), "not JSON"),
            (with(|d| d["v"] = 2.into()), "not of version 1"),
            (
                with(|d| d["config"]["metadata"]["name"] = "other".into()),
                "digest does not match",
            ),
            (with(|d| d["digest"] = Value::Null), "digest does not match"),
            (
                with(|d| drop(d.as_object_mut().unwrap().shift_remove("config"))),
                "digest does not match",
            ),
            (
                with(|d| {
                    d["config"]["surprise"] = true.into();
                    redigested(d);
                }),
                "not of the shape",
            ),
            (
                with(|d| {
                    d["config"]["publicUrl"] = "http://mcp.example.com".into();
                    redigested(d);
                }),
                "1 problem(s): /publicUrl: is not an https origin",
            ),
            (vec![b' '; SNAPSHOT_BYTES_MAX + 1], "larger than"),
        ] {
            let error = Snapshot::parse(&bytes).unwrap_err();
            assert!(error.contains(reason), "{error} does not say {reason:?}");
        }
    }

    #[test]
    fn a_refusal_never_repeats_a_secret_written_in_the_wrong_place() {
        for place in ["token", "era"] {
            let bytes = with(|d| {
                let upstream = &mut d["config"]["upstreams"][0];
                match place {
                    "token" => {
                        upstream["credentials"] =
                            serde_json::json!({ "type": "bearer", "token": "hunter2" })
                    }
                    _ => upstream["era"] = "hunter2".into(),
                }
                d["digest"] = digest(&d["config"]).unwrap().into();
            });
            let error = Snapshot::parse(&bytes).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
