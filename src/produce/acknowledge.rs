//! Acknowledgement: arithmetic on spans. A file's position is the end of its longest settled prefix.
