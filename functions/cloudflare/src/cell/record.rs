//! What one cell holds, and how that is kept as a row.

use tidegate_gateway::platform::Version;
use tidegate_gateway::time::Timestamp;
use worker::{Result, SqlStorageValue};

/// Latest expiry kept, in the year 2179: the runtime takes no alarm after 2189.
const TIME_MAX: Timestamp = Timestamp(6_600_000_000_000);

/// The version after `current`, for a record written at `now`.
pub fn next(current: Option<Version>, now: Timestamp) -> Version {
    Version(current.map_or(now.0, |Version(last)| now.0.max(last.saturating_add(1))))
}

/// What an object holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The value or the counter.
    pub content: Content,
    /// When it stops being readable.
    pub expires_at: Timestamp,
}

/// The two kinds of record; a key holds one kind for as long as it exists.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Bytes under a version.
    Value {
        /// Which state of the record this is.
        version: Version,
        /// The bytes.
        value: Vec<u8>,
    },
    /// A sum.
    Counter(i64),
}

impl Record {
    /// The record with an expiry the runtime can hold.
    pub fn bounded(self) -> Self {
        Self {
            expires_at: self.expires_at.min(TIME_MAX),
            ..self
        }
    }

    /// Reads `version, value, counter, expires_at`.
    pub fn from_row(row: Vec<SqlStorageValue>) -> Result<Self> {
        use SqlStorageValue::{Blob, Integer, Null, String};
        let [version, value, counter, Integer(expires_at)] =
            <[_; 4]>::try_from(row).map_err(|_| UNREADABLE)?
        else {
            return Err(UNREADABLE.into());
        };
        let content = match (version, value, counter) {
            (Integer(version), Blob(value), Null) => Content::Value {
                version: Version(unsigned(version)?),
                value,
            },
            // As text: the runtime's numbers are exact only up to 2^53.
            (Null, Null, String(count)) => Content::Counter(count.parse().map_err(|_| UNREADABLE)?),
            _ => return Err(UNREADABLE.into()),
        };
        Ok(Self {
            content,
            expires_at: Timestamp(unsigned(expires_at)?),
        })
    }

    /// Writes what [`Self::from_row`] reads.
    pub fn into_row(self) -> Result<Vec<SqlStorageValue>> {
        use SqlStorageValue::{Blob, Null, String};
        let expires_at = exact(self.expires_at.0)?;
        Ok(match self.content {
            Content::Value { version, value } => {
                vec![exact(version.0)?, Blob(value), Null, expires_at]
            }
            Content::Counter(count) => vec![Null, Null, String(count.to_string()), expires_at],
        })
    }
}

const UNREADABLE: &str = "the stored record is not one of ours";

fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| UNREADABLE.into())
}

fn exact(number: u64) -> Result<SqlStorageValue> {
    SqlStorageValue::try_from_i64(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_above_the_last_and_not_before_its_time() {
        for (current, now, expected) in [
            (None, 5, 5),
            (Some(5), 5, 6),
            (Some(9), 5, 10),
            (Some(5), 9, 9),
        ] {
            assert_eq!(
                next(current.map(Version), Timestamp(now)),
                Version(expected),
                "{current:?} at {now}"
            );
        }
    }

    #[test]
    fn every_record_reads_back_from_its_row() {
        let value = |version, value: &[u8]| Content::Value {
            version: Version(version),
            value: value.to_vec(),
        };
        for content in [
            value(1 << 52, &[0, 255]),
            value(1, &[]),
            Content::Counter(i64::MIN),
        ] {
            let record = Record {
                content,
                expires_at: Timestamp(u64::MAX),
            }
            .bounded();
            let row = record.clone().into_row().unwrap();
            assert_eq!(Record::from_row(row).unwrap(), record);
        }
    }

    #[test]
    fn a_row_of_another_shape_is_refused() {
        use SqlStorageValue::{Integer, Null};
        for row in [
            vec![],
            vec![Null, Null, Null, Integer(1)],
            vec![Integer(1), Null, Null, Integer(-1)],
        ] {
            assert!(Record::from_row(row).is_err());
        }
    }
}
