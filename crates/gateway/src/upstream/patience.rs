//! How long an upstream is waited for: until the call's deadline, and longer while a person
//! is being asked something on its behalf.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::context::Context;
use crate::platform::Platform;
use crate::time::Timestamp;

/// Longest a client may take to answer what an upstream asks during a call.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(600);
/// How often a wait looks whether it has been prolonged or cut short.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Shared by a call's stream and the questions that came over it.
#[derive(Clone)]
pub(crate) struct Patience(Rc<Shared>);

struct Shared {
    deadline: Cell<Timestamp>,
    /// Questions the client has not answered yet.
    open: Cell<usize>,
}

impl Patience {
    /// Patience that ends at `deadline`.
    pub(crate) fn until(deadline: Timestamp) -> Self {
        Self(Rc::new(Shared {
            deadline: Cell::new(deadline),
            open: Cell::new(0),
        }))
    }

    /// When it ends, as it stands.
    pub(crate) fn deadline(&self) -> Timestamp {
        self.0.deadline.get()
    }

    /// The client has been asked something: it has until `deadline`.
    pub(crate) fn asked(&self, deadline: Timestamp) {
        self.0.open.set(self.0.open.get() + 1);
        self.0.deadline.set(deadline);
    }

    /// The client has answered; once it has answered everything, the upstream has until
    /// `deadline`.
    pub(crate) fn answered(&self, deadline: Timestamp) {
        let open = self.0.open.get().saturating_sub(1);
        self.0.open.set(open);
        if open == 0 {
            self.0.deadline.set(deadline);
        }
    }

    /// What `next` gives, or `None` once patience is over. `next` is asked anew now and
    /// then, so dropping what it gave must lose nothing.
    pub(crate) async fn bear<P: Platform, T>(
        &self,
        context: &Context<P>,
        mut next: impl AsyncFnMut() -> T,
    ) -> Option<T> {
        loop {
            let deadline = self.0.deadline.get();
            let look = (context.now() + LOOK_AGAIN).min(deadline);
            if let Some(given) = context.until(look, next()).await {
                return Some(given);
            }
            if context.now() >= self.0.deadline.get() {
                return None;
            }
        }
    }
}
