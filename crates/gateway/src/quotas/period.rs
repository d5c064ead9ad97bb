//! Days and months of the calendar, in UTC.

use std::time::Duration;

use tidegate_mcp::timestamp::{format_utc, parse};

use crate::config::quota::Period;
use crate::time::Timestamp;

/// How long after its end what was spent in a period can be read.
pub const KEPT_FOR: Duration = Duration::from_secs(32 * DAY.as_secs());
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One day or one month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// `2026-11-21`, or `2026-11`.
    pub(crate) label: String,
    pub(crate) starts: Timestamp,
    pub(crate) ends: Timestamp,
}

impl Stretch {
    /// The one that `now` lies in.
    pub(crate) fn at(period: Period, now: Timestamp) -> Self {
        let length = label_length(period);
        let label: String = format_utc(now.0).chars().take(length).collect();
        let starts = start(&label).unwrap_or(now);
        let ends = match period {
            Period::Day => starts + DAY,
            Period::Month => {
                // Some day of the next month.
                let next = format_utc((starts + DAY * 31).0);
                let next: String = next.chars().take(length).collect();
                start(&next).unwrap_or(starts + DAY * 31)
            }
        };
        Self {
            label,
            starts,
            ends,
        }
    }

    /// The one with this label, if it is one.
    pub(crate) fn parse(label: &str) -> Option<(Period, Self)> {
        let period = [Period::Day, Period::Month]
            .into_iter()
            .find(|period| label.len() == label_length(*period))?;
        let stretch = Self::at(period, start(label)?);
        (stretch.label == label).then_some((period, stretch))
    }

    pub(crate) fn kept_until(&self) -> Timestamp {
        self.ends + KEPT_FOR
    }
}

const fn label_length(period: Period) -> usize {
    match period {
        Period::Day => "2026-11-21".len(),
        Period::Month => "2026-11".len(),
    }
}

/// When the day or the month begins.
fn start(label: &str) -> Option<Timestamp> {
    let first = if label.len() == label_length(Period::Month) {
        "-01"
    } else {
        ""
    };
    parse(&format!("{label}{first}T00:00:00Z")).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_begin_and_end_as_in_the_calendar() {
        let at = |text: &str| Timestamp(parse(text).unwrap());
        for (now, period, label, starts, ends) in [
            (
                "2026-11-21T21:00:00Z",
                Period::Day,
                "2026-11-21",
                "2026-11-21T00:00:00Z",
                "2026-11-22T00:00:00Z",
            ),
            (
                "2026-11-21T00:00:00Z",
                Period::Day,
                "2026-11-21",
                "2026-11-21T00:00:00Z",
                "2026-11-22T00:00:00Z",
            ),
            (
                "2026-12-31T23:59:59Z",
                Period::Month,
                "2026-12",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                "2028-02-01T00:00:00Z",
                Period::Month,
                "2028-02",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
            (
                "2027-02-28T12:00:00Z",
                Period::Month,
                "2027-02",
                "2027-02-01T00:00:00Z",
                "2027-03-01T00:00:00Z",
            ),
            (
                "2027-01-31T12:00:00Z",
                Period::Month,
                "2027-01",
                "2027-01-01T00:00:00Z",
                "2027-02-01T00:00:00Z",
            ),
        ] {
            let stretch = Stretch::at(period, at(now));
            let expected = Stretch {
                label: label.to_owned(),
                starts: at(starts),
                ends: at(ends),
            };
            assert_eq!(stretch, expected, "{now}");
            assert_eq!(Stretch::parse(label), Some((period, expected)));
        }
        for label in [
            "",
            "2026",
            "2026-13",
            "2026-1-1",
            "2026-02-30",
            "2026-11-21T",
            "1969-01",
        ] {
            assert_eq!(Stretch::parse(label), None, "{label}");
        }
    }
}
