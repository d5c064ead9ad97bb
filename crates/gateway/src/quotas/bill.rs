//! An admitted call on its way to its end: what its result costs is counted, what
//! certainly was not done is given back, and results say which quotas are nearly used up.

use futures_util::future::FutureExt;
use futures_util::stream::StreamExt;
use serde_json::json;
use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::Object;
use tidegate_mcp::timestamp::format_utc;

use super::{Charge, account, named, settle, warns};
use crate::config::{Per, Price};
use crate::context::Context;
use crate::egress::{Dispatch, Event, Reply};
use crate::error::Error;
use crate::platform::Platform;

/// Where a result says which quotas are nearly used up.
pub const WARNING_META: &str = "io.tidegate/quotas";

/// What an admitted call still has to pay.
pub(crate) struct Bill {
    pub(super) charges: Vec<Prepaid>,
    pub(super) price: Price,
}

/// A bill of a call that may not be made: given back, unless somebody takes it.
pub(crate) struct Unmade<P: Platform> {
    context: Context<P>,
    bill: Option<Bill>,
}

impl<P: Platform> Unmade<P> {
    pub(crate) fn new(context: &Context<P>, bill: Option<Bill>) -> Self {
        Self {
            context: context.clone(),
            bill,
        }
    }

    /// The call is made.
    pub(crate) fn take(mut self) -> Option<Bill> {
        self.bill.take()
    }
}

impl<P: Platform> Drop for Unmade<P> {
    fn drop(&mut self) {
        if let Some(bill) = &self.bill {
            bill.give_back(&self.context);
        }
    }
}

/// What was taken of one quota when the call was admitted.
pub(super) struct Prepaid {
    pub(super) charge: Charge,
    pub(super) amount: u64,
    pub(super) bucket: u64,
}

impl Bill {
    /// What a task's record says.
    pub(crate) fn charges(&self) -> Vec<Charge> {
        let charges = self.charges.iter();
        charges.map(|prepaid| prepaid.charge.clone()).collect()
    }

    /// Counts what comes of the call, and warns in its result.
    pub(crate) fn see_through<P: Platform>(
        self,
        context: &Context<P>,
        dispatch: Dispatch,
    ) -> Dispatch {
        let context = context.clone();
        async move {
            Ok(match dispatch.await {
                Ok(Reply::Stream(events)) => Reply::Stream(
                    events
                        .map(move |event| match event {
                            Event::End(end) => Event::End(self.close(&context, end)),
                            Event::Notification(_) | Event::Question(_) | Event::Request(_) => {
                                event
                            }
                        })
                        .boxed_local(),
                ),
                Ok(Reply::Result(result)) => Reply::Result(self.close(&context, Ok(result))?),
                Err(error) => Reply::Result(self.close(&context, Err(error))?),
            })
        }
        .boxed_local()
    }

    fn close<P: Platform>(
        &self,
        context: &Context<P>,
        end: Result<Object, Error>,
    ) -> Result<Object, Error> {
        if end.as_ref().is_err_and(Error::is_not_done) {
            self.give_back(context);
        }
        let bytes = match &end {
            // Its end is counted by whoever ends it.
            Ok(result) if ResultType::of(result) == ResultType::Task => 0,
            Ok(result) => result.text_len(),
            Err(_) => 0,
        };
        // Without a result too: what the call itself cost may not be counted yet.
        let charges = self.charges.iter().map(|prepaid| &prepaid.charge);
        settle(context, charges, self.price, bytes);
        let mut result = end?;
        self.warn(context, &mut result);
        Ok(result)
    }

    fn give_back<P: Platform>(&self, context: &Context<P>) {
        let now = context.now();
        for prepaid in &self.charges {
            if let Some((quota, stretch)) = named(context, &prepaid.charge.quota, now)
                && stretch.starts.0 == prepaid.bucket
            {
                let account = account(quota, &prepaid.charge.who, &stretch);
                account.take_back(&context.memory, prepaid.amount);
            }
        }
    }

    /// Says in the result which quotas are nearly used up: with figures where they are the
    /// caller's own.
    fn warn<P: Platform>(&self, context: &Context<P>, result: &mut Object) {
        let now = context.now();
        let mut warnings = Vec::new();
        for prepaid in &self.charges {
            let Some((quota, stretch)) = named(context, &prepaid.charge.quota, now) else {
                continue;
            };
            let account = account(quota, &prepaid.charge.who, &stretch);
            if !warns(context, quota, &account) {
                continue;
            }
            let mut warning = json!({
                "name": quota.name,
                "unit": quota.unit,
                "enforce": quota.enforce,
                "resetsAt": format_utc(stretch.ends.0),
            });
            if quota.per.iter().any(|per| matches!(per, Per::Principal)) {
                warning["limit"] = quota.limit.into();
                warning["used"] = account.held(&context.memory).spent().into();
            }
            warnings.push(warning);
        }
        if warnings.is_empty() {
            return;
        }
        let mut carried = match result.get_object("_meta") {
            Some(Ok(carried)) => carried,
            Some(Err(_)) | None => Object::default(),
        };
        carried.insert(WARNING_META, &warnings);
        result.insert("_meta", &carried);
    }
}
