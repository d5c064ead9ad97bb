//! A list that is published as one record and remembered by each isolate: how fresh it is
//! kept, and for how long its last good state holds while it cannot be read. Of several
//! requests that find it old at once one reads it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::error::Fault;
use crate::flight::Flight;
use crate::platform::{Clock, Platform};
use crate::time::Timestamp;

/// How long a published list is used before KV is asked again.
pub const LIST_FRESH: Duration = Duration::from_secs(15);
/// How long a list is used while it cannot be read. After that nothing that depends on it is
/// let through.
pub const LIST_KEPT: Duration = Duration::from_secs(10 * 60);

/// What an isolate remembers of one list.
pub(crate) struct Published<R> {
    last: RefCell<Option<(Timestamp, Rc<R>)>>,
    reading: Flight,
}

impl<R> Default for Published<R> {
    fn default() -> Self {
        Self {
            last: RefCell::default(),
            reading: Flight::default(),
        }
    }
}

impl<R> Published<R> {
    /// The list as last heard of, at most `fresh` ago; else as `read` says, which gives a
    /// reason where it cannot be read. What cannot be read replaces nothing. `what` is the
    /// list's name in words.
    pub(crate) async fn get<P: Platform>(
        &self,
        platform: &P,
        fresh: Duration,
        what: &str,
        read: impl Future<Output = Result<R, String>>,
    ) -> Result<Rc<R>, Fault> {
        let within = |age: Duration| {
            let now = platform.clock().now();
            let known = self.last.borrow();
            let (read_at, list) = known.as_ref()?;
            (now >= *read_at && now.since(*read_at) < age).then(|| Rc::clone(list))
        };
        let mut found = None;
        let fetching = self.reading.board(platform, || {
            found = within(fresh);
            found.is_some()
        });
        let fetching = fetching.await;
        if let Some(list) = found {
            return Ok(list);
        }
        // As old as the question, not as the answer.
        let asked_at = platform.clock().now();
        let read = read.await;
        drop(fetching);
        match read {
            Ok(list) => {
                let list = Rc::new(list);
                *self.last.borrow_mut() = Some((asked_at, Rc::clone(&list)));
                Ok(list)
            }
            Err(reason) => {
                within(LIST_KEPT).ok_or_else(|| Fault::Dependency(format!("{what}: {reason}")))
            }
        }
    }

    /// The list as last heard of, however long ago.
    pub(crate) fn last(&self) -> Option<Rc<R>> {
        self.last.borrow().as_ref().map(|(_, list)| Rc::clone(list))
    }
}
