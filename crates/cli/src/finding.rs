//! Something wrong in a file, and how it is shown.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Where something is written. Lines and columns count from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index into the files that were read.
    pub file: usize,
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// One problem: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where it is written.
    pub place: Place,
    /// JSON pointer to the field; empty for the whole file.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Findings as lines of `file:line:column: field: message; remedy`.
pub fn text(findings: &[Finding], files: &[String]) -> String {
    let mut lines = String::new();
    for finding in findings {
        let Place { file, line, column } = finding.place;
        let name = files.get(file).map_or("?", String::as_str);
        let field = field_path(&finding.pointer);
        let separator = if field.is_empty() { "" } else { ": " };
        let (message, remedy) = (&finding.message, &finding.remedy);
        // Writing to a string cannot fail.
        let _ = writeln!(
            lines,
            "{name}:{line}:{column}: {field}{separator}{message}; {remedy}"
        );
    }
    lines
}

/// Findings as JSON, for editors and pipelines.
pub fn as_json(findings: &[Finding], files: &[String]) -> Value {
    findings
        .iter()
        .map(|finding| {
            json!({
                "file": files.get(finding.place.file),
                "line": finding.place.line,
                "column": finding.place.column,
                "field": field_path(&finding.pointer),
                "pointer": finding.pointer,
                "message": finding.message,
                "remedy": finding.remedy,
            })
        })
        .collect()
}

/// `/upstreams/0/url` as it is read aloud: `upstreams[0].url`.
pub fn field_path(pointer: &str) -> String {
    let mut path = String::new();
    for token in pointer.split('/').skip(1) {
        let token = unescape(token);
        if !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit()) {
            let _ = write!(path, "[{token}]");
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&token);
        }
    }
    path
}

/// A member name as a token of a JSON pointer (RFC 6901 section 3).
pub fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// The member name a token of a JSON pointer stands for.
pub fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_shown_as_a_path() {
        for (pointer, path) in [
            ("", ""),
            ("/metadata/name", "metadata.name"),
            ("/upstreams/0/url", "upstreams[0].url"),
            ("/a/requiredClaims/x~1y~0", "a.requiredClaims.x/y~"),
        ] {
            assert_eq!(field_path(pointer), path);
        }
    }

    #[test]
    fn a_line_names_file_place_field_problem_and_remedy() {
        let finding = Finding {
            place: Place {
                file: 0,
                line: 12,
                column: 5,
            },
            pointer: "/upstreams/0/timeout_ms".to_owned(),
            message: "unknown field".to_owned(),
            remedy: "did you mean `timeoutMs`?".to_owned(),
        };
        assert_eq!(
            text(&[finding], &["tidegate.yaml".to_owned()]),
            "tidegate.yaml:12:5: upstreams[0].timeout_ms: unknown field; did you mean `timeoutMs`?\n"
        );
    }
}
