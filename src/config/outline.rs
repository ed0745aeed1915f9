//! The outline of a YAML text: where each node stands, and that the text is small enough to read.
//!
//! Invariant: a text that has an outline is one document without tags, of at most [`NODES`] nodes
//! nested at most [`DEPTH`] deep. Aliases are kept as references, so an outline is never larger
//! than its text, and what goes on with it can decide how far to follow them.
//!
//! The nodes are those of the event stream, mapping entries as key, value, key, value:
//!
//! ```text
//!  a: [1, 2]     Branch(1:1)
//!                ├─ Leaf(1:1)         a
//!                └─ Branch(1:4)
//!                   ├─ Leaf(1:5)      1
//!                   └─ Leaf(1:8)      2
//! ```

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScanError};

use super::diagnostic::{At, Diagnostic};

/// The most nodes in a document: some thousand flows, far beyond any use.
const NODES: usize = 20_000;

/// The deepest nesting; the keys of a configuration end at the fifth level.
const DEPTH: usize = 32;

/// The places of all nodes of one document.
#[derive(Debug, Default)]
pub(super) struct Outline {
    nodes: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    at: At,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    /// Stands for the node of that number.
    Alias(usize),
    /// Holds the nodes of these numbers.
    Branch(Vec<usize>),
    /// A scalar.
    Leaf,
}

/// The number of a node in its [`Outline`].
pub(super) type NodeId = usize;

impl Outline {
    /// Returns the first node, unless the text holds none.
    pub(super) fn root(&self) -> Option<NodeId> {
        (!self.nodes.is_empty()).then_some(0)
    }

    /// Returns the number of nodes as written.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns where a node stands.
    pub(super) fn at(&self, id: NodeId) -> Option<At> {
        self.nodes.get(id).map(|place| place.at)
    }

    /// Returns the nodes held by a node, aliases followed.
    pub(super) fn children(&self, id: NodeId) -> &[NodeId] {
        match self.nodes.get(id).map(|place| &place.shape) {
            // An anchor is defined before it is used, so this ends.
            Some(Shape::Alias(target)) if *target < id => self.children(*target),
            Some(Shape::Branch(children)) => children,
            _ => &[],
        }
    }

    /// Reads the outline of `text`.
    ///
    /// # Errors
    /// The first place where the text is not YAML, or is more than a configuration may be.
    pub(super) fn read(text: &str) -> Result<Self, Diagnostic> {
        let mut builder = Builder::default();
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| syntax_error(text, &error))?;
            builder.on_event(&event, place_of(&span.start))?;
        }
        Ok(builder.outline)
    }
}

/// Turns a stream of events into an outline.
#[derive(Debug, Default)]
struct Builder {
    outline: Outline,
    open: Vec<NodeId>,
    anchors: BTreeMap<usize, NodeId>,
    documents: usize,
}

impl Builder {
    fn on_event(&mut self, event: &Event<'_>, at: At) -> Result<(), Diagnostic> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let hint = "one file is one configuration; remove the `---`";
                    return Err(mistake(at, "a second YAML document begins here", hint));
                }
            }
            Event::Alias(anchor) => {
                let target = self.anchors.get(anchor).copied().unwrap_or(usize::MAX);
                self.add(at, Shape::Alias(target), 0)?;
            }
            Event::Scalar(_, _, anchor, tag) => {
                refuse_tag(tag.is_some(), at)?;
                self.add(at, Shape::Leaf, *anchor)?;
            }
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.is_some(), at)?;
                let id = self.add(at, Shape::Branch(Vec::new()), *anchor)?;
                self.open.push(id);
                if self.open.len() > DEPTH {
                    return Err(too_deep(at));
                }
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    /// Adds a node to the innermost open branch, and remembers its anchor (0: it has none).
    fn add(&mut self, at: At, shape: Shape, anchor: usize) -> Result<NodeId, Diagnostic> {
        let id = self.outline.nodes.len();
        if id >= NODES {
            return Err(mistake(at, format!("more than {NODES} values"), ""));
        }
        self.outline.nodes.push(Place { at, shape });
        let parent = self.open.last().and_then(|parent| self.outline.nodes.get_mut(*parent));
        if let Some(Place { shape: Shape::Branch(children), .. }) = parent {
            children.push(id);
        }
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        Ok(id)
    }
}

fn too_deep(at: At) -> Diagnostic {
    mistake(at, format!("nested more than {DEPTH} deep"), "")
}

fn refuse_tag(tagged: bool, at: At) -> Result<(), Diagnostic> {
    let hint = "a value that begins with `!` needs quotes";
    if tagged { Err(mistake(at, "YAML tags have no meaning here", hint)) } else { Ok(()) }
}

/// Returns the diagnostic of a text that is no YAML.
fn syntax_error(text: &str, error: &ScanError) -> Diagnostic {
    let at = place_of(error.marker());
    let line = text.lines().nth(at.line.saturating_sub(1)).unwrap_or_default();
    let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
    if let Some(tab) = indent.chars().position(|c| c == '\t') {
        let at = At { line: at.line, column: tab + 1 };
        return mistake(at, "a tab cannot indent YAML", "use spaces");
    }
    let info = error.info();
    if info.contains("recursion limit") {
        return too_deep(at);
    }
    let hint = if info.contains("anchor") {
        "a pattern that begins with `*` or `&` needs quotes"
    } else if info.contains("escape") {
        "write backslashes in single quotes, as in '\\d+'"
    } else {
        "look at the quotes, brackets and indentation here and just above"
    };
    mistake(at, format!("not valid YAML: {info}"), hint)
}

fn place_of(marker: &Marker) -> At {
    At { line: marker.line().max(1), column: marker.col().saturating_add(1) }
}

fn mistake(at: At, message: impl Into<String>, hint: &str) -> Diagnostic {
    Diagnostic { at: Some(at), message: message.into(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<String> {
        let outline = Outline::read(text).unwrap();
        outline.nodes.iter().map(|place| place.at.to_string()).collect()
    }

    #[test]
    fn every_node_has_its_place() {
        assert_eq!(places("a: [1, 2]\n"), ["1:1", "1:1", "1:4", "1:5", "1:8"]);
        assert_eq!(places("\n- é: x\n  b: y"), ["2:1", "2:3", "2:3", "2:6", "3:3", "3:6"]);
    }

    #[test]
    fn children_of_an_alias_are_those_of_its_anchor() {
        let outline = Outline::read("a: &x [1, 2]\nb: *x\n").unwrap();
        assert_eq!(outline.at(6).unwrap(), At { line: 2, column: 4 });
        assert_eq!(outline.children(6), outline.children(2));
    }

    #[test]
    fn an_anchor_that_holds_itself_is_no_endless_loop() {
        let outline = Outline::read("a: &x [*x]").unwrap();
        assert_eq!(outline.children(2), [3]);
    }

    #[test]
    fn deep_and_wide_texts_are_refused_early() {
        let deep = Outline::read(&"[".repeat(200_000)).unwrap_err();
        assert_eq!(deep.message, "nested more than 32 deep");
        let deep = Outline::read(&"- ".repeat(100_000)).unwrap_err();
        assert_eq!(deep.to_string(), "1:65: nested more than 32 deep");
        let wide = Outline::read(&"- x\n".repeat(60_000)).unwrap_err();
        assert_eq!(wide.message, "more than 20000 values");
    }
}
