//! From files to a configuration: read, merge the overlay, check shape and meaning.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tidegate_gateway::config::{Config, Environment};

use crate::document::Document;
use crate::finding::{Finding, Place};
use crate::overlay;
use crate::structure;
use crate::yaml::{self, FILE_BYTES_MAX, Node};

/// A configuration without problems.
pub struct Loaded {
    /// The configuration, overlay merged.
    pub config: Config,
    /// The files it comes from.
    pub files: Vec<String>,
    document: Document,
}

/// Why there is no configuration.
pub enum LoadError {
    /// A file is not there or cannot be read, or this build is broken.
    Unusable(String),
    /// The files have problems.
    Problems {
        /// All of them, in the order they are written.
        findings: Vec<Finding>,
        /// The files they are in.
        files: Vec<String>,
    },
}

impl Loaded {
    /// Where the field a pointer names is written.
    pub fn place(&self, pointer: &str) -> Place {
        self.document.place(pointer)
    }

    /// What stands in the way of publishing this to a deployed gateway.
    pub fn refused_remotely(&self) -> Option<Finding> {
        let pointer = "/metadata/environment";
        (self.config.metadata.environment == Environment::Dev).then(|| Finding {
            place: self.document.place(pointer),
            pointer: pointer.to_owned(),
            message: "a development configuration is not published to a deployed gateway".to_owned(),
            remedy: "push with --env NAME and an overlay that sets staging or production, or push --local".to_owned(),
        })
    }
}

/// Loads the configuration at `path` with the overlay of environment `env`.
pub fn load(path: &Path, env: Option<&str>) -> Result<Loaded, LoadError> {
    let paths = match env {
        Some(env) => vec![path.to_owned(), overlay_path(path, env)?],
        None => vec![path.to_owned()],
    };
    let files: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let problems = |findings| LoadError::Problems {
        findings,
        files: files.clone(),
    };

    let mut whole: Option<Node> = None;
    let mut findings = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        match yaml::parse(&read(path)?, index) {
            Ok(node) => {
                whole = Some(match whole {
                    None => node,
                    Some(base) => overlay::merge(base, node),
                })
            }
            Err(found) => findings.extend(found),
        }
    }
    let Some(node) = whole.filter(|_| findings.is_empty()) else {
        return Err(problems(findings));
    };

    let document = Document::of(&node);
    let checked = structure::check(&document).map_err(LoadError::Unusable)?;
    let mut findings = checked.findings;
    if let Some(config) = &checked.config {
        let found = meaning(config, &document, &findings);
        findings.extend(found);
    }
    findings.sort_by_key(|finding| finding.place);
    match checked.config {
        Some(config) if findings.is_empty() => Ok(Loaded {
            config,
            files,
            document,
        }),
        _ => Err(problems(findings)),
    }
}

/// One file by itself, whatever it holds.
pub fn document(path: &Path) -> Result<Document, LoadError> {
    let node = yaml::parse(&read(path)?, 0).map_err(|findings| LoadError::Problems {
        findings,
        files: vec![path.display().to_string()],
    })?;
    Ok(Document::of(&node))
}

/// What the gateway itself finds wrong, except in fields whose shape is wrong already.
fn meaning(config: &Config, document: &Document, known: &[Finding]) -> Vec<Finding> {
    let within = |pointer: &str, outer: &str| {
        pointer
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    config
        .problems()
        .into_iter()
        .filter(|problem| {
            !known.iter().any(|finding| {
                within(&problem.pointer, &finding.pointer)
                    || within(&finding.pointer, &problem.pointer)
            })
        })
        .map(|problem| Finding {
            place: document.place(&problem.pointer),
            pointer: problem.pointer,
            message: problem.message,
            remedy: problem.remedy,
        })
        .collect()
}

/// `tidegate.yaml` with environment `production` is `tidegate.production.yaml` beside it.
fn overlay_path(path: &Path, env: &str) -> Result<PathBuf, LoadError> {
    let plain = !env.is_empty()
        && env
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !plain {
        return Err(LoadError::Unusable(
            "--env takes a name of letters, digits, - and _".to_owned(),
        ));
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path
        .extension()
        .map_or("yaml".into(), |extension| extension.to_string_lossy());
    Ok(path.with_file_name(format!("{stem}.{env}.{extension}")))
}

fn read(path: &Path) -> Result<String, LoadError> {
    let unusable = |what: String| LoadError::Unusable(format!("{}: {what}", path.display()));
    let file = fs::File::open(path).map_err(|error| {
        let remedy = if error.kind() == std::io::ErrorKind::NotFound {
            "; name another file with --config, or write one with `tidegate init`"
        } else {
            ""
        };
        unusable(format!("{error}{remedy}"))
    })?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unusable(error.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(unusable(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| unusable("not UTF-8 text".to_owned()))
}
