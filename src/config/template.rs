//! Templates of file names: text with `{stream}`, `{shard}`, `{host}`, `{path}` and `{file}` in it.
//!
//! Invariant: a template by itself names something beneath its root: it is relative, without `..`,
//! and every variable is one that is known where it is used. What stands for the variables comes
//! from records and is checked when it is put in.

use std::fmt;

/// What a variable stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The last part of the path that a file was first found at.
    File,
    /// The host of the file.
    Host,
    /// The whole path that a file was first found at.
    Path,
    /// The shard.
    Shard,
    /// The stream's name.
    Stream,
}

impl Variable {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::File, Self::Host, Self::Path, Self::Shard, Self::Stream];

    /// Returns its name, without braces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Host => "host",
            Self::Path => "path",
            Self::Shard => "shard",
            Self::Stream => "stream",
        }
    }
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(String),
    /// To be replaced.
    Variable(Variable),
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It begins with a slash.
    #[error("must be relative: it names files beneath `directory`")]
    Absolute,
    /// A part of it is empty, `.` or `..`, or it ends with a slash.
    #[error("cannot have a part that is empty, `.` or `..`")]
    Parts,
    /// A brace without its fellow.
    #[error("has a brace without its fellow")]
    Brace,
    /// A variable that is not known here.
    #[error("cannot hold {{{0}}}")]
    Unknown(String),
    /// It holds a control character.
    #[error("holds a control character")]
    Control,
}

impl Template {
    /// Returns a template without variables.
    pub(super) fn plain(name: &str) -> Self {
        Self(vec![Part::Text(name.to_owned())])
    }

    /// Reads a template in which the variables `known` may stand.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse(text: &str, known: &[Variable]) -> Result<Self, TemplateError> {
        if text.starts_with('/') {
            return Err(TemplateError::Absolute);
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(TemplateError::Parts);
        }
        if text.chars().any(char::is_control) {
            return Err(TemplateError::Control);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(TemplateError::Brace)?;
            let variable = known.iter().find(|variable| variable.name() == name);
            let variable = variable.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Variable(*variable));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let is_text = |part: &Part| matches!(part, Part::Text(text) if text.contains('}'));
        if parts.iter().any(is_text) {
            return Err(TemplateError::Brace);
        }
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// Returns its parts.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Returns true where it holds the variable.
    #[must_use]
    pub fn holds(&self, variable: Variable) -> bool {
        self.0.contains(&Part::Variable(variable))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => formatter.write_str(text),
            Part::Variable(variable) => write!(formatter, "{{{}}}", variable.name()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_shown_as_written() {
        for text in ["{stream}/{host}/{file}", "a-{shard}.log", "plain", "{path}"] {
            assert_eq!(Template::parse(text, &Variable::ALL).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_names_nothing_beneath_a_root_is_no_template() {
        let parse = |text| Template::parse(text, &[Variable::Host]).unwrap_err();
        assert_eq!(parse("/a"), TemplateError::Absolute);
        for text in ["", "a/", "a//b", "../a", "a/./b", "a/.."] {
            assert_eq!(parse(text), TemplateError::Parts, "{text}");
        }
        for text in ["{host", "host}", "{host}}"] {
            assert_eq!(parse(text), TemplateError::Brace, "{text}");
        }
        assert_eq!(parse("{hots}"), TemplateError::Unknown("hots".to_owned()));
        assert_eq!(parse("{file}"), TemplateError::Unknown("file".to_owned()));
        assert_eq!(parse("a\n"), TemplateError::Control);
    }
}
