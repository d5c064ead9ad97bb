//! SQLite files: what the stores are kept in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::Result;

/// A file that is worked on by one at a time.
pub type File = Arc<Mutex<rusqlite::Connection>>;

/// The file, when nobody else works on it.
pub fn lock(file: &File) -> MutexGuard<'_, rusqlite::Connection> {
    // Whoever panicked left a connection that SQLite keeps in order.
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` where it may block.
pub async fn on<R: Send + 'static>(
    file: &File,
    work: impl FnOnce(&rusqlite::Connection) -> R + Send + 'static,
) -> Result<R> {
    let file = Arc::clone(file);
    Ok(tokio::task::spawn_blocking(move || work(&lock(&file))).await?)
}
