//! Hints: what the user probably meant.
//!
//! Invariant: a hint names only keys and values that would be accepted where the mistake stands, or
//! says where they belong.

use super::schema::{self, Schema};

/// What other agents call our keys.
const SYNONYMS: [(&str, &str); 14] = [
    ("batch", "merge"),
    ("deliverystream", "stream"),
    ("file", "files"),
    ("filepattern", "files"),
    ("flows", "produce"),
    ("include", "files"),
    ("initialposition", "start_at"),
    ("kinesisstream", "stream"),
    ("path", "files"),
    ("paths", "files"),
    ("roleexternalid", "external_id"),
    ("sources", "produce"),
    ("statedirectory", "state_dir"),
    ("streamname", "stream"),
];

/// Keys that hold credentials elsewhere, as [`plain`] writes them.
const CREDENTIALS: [&str; 17] = [
    "accesskey",
    "accesskeyid",
    "awsaccesskeyid",
    "awssecretaccesskey",
    "awssessiontoken",
    "apikey",
    "credential",
    "credentials",
    "password",
    "passwd",
    "secret",
    "secretaccesskey",
    "secretkey",
    "securitytoken",
    "sessiontoken",
    "token",
    "webidentitytoken",
];

/// What to use in place of credentials in the file.
pub(super) const CREDENTIALS_HINT: &str = "use `aws.profile`, the environment variables \
     AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of the instance, task or pod";

/// The longest word that is compared; a longer one is no misspelt key.
const COMPARED_CHARS: usize = 40;

/// Returns true where a key of that name would hold credentials.
pub(super) fn is_credential(key: &str) -> bool {
    CREDENTIALS.contains(&plain(key).as_str())
}

/// Returns the hint for a key that a block does not know.
pub(super) fn unknown_key(key: &str, block: &Schema) -> String {
    if key == "<<" {
        return "merge keys are not supported; an alias can stand for a whole value".to_owned();
    }
    let known = list(block.keys);
    if let Some(meant) = meant(key, block.keys) {
        return format!("did you mean `{meant}`? known here: {known}");
    }
    let elsewhere = schema::ALL.iter().filter(|other| other.keys.contains(&key));
    let elsewhere: Vec<&str> = elsewhere.map(|other| other.name).collect();
    if elsewhere.is_empty() {
        format!("known here: {known}")
    } else {
        format!("it belongs in {}; known here: {known}", elsewhere.join(" or "))
    }
}

/// Returns the hint for a word that is none of `choices`.
pub(super) fn unknown_choice(word: &str, choices: &[&str]) -> String {
    let one_of = format!("one of: {}", list(choices));
    match nearest(word, choices) {
        Some(meant) => format!("did you mean `{meant}`? {one_of}"),
        None => one_of,
    }
}

fn meant(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let word = plain(key);
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == word).map(|(_, ours)| *ours);
    synonym.filter(|ours| known.contains(ours)).or_else(|| nearest(key, known))
}

/// Returns the choice that the word begins, or the nearest within a third of its letters.
fn nearest<'a>(word: &str, choices: &[&'a str]) -> Option<&'a str> {
    if word.chars().nth(COMPARED_CHARS).is_some() {
        return None;
    }
    let word = plain(word);
    let begins = |choice: &&&str| word.chars().nth(2).is_some() && plain(choice).starts_with(&word);
    if let Some(choice) = choices.iter().find(begins) {
        return Some(choice);
    }
    let candidates = choices.iter().map(|choice| (distance(&word, &plain(choice)), *choice));
    let (edits, choice) = candidates.min_by_key(|(edits, _)| *edits)?;
    (edits <= word.chars().count() / 3).then_some(choice)
}

/// Returns the key in small letters, without what joins its words.
fn plain(key: &str) -> String {
    key.chars()
        .filter(|c| !matches!(c, '_' | '-' | '.' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Returns the Levenshtein distance: how many letters to insert, remove or replace.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut left = index + 1;
        let mut diagonal = index;
        let mut cells = row.iter_mut();
        if let Some(first) = cells.next() {
            *first = left;
        }
        for (cell, other) in cells.zip(&to) {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Returns words as a list to read.
pub(super) fn list(words: &[&str]) -> String {
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        let cases = [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3)];
        for (from, to, edits) in cases {
            assert_eq!(distance(from, to), edits, "{from} -> {to}");
            assert_eq!(distance(to, from), edits, "{to} -> {from}");
        }
    }

    #[test]
    fn what_was_probably_meant_is_found() {
        for (key, ours) in [
            ("startAt", Some("start_at")),
            ("steam", Some("stream")),
            ("filePattern", Some("files")),
            ("kinesisStream", Some("stream")),
            ("on-oversize", Some("on_oversize")),
            ("colour", None),
        ] {
            assert_eq!(meant(key, schema::FLOW.keys), ours, "{key}");
        }
    }

    #[test]
    fn every_synonym_is_a_key_of_ours() {
        for (other, ours) in SYNONYMS {
            assert_eq!(plain(other), other);
            assert!(schema::ALL.iter().any(|block| block.keys.contains(&ours)), "{ours}");
        }
    }

    #[test]
    fn no_key_of_ours_is_taken_for_a_credential() {
        assert!(CREDENTIALS.iter().all(|key| plain(key) == *key));
        for block in schema::ALL {
            assert!(block.keys.iter().all(|key| !is_credential(key)));
        }
    }
}
