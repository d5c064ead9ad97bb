//! Where things are: the repository, the build directory, and what the tasks keep there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The places every task works with.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    target: PathBuf,
}

impl Layout {
    /// Finds the repository this binary was built from.
    pub fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let here = here
            .canonicalize()
            .with_context(|| format!("{} is gone; run `cargo xtask` again", here.display()))?;
        let root = here
            .ancestors()
            .nth(2)
            .context("crates/xtask is not inside a repository")?
            .to_path_buf();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => root.join(dir),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The repository root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's build directory.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Installed tools: kept between builds, safe to delete.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Everything `dev` and its relatives write: logs, keys, local state.
    pub fn dev(&self) -> PathBuf {
        self.target.join("dev")
    }

    /// Where the functions are compiled. Apart from the native builds, because another
    /// compiler may build them and the two would evict each other's files.
    pub fn wasm_target(&self) -> PathBuf {
        self.target.join("wasm")
    }

    /// Where the Spin host is compiled: its own lock file, profile and features would evict
    /// the workspace's files.
    pub fn spin_host_target(&self) -> PathBuf {
        self.target.join("spin-host")
    }

    /// What npm installed.
    pub fn node_modules(&self) -> PathBuf {
        self.root.join("node_modules")
    }

    /// The log of one named step, its folder made.
    pub fn log(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dev().join("log");
        make_dir(&dir)?;
        Ok(dir.join(format!("{name}.log")))
    }

    /// The path as a reader in the repository would type it.
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }
}

/// Creates a directory and its parents.
pub fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// Reads a text file, naming it when that fails.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file whole or not at all: readers never see half of it.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path
        .file_name()
        .with_context(|| format!("{} names no file", path.display()))?
        .to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let staged = path.with_file_name(name);
    std::fs::write(&staged, content)
        .and_then(|()| std::fs::rename(&staged, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file only its owner may read.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        // A file left by an earlier run keeps its mode when it is opened again.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(content)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
