//! The script: which faults an endpoint commits, how often, from which seed.
//!
//! Invariant: what happens to request number *n* follows from the seed and *n* alone (and, for
//! throttles, from the rate), however the threads interleave.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A fault of a whole call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// 400 `AccessDeniedException`; nothing is stored.
    AccessDenied,
    /// Read, not stored, and never answered: cut when the script changes or the endpoint stops.
    BlackHole,
    /// As `BlackHole`, but stored.
    BlackHoleAfterStoring,
    /// Stored; then the connection is cut before the answer: the client cannot know.
    CutAfterStoring,
    /// Cut after the head was read, before the body.
    CutBeforeReading,
    /// Cut after the whole request was read; nothing is stored.
    CutBeforeStoring,
    /// Stored; cut in the middle of the answer's body.
    CutInAnswer,
    /// 400 `ExpiredTokenException`; nothing is stored.
    ExpiredToken,
    /// Stored; 200 with a body that is not JSON.
    Garbage,
    /// 500 `InternalFailure`; nothing is stored.
    InternalFailure,
    /// Stored, but answered with 500 `InternalFailure`: a 5xx proves nothing.
    InternalFailureAfterStoring,
    /// 400 `InvalidArgumentException` for no reason in the data; nothing is stored.
    InvalidArgument,
    /// 400 `KMSThrottlingException`; nothing is stored.
    KmsThrottled,
    /// 400 `ResourceNotFoundException`; nothing is stored.
    ResourceNotFound,
    /// 400 `ProvisionedThroughputExceededException` for the call; nothing is stored.
    Throttled,
    /// 503 `ServiceUnavailable`; nothing is stored.
    Unavailable,
    /// Stored; answered with a `Content-Length` longer than the body, then cut.
    WrongLength,
}

impl CallFault {
    /// Every fault there is.
    pub const ALL: [Self; 17] = [
        Self::AccessDenied,
        Self::BlackHole,
        Self::BlackHoleAfterStoring,
        Self::CutAfterStoring,
        Self::CutBeforeReading,
        Self::CutBeforeStoring,
        Self::CutInAnswer,
        Self::ExpiredToken,
        Self::Garbage,
        Self::InternalFailure,
        Self::InternalFailureAfterStoring,
        Self::InvalidArgument,
        Self::KmsThrottled,
        Self::ResourceNotFound,
        Self::Throttled,
        Self::Unavailable,
        Self::WrongLength,
    ];

    /// Returns whether the records of the call are stored all the same.
    #[must_use]
    pub fn stores(self) -> bool {
        matches!(
            self,
            Self::BlackHoleAfterStoring
                | Self::CutAfterStoring
                | Self::CutInAnswer
                | Self::Garbage
                | Self::InternalFailureAfterStoring
                | Self::WrongLength
        )
    }
}

/// A fault of one entry of an answered call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFault {
    /// `InternalFailure`.
    InternalFailure,
    /// `ProvisionedThroughputExceededException`.
    Throttled,
}

/// A fault of a call that reads: `GetShardIterator`, `GetRecords` or `ListShards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// As of any call.
    Call(CallFault),
    /// 200 without a record, though there may be some, and an iterator of the same place; of `GetRecords`
    /// alone.
    Empty,
    /// 400 `ExpiredIteratorException`; of `GetRecords` alone.
    Expired,
}

/// When a shard takes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Throttle {
    /// Above a rate, counted in windows of a second (Kinesis: 1,000 records, 1 MB).
    Above {
        /// Records a second.
        records: u64,
        /// Bytes a second, keys included.
        bytes: u64,
    },
    /// Always.
    Always,
    /// For the first so many entries that come to it under this script.
    Entries(u64),
    /// For a while, from the moment the script was set.
    For(Duration),
}

/// Says whether a record (its key, its data) can never be accepted.
pub type Poison = Arc<dyn Fn(&str, &[u8]) -> bool + Send + Sync>;

/// A seeded plan of faults. Built up by its methods from [`Script::healthy`].
#[derive(Clone, Default)]
pub struct Script {
    /// Drives every draw; print it when a test fails.
    pub seed: u64,
    calls: Vec<(CallFault, f64)>,
    exactly: Vec<(u64, CallFault)>,
    entries: Vec<(EntryFault, f64)>,
    reads: Vec<(ReadFault, f64)>,
    slow: Option<(f64, Duration)>,
    throttles: Vec<(u32, Throttle)>,
    poison: Option<Poison>,
    everywhere: bool,
    read_rate: Option<u64>,
}

impl fmt::Debug for Script {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Script")
            .field("seed", &self.seed)
            .field("calls", &self.calls)
            .field("exactly", &self.exactly)
            .field("entries", &self.entries)
            .field("reads", &self.reads)
            .field("slow", &self.slow)
            .field("throttles", &self.throttles)
            .field("poison", &self.poison.is_some())
            .field("everywhere", &self.everywhere)
            .field("read_rate", &self.read_rate)
            .finish()
    }
}

impl Script {
    /// Returns a plan without a fault.
    #[must_use]
    pub fn healthy() -> Self {
        Self::default()
    }

