//! Files into a stream: the threads and channels between the stages below, and the only wiring.

pub mod acknowledge;
pub mod merge;
pub mod ship;
pub mod tail;
pub mod watch;
