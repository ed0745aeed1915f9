//! What is wrong with a configuration, and where: what a user reads instead of a running agent.
//!
//! Invariant: a [`Diagnostics`] holds at least one mistake, sorted by place, and no text in it
//! repeats anything that looks like a secret or that a terminal would obey.

use std::fmt;

/// A place in the file, counted from 1 as editors do; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl At {
    /// The first character of the file.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for At {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Where it stands; `None` where the file itself could not be read.
    pub at: Option<At>,
    /// What is wrong.
    pub message: String,
    /// What to do about it; empty where the message says it.
    pub hint: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(formatter, "{at}: ")?;
        }
        formatter.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(formatter, " ({})", self.hint) }
    }
}

/// All mistakes of one file. Displays one a line: `agent.yaml:LINE:COLUMN: what is wrong (hint)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    file: String,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Returns the mistakes of the file that the user calls `file`, in the order of their places.
    #[must_use]
    pub fn new(file: &str, mut list: Vec<Diagnostic>) -> Self {
        list.sort();
        list.dedup();
        Self { file: display_name(file), list }
    }

    /// Returns the mistakes, first place first.
    #[must_use]
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            let gap = if diagnostic.at.is_some() { "" } else { " " };
            write!(formatter, "{newline}{}:{gap}{diagnostic}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Collects mistakes while reading goes on.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Diagnostic>);

impl Mistakes {
    /// Notes a mistake.
    pub(super) fn tell(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Diagnostic { at: Some(at), message: message.into(), hint: hint.into() });
    }

    /// Returns what was noted.
    pub(super) fn into_list(self) -> Vec<Diagnostic> {
        self.0
    }
}

/// The longest piece of the user's text that is shown again.
const QUOTED_CHARS: usize = 60;

/// Returns `text` in backquotes: control characters escaped, cut to a readable length, and
/// withheld where it looks like a secret that was pasted into the wrong place.
pub(super) fn quote(text: &str) -> String {
    if looks_secret(text) {
        return "a value that looks like a secret".to_owned();
    }
    let mut shown: String =
        text.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect::<String>();
    // `escape_debug` is meant for literals; within backquotes these two need no escape.
    shown = shown.replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\");
    if text.chars().nth(QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// Access key ids begin so (long-lived, temporary, and the older kinds).
const KEY_ID_PREFIXES: [&str; 4] = ["AKIA", "ASIA", "ABIA", "ACCA"];

/// The length of an AWS secret access key; session tokens are longer.
const SECRET_CHARS: usize = 40;

/// Returns true where `text` holds something shaped like an AWS key, a token, or a URL's password.
fn looks_secret(text: &str) -> bool {
    let of_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let mixed = |word: &str| {
        word.len() >= SECRET_CHARS
            // A long path is no secret.
            && !word.starts_with('/')
            && word.contains(|c: char| c.is_ascii_uppercase())
            && word.contains(|c: char| c.is_ascii_lowercase())
            && word.contains(|c: char| c.is_ascii_digit())
    };
    let key_id = |word: &str| {
        word.len() >= 16 && KEY_ID_PREFIXES.iter().any(|prefix| word.starts_with(prefix))
    };
    text.split(|c| !of_base64(c)).any(|word| mixed(word) || key_id(word))
        || text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

/// Returns the file's name as one line, whatever it holds.
fn display_name(file: &str) -> String {
    file.chars()
        .flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_in_the_order_of_their_places_and_once() {
        let mut mistakes = Mistakes::default();
        mistakes.tell(At { line: 9, column: 1 }, "second", "");
        mistakes.tell(At { line: 2, column: 3 }, "first", "mend it");
        mistakes.tell(At { line: 9, column: 1 }, "second", "");
        let all = Diagnostics::new("a.yaml", mistakes.into_list());
        assert_eq!(all.to_string(), "a.yaml:2:3: first (mend it)\na.yaml:9:1: second");
    }

    #[test]
    fn what_looks_like_a_secret_is_not_repeated() {
        for secret in [
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "http://me:hunter2@localhost:4567",
        ] {
            assert_eq!(quote(secret), "a value that looks like a secret");
        }
        let path = "/var/log/pods/MyNamespace1/MyService1/Container1";
        assert_eq!(quote(path), format!("`{path}`"));
        assert_eq!(
            quote("arn:aws:iam::123456789012:role/logs"),
            "`arn:aws:iam::123456789012:role/logs`"
        );
    }

    #[test]
    fn quoted_text_cannot_write_to_the_terminal() {
        assert_eq!(quote("a\u{1b}[2Jb\n"), "`a\\u{1b}[2Jb\\n`");
        assert_eq!(quote(r#"\d "x""#), r#"`\d "x"`"#);
        assert_eq!(quote(&"x".repeat(99)), format!("`{}…`", "x".repeat(60)));
        assert_eq!(Diagnostics::new("a\nb", vec![]).file, "a\\nb");
    }
}