    /// Returns a plan without a fault yet, whose draws will follow from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Returns a plan in which every call of any operation is read and never answered.
    #[must_use]
    pub fn black_hole() -> Self {
        Self::healthy().call(CallFault::BlackHole, 1.0).everywhere()
    }

    /// Commits `fault` in this share of the calls. The shares of all faults together are at most 1.
    #[must_use]
    pub fn call(mut self, fault: CallFault, share: f64) -> Self {
        self.calls.push((fault, share));
        assert!(self.calls.iter().map(|(_, share)| share).sum::<f64>() <= 1.0 + 1e-9);
        self
    }

    /// Commits `fault` in the request of this number, counted over all operations from 0 (or, under
    /// [`FaultEndpoint::set_script`](super::FaultEndpoint::set_script), as the log counts).
    #[must_use]
    pub fn at(mut self, request: u64, fault: CallFault) -> Self {
        self.exactly.push((request, fault));
        self
    }

    /// Refuses this share of the entries of answered calls.
    #[must_use]
    pub fn entry(mut self, fault: EntryFault, share: f64) -> Self {
        self.entries.push((fault, share));
        assert!(self.entries.iter().map(|(_, share)| share).sum::<f64>() <= 1.0 + 1e-9);
        self
    }

    /// Commits `fault` in this share of the calls that read, or of those of them that it can befall.
    #[must_use]
    pub fn read(mut self, fault: ReadFault, share: f64) -> Self {
        self.reads.push((fault, share));
        assert!(self.reads.iter().map(|(_, share)| share).sum::<f64>() <= 1.0 + 1e-9);
        self
    }

    /// Holds the answers of this share of the calls back by `delay`, after the records are stored.
    #[must_use]
    pub fn slow(mut self, share: f64, delay: Duration) -> Self {
        self.slow = Some((share, delay));
        self
    }

    /// Throttles a shard, counted from 0.
    #[must_use]
    pub fn throttle(mut self, shard: u32, throttle: Throttle) -> Self {
        self.throttles.push((shard, throttle));
        self
    }

    /// Refuses every call that holds such a record, whole, as `InvalidArgumentException`.
    #[must_use]
    pub fn poison(mut self, is: impl Fn(&str, &[u8]) -> bool + Send + Sync + 'static) -> Self {
        self.poison = Some(Arc::new(is));
        self
    }

    /// Lets the faults of calls befall the other operations too, not `PutRecords` alone.
    #[must_use]
    pub fn everywhere(mut self) -> Self {
        self.everywhere = true;
        self
    }

    /// Reads bodies at so many bytes a second.
    #[must_use]
    pub fn read_rate(mut self, bytes_per_second: u64) -> Self {
        self.read_rate = Some(bytes_per_second);
        self
    }

    /// Returns what will befall the request of this number.
    #[must_use]
    pub fn plan(&self, request: u64, operation: &str) -> Plan {
        // Neighbouring seeds must not give neighbouring draws: spread the number over all bits.
        let mut draws =
            fastrand::Rng::with_seed(self.seed ^ request.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (chance, slow) = (draws.f64(), draws.f64());
        let reads = matches!(operation, "GetShardIterator" | "GetRecords" | "ListShards");
        let fault = pick(&self.reads, chance).filter(|_| reads);
        let read = fault.filter(|_| operation == "GetRecords");
        let applies = operation == "PutRecords" || self.everywhere;
        let planned = self.exactly.iter().find(|(number, _)| *number == request);
        let call = match (planned, fault) {
            (Some((_, fault)), _) => Some(*fault),
            (None, Some(ReadFault::Call(fault))) => Some(fault),
            (None, _) => pick(&self.calls, chance).filter(|_| applies),
        };
        let applies = applies || (reads && !self.reads.is_empty());
        let delay = self.slow.filter(|(share, _)| applies && slow < *share).map(|(_, delay)| delay);
        Plan { call, read, delay, read_rate: self.read_rate, draws }
    }

    /// Returns whether the record can never be accepted.
    #[must_use]
    pub fn poisons(&self, key: &str, data: &[u8]) -> bool {
        self.poison.as_ref().is_some_and(|is| is(key, data))
    }

    /// Returns the throttles of a shard.
    pub fn throttles(&self, shard: u32) -> impl Iterator<Item = Throttle> {
        self.throttles.iter().filter(move |(k, _)| *k == shard).map(|(_, throttle)| *throttle)
    }

    /// Draws the fate of one entry.
    #[must_use]
    pub fn entry_fault(&self, plan: &mut Plan) -> Option<EntryFault> {
        pick(&self.entries, plan.draws.f64())
    }
}

/// What will befall one request.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The fault of the call.
    pub call: Option<CallFault>,
    /// The fault of the reading.
    pub read: Option<ReadFault>,
    /// How long the answer is held back.
    pub delay: Option<Duration>,
    /// Bytes a second at which the body is read.
    pub read_rate: Option<u64>,
    draws: fastrand::Rng,
}

/// Returns the fault whose share of 0..1 holds `chance`.
fn pick<F: Copy>(shares: &[(F, f64)], chance: f64) -> Option<F> {
    let mut from = 0.0;
    for (fault, share) in shares {
        from += share;
        if chance < from {
            return Some(*fault);
        }
    }
    None
}
