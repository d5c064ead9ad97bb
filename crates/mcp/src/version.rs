//! The protocol revisions this gateway speaks, and the two eras they fall into.
//!
//! Modern is 2026-07-28: stateless requests that carry their own envelope. Legacy is every
//! earlier revision: an `initialize` handshake, then requests that rely on it.

use std::fmt;

/// One published revision of the protocol. Ordered by date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// 2024-11-05: HTTP with a separate event stream.
    V2024_11_05,
    /// 2025-03-26: Streamable HTTP, batches, audio.
    V2025_03_26,
    /// 2025-06-18: structured output, elicitation, resource links.
    V2025_06_18,
    /// 2025-11-25: experimental tasks, URL elicitation, icons.
    V2025_11_25,
    /// 2026-07-28: stateless.
    V2026_07_28,
}

/// Which of the two families of revisions a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Era {
    /// 2025-11-25 and older.
    Legacy,
    /// 2026-07-28 and newer.
    Modern,
}

impl ProtocolVersion {
    /// The newest revision.
    pub const LATEST: Self = Self::V2026_07_28;
    /// The newest revision that begins with `initialize`.
    pub const LATEST_LEGACY: Self = Self::V2025_11_25;
    /// What a request over HTTP speaks when it names no version.
    pub const ASSUMED: Self = Self::V2025_03_26;
    /// Every revision, oldest first.
    pub const ALL: &[Self] = &[
        Self::V2024_11_05,
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];
    /// The modern revisions, oldest first.
    pub const MODERN: &[Self] = &[Self::V2026_07_28];

    /// The revision of this name, if it is one we know.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|version| version.as_str() == text)
    }

    /// The name used on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era this revision belongs to.
    #[must_use]
    pub const fn era(self) -> Era {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => {
                Era::Legacy
            }
            Self::V2026_07_28 => Era::Modern,
        }
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to answer an `initialize` that asks for `requested`: the same revision if it is a
/// legacy one we serve, otherwise the newest legacy one.
#[must_use]
pub fn negotiate_legacy(requested: &str) -> ProtocolVersion {
    match ProtocolVersion::parse(requested) {
        Some(version) if version.era() == Era::Legacy => version,
        Some(_) | None => ProtocolVersion::LATEST_LEGACY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_revision_parses_back_from_its_name() {
        for version in ProtocolVersion::ALL {
            assert_eq!(ProtocolVersion::parse(version.as_str()), Some(*version));
        }
        for unknown in ["", "2026-07-29", "2026-07-28 ", "DRAFT-2026-v1", "v999"] {
            assert_eq!(ProtocolVersion::parse(unknown), None);
        }
    }

    #[test]
    fn revisions_are_ordered_by_date() {
        assert!(ProtocolVersion::ALL.is_sorted());
        assert!(
            ProtocolVersion::ALL
                .windows(2)
                .all(|pair| pair[0].as_str() < pair[1].as_str())
        );
    }

    #[test]
    fn modern_lists_exactly_the_modern_revisions() {
        let modern: Vec<_> = ProtocolVersion::ALL
            .iter()
            .copied()
            .filter(|version| version.era() == Era::Modern)
            .collect();
        assert_eq!(modern, ProtocolVersion::MODERN);
        assert_eq!(ProtocolVersion::LATEST.era(), Era::Modern);
        assert_eq!(ProtocolVersion::LATEST_LEGACY.era(), Era::Legacy);
    }

    #[test]
    fn initialize_gets_the_version_it_asked_for_only_if_that_is_legacy() {
        for (asked, given) in [
            ("2024-11-05", "2024-11-05"),
            ("2025-03-26", "2025-03-26"),
            ("2025-11-25", "2025-11-25"),
            ("2026-07-28", "2025-11-25"),
            ("1.0", "2025-11-25"),
            ("", "2025-11-25"),
        ] {
            assert_eq!(negotiate_legacy(asked).as_str(), given, "asked {asked:?}");
        }
    }
}
