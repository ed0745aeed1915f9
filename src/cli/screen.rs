//! Standard output as a person sees it: coloured only where there is a person.
//!
//! Invariant: without a terminal, or with `NO_COLOR`, not one escape sequence is written.

use std::io::{self, IsTerminal};

use crate::telemetry::allows_colour;

/// How text may be set off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colours: bool,
}

impl Style {
    /// Returns the style for standard output as it is.
    pub(crate) fn detect() -> Self {
        let no_color = std::env::var_os("NO_COLOR");
        Self { colours: io::stdout().is_terminal() && allows_colour(no_color.as_deref()) }
    }

    /// Returns the style without colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colours: false }
    }

    /// Headings.
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What is there to explain.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// What is well.
    #[cfg(feature = "demo")]
    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What is wrong.
    pub(crate) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_text_stands_as_it_is() {
        assert_eq!(Style::plain().red("no"), "no");
        assert_eq!(Style { colours: true }.red("no"), "\x1b[31mno\x1b[0m");
    }
}
