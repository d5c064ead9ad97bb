//! Milliseconds since 1970-01-01 UTC to and from ISO 8601 text.
//!
//! Proleptic Gregorian calendar, no leap seconds, as every JSON peer counts.

const DAY_MS: u64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z: later moments have no four-digit year and are shown as this one.
pub const TIMESTAMP_MAX_MS: u64 = 253_402_300_799_999;

/// Days in the 400-year cycle after which the calendar repeats.
const CYCLE_DAYS: u64 = 146_097;
/// From 0000-03-01, where the arithmetic starts, to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;

/// The moment as `YYYY-MM-DDThh:mm:ss.sssZ`.
#[must_use]
pub fn format_utc(ms: u64) -> String {
    let ms = ms.min(TIMESTAMP_MAX_MS);
    let (year, month, day) = civil_from_days(ms / DAY_MS);
    let rest = ms % DAY_MS;
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Reads an RFC 3339 moment from 1970 on, with any offset; digits beyond milliseconds are cut.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (year, month, day) = split3(date, '-')?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, offset_min) = split_offset(rest)?;
    let (time, milli) = match time.split_once('.') {
        None => (time, 0),
        Some((time, fraction)) => (time, milliseconds(fraction)?),
    };
    let (hour, minute, second) = split3(time, ':')?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    let days = days_from_civil(year, month, day)?;
    let seconds = (hour * 60 + minute) * 60 + second.min(59);
    let ms = days * DAY_MS + seconds * 1000 + milli;
    ms.checked_add_signed(-offset_min * 60_000)
}

/// Counts from 0000-03-01, so that the leap day is the last of its year.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (cycle, day_of_cycle) = (days / CYCLE_DAYS, days % CYCLE_DAYS);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    // Five months from March on have 153 days, whichever five.
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    (year, month, day)
}

fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (cycle, year_of_cycle) = (year / 400, year % 400);
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    (cycle * CYCLE_DAYS + day_of_cycle).checked_sub(EPOCH_DAYS)
}

fn days_in_month(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `12-34-56` by its separator; each part two digits, or four for a year.
fn split3(text: &str, separator: char) -> Option<(u64, u64, u64)> {
    let mut parts = text.split(separator);
    let first_len = if separator == '-' { 4 } else { 2 };
    let first = digits(parts.next()?, first_len)?;
    let second = digits(parts.next()?, 2)?;
    let third = digits(parts.next()?, 2)?;
    parts.next().is_none().then_some((first, second, third))
}

fn digits(text: &str, len: usize) -> Option<u64> {
    let plain = text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn milliseconds(fraction: &str) -> Option<u64> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let padded: String = fraction.chars().chain("00".chars()).take(3).collect();
    padded.parse().ok()
}

/// The time of day and the offset from UTC in minutes.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let (time, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (sign, offset) = match offset.split_at_checked(1)? {
        ("+", offset) => (1, offset),
        ("-", offset) => (-1, offset),
        _ => return None,
    };
    let (hours, minutes) = offset.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    let total = i64::try_from(hours * 60 + minutes).ok()?;
    (hours < 24 && minutes < 60).then_some((time, sign * total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_shown_as_everybody_shows_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_785_196_800_123, "2026-07-28T00:00:00.123Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (TIMESTAMP_MAX_MS, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(format_utc(ms), text);
            assert_eq!(parse(text), Some(ms.min(TIMESTAMP_MAX_MS)));
        }
    }

    #[test]
    fn every_day_of_three_cycles_follows_its_predecessor() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..3 * CYCLE_DAYS {
            assert_eq!(civil_from_days(days), (year, month, day));
            assert_eq!(days_from_civil(year, month, day), Some(days));
            day += 1;
            if day > days_in_month(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn offsets_and_fractions_of_any_length_are_read() {
        let noon = 1_785_240_000_000;
        for (text, ms) in [
            ("2026-07-28T12:00:00Z", noon),
            ("2026-07-28t12:00:00z", noon),
            ("2026-07-28 12:00:00Z", noon),
            ("2026-07-28T12:00:00.5Z", noon + 500),
            ("2026-07-28T12:00:00.123456789Z", noon + 123),
            ("2026-07-28T14:30:00+02:30", noon),
            ("2026-07-28T07:00:00-05:00", noon),
            ("2026-07-28T12:00:00+00:00", noon),
            ("1970-01-01T00:30:00+00:30", 0),
        ] {
            assert_eq!(parse(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "2026-07-28",
            "2026-07-28T12:00:00",
            "2026-07-28T12:00Z",
            "2026-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-07-00T12:00:00Z",
            "2026-07-28T24:00:00Z",
            "2026-07-28T12:60:00Z",
            "2026-07-28T12:00:00.Z",
            "2026-07-28T12:00:00+2:00",
            "2026-07-28T12:00:00+02:60",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "0000-01-01T00:00:00Z",
            "+026-07-28T12:00:00Z",
            "2026-07-28T12:00:00é00:00",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
