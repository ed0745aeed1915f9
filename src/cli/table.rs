//! Tables of text: columns as wide as what stands in them, two blanks apart.
//!
//! Invariant: no line ends with a blank, and a row with fewer cells than columns is a row all the
//! same.

use std::fmt;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells under a row of headings.
#[derive(Debug)]
pub(crate) struct Table {
    indent: usize,
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table with these headings; an empty list of headings is not shown.
    pub(crate) fn new(indent: usize, columns: &[(&str, Align)]) -> Self {
        let headings = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let aligns = columns.iter().map(|&(_, align)| align).collect();
        Self { indent, aligns, rows: vec![headings] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.aligns.len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in self.rows.iter().filter(|row| row.iter().any(|cell| !cell.is_empty())) {
            let mut line = " ".repeat(self.indent);
            for ((cell, &width), align) in row.iter().zip(&widths).zip(&self.aligns) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                match align {
                    Align::Left => line.extend([cell, padding.as_str()]),
                    Align::Right => line.extend([padding.as_str(), cell]),
                }
                line.push_str("  ");
            }
            writeln!(formatter, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_and_words_begin_at_one_column() {
        let mut table = Table::new(2, &[("file", Align::Left), ("lag", Align::Right)]);
        table.row(["/var/log/a".to_owned(), "7 B".to_owned()]);
        table.row(["/é".to_owned(), "1.5 KiB".to_owned()]);
        insta::assert_snapshot!(table.to_string(), @r"
          file            lag
          /var/log/a      7 B
          /é          1.5 KiB
        ");
    }

    #[test]
    fn empty_headings_are_not_shown() {
        let mut table = Table::new(0, &[("", Align::Left), ("", Align::Right)]);
        table.row(["lines".to_owned(), "3".to_owned()]);
        assert_eq!(table.to_string(), "lines  3\n");
    }
}
