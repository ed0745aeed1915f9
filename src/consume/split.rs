//! Splitting batches: many records at once, on several cores.
//!
//! Invariant: records come out in the order in which they came in, each with its pieces in order; and
//! however much they unfold to, at most [`HELD_BYTES`] a core, and one record, are held unfolded.

use std::num::NonZeroUsize;
use std::thread;

use crate::record::split::{By, Found, Piece, Splitter};
use crate::stream::read::Fetched;

/// The most cores that are used; beyond, writing is what takes the time.
const CORES_MAX: usize = 4;

/// The least data that is worth a thread: splitting it takes longer than starting one.
const WORTH_BYTES: usize = 128 << 10;

/// The data that a thread takes at once.
const CHUNK_BYTES: usize = 512 << 10;

/// Unfolded bytes of a chunk after which the rest of it is split one by one.
const HELD_BYTES: usize = 16 << 20;

/// Splits the records of batches.
#[derive(Debug)]
pub struct Splitters(Vec<Splitter>);

impl Splitters {
    /// Makes splitters, one a core.
    #[must_use]
    pub fn new(by: &By) -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::on(by, cores.min(CORES_MAX))
    }

    /// Makes so many splitters.
    #[must_use]
    pub fn on(by: &By, cores: usize) -> Self {
        Self((0..cores.max(1)).map(|_| Splitter::new(by.clone())).collect())
    }

    /// Returns what was found so far.
    #[must_use]
    pub fn found(&self) -> Found {
        self.0.iter().map(Splitter::found).fold(Found::default(), |sum, found| Found {
            kpl: sum.kpl.saturating_add(found.kpl),
            compressed: sum.compressed.saturating_add(found.compressed),
            unsplit: sum.unsplit.saturating_add(found.unsplit),
        })
    }

    /// Splits `records` and hands each, with its pieces, to `take`, which may end it with an error.
    ///
    /// # Errors
    /// That of `take`.
    pub fn each<E>(
        &mut self,
        records: &[Fetched],
        mut take: impl FnMut(&Fetched, Vec<Piece>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = records;
        while !rest.is_empty() {
            let window = window(rest, self.0.len());
            for (chunk, done) in split(&mut self.0, &window) {
                let pieces = done.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
                for (record, pieces) in chunk.iter().zip(pieces) {
                    match (pieces, self.0.first_mut()) {
                        (Some(pieces), _) => take(record, pieces)?,
                        (None, Some(splitter)) => take(record, splitter.split(&record.data))?,
                        (None, None) => {}
                    }
                }
            }
            let taken = window.iter().map(|chunk| chunk.len()).sum();
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Returns the next chunks, one for each of `cores`, or one where there is little left.
fn window(records: &[Fetched], cores: usize) -> Vec<&[Fetched]> {
    let ahead = CHUNK_BYTES.saturating_mul(cores);
    let bytes = records.iter().scan(0_usize, |sum, record| {
        *sum = sum.saturating_add(record.data.len());
        Some(*sum)
    });
    let bytes = bytes.take_while(|sum| *sum < ahead).last().unwrap_or(CHUNK_BYTES);
    let cores = if bytes < WORTH_BYTES { 1 } else { cores };
    let most = bytes.checked_div(cores).unwrap_or(bytes).clamp(1, CHUNK_BYTES);
    let mut chunks = Vec::with_capacity(cores);
    let mut rest = records;
    while chunks.len() < cores && !rest.is_empty() {
        let mut held = 0_usize;
        let fits = rest.iter().take_while(|record| {
            let fits = held < most;
            held = held.saturating_add(record.data.len());
            fits
        });
        let (chunk, others) = rest.split_at(fits.count().clamp(1, rest.len()));
        chunks.push(chunk);
        rest = others;
    }
    chunks
}

/// Splits each chunk on a thread of its own, the first on this one.
fn split<'a>(
    splitters: &mut [Splitter],
    window: &[&'a [Fetched]],
) -> Vec<(&'a [Fetched], Vec<Vec<Piece>>)> {
    let mut work = splitters.iter_mut().zip(window.iter().copied());
    let Some((own, first)) = work.next() else { return Vec::new() };
    thread::scope(|scope| {
        let others: Vec<_> = work
            .map(|(splitter, chunk)| (chunk, scope.spawn(move || split_chunk(splitter, chunk))))
            .collect();
        let first = (first, split_chunk(own, first));
        // A panic ends the process in production; in a test the chunk is split again, in turn.
        let others =
            others.into_iter().map(|(chunk, thread)| (chunk, thread.join().unwrap_or_default()));
        std::iter::once(first).chain(others).collect()
    })
}

/// Splits the records of a chunk until they have unfolded to more than should be held.
fn split_chunk(splitter: &mut Splitter, chunk: &[Fetched]) -> Vec<Vec<Piece>> {
    let mut held = 0_usize;
    let mut done = Vec::with_capacity(chunk.len());
    for record in chunk {
        if held > HELD_BYTES {
            break;
        }
        let pieces = splitter.split(&record.data);
        let bytes: usize = pieces.iter().map(|piece| piece.data.len()).sum();
        held = held.saturating_add(bytes.saturating_sub(record.data.len()));
        done.push(pieces);
    }
    done
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn record(number: usize, data: Vec<u8>) -> Fetched {
        Fetched {
            partition_key: "k".to_owned(),
            data: Bytes::from(data),
            sequence_number: (&*number.to_string()).into(),
        }
    }

    fn lines(splitters: &mut Splitters, records: &[Fetched]) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        let taken = splitters.each(records, |record, pieces| {
            let number = record.sequence_number.to_string();
            all.extend(pieces.into_iter().map(|piece| (number.clone(), piece.data.to_vec())));
            Ok::<(), Infallible>(())
        });
        taken.unwrap();
        all
    }

    proptest! {
        /// forall batches: split on several cores, they are what they are split on one.
        #[test]
        fn the_order_is_that_of_the_records(seed in any::<u64>(), count in 0_usize..40) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let records: Vec<Fetched> = (0..count)
                .map(|number| {
                    let length = if rng.bool() { rng.usize(..50) } else { rng.usize(..100_000) };
                    record(number, (0..length).map(|_| rng.u8(b' '..b'z')).map(|byte| if byte == b'#' { b'\n' } else { byte }).collect())
                })
                .collect();
            let one = lines(&mut Splitters::on(&By::Content, 1), &records);
            prop_assert_eq!(lines(&mut Splitters::on(&By::Content, 3), &records), one);
        }
    }

    #[test]
    fn bombs_are_unfolded_one_by_one() {
        let data = zstd::encode_all(&vec![b'x'; 12 << 20][..], 1).unwrap();
        let bombs: Vec<_> = (0..6).map(|number| record(number, data.clone())).collect();
        let done = split_chunk(&mut Splitter::new(By::Content), &bombs);
        assert_eq!(done.len(), 2);
        let all = lines(&mut Splitters::on(&By::Content, 2), &bombs);
        let numbers: Vec<&str> = all.iter().map(|(number, _)| &**number).collect();
        assert_eq!(numbers, ["0", "1", "2", "3", "4", "5"]);
        assert!(all.iter().all(|(_, data)| data.len() == 12 << 20));
    }
}
