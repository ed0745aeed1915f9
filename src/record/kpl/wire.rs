//! As much of protobuf's encoding as the aggregated record needs.
//!
//! Invariant: reading never goes beyond the bytes given; whatever is not well formed is [`Malformed`].

/// Appends a number: seven bits a byte, the lowest first, the top bit set on all but the last.
pub(super) fn varint(number: usize, into: &mut Vec<u8>) {
    let mut rest = number;
    while rest >= 0x80 {
        into.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    into.push(u8::try_from(rest).unwrap_or(0));
}

/// Appends a field of a length and bytes.
pub(super) fn bytes(key: u8, bytes: &[u8], into: &mut Vec<u8>) {
    into.push(key);
    varint(bytes.len(), into);
    into.extend_from_slice(bytes);
}

/// Returns the bytes of a field of `length` bytes: key, length, bytes.
pub(super) fn bytes_len(length: usize) -> usize {
    let bits = usize::BITS.saturating_sub((length | 1).leading_zeros());
    length.saturating_add(1).saturating_add(bits.div_ceil(7) as usize)
}

/// A message that is not well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Wire type 0.
    Number(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, which the schema does not use.
    Fixed,
}

/// The fields of a message, one after another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Reads the next field: its number and value; `None` at the end.
    ///
    /// # Errors
    /// Where the message is malformed; nothing can be read after that.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.field().map(Some).ok_or(Malformed)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            // Groups, long gone from protobuf, and types that never were.
            _ => return None,
        };
        // Zero is no number of a field.
        (key >> 3 != 0).then_some((key >> 3, value))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit.
                return (shift < 63 || byte < 2).then_some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_written_and_their_length_is_known() {
        for number in [0, 1, 127, 128, 300, 16_383, 16_384, usize::MAX >> 1, usize::MAX] {
            let mut message = vec![0x08];
            varint(number, &mut message);
            let read = Fields::of(&message).next();
            assert_eq!(read, Ok(Some((1, Value::Number(number as u64)))));
            let length = message.len() + number.min(1 << 30);
            assert!(number > 1 << 30 || bytes_len(number) == length, "{number}");
        }
    }

    #[test]
    fn what_is_cut_off_or_too_large_is_malformed() {
        let ten = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(Fields::of(&ten).next(), Ok(Some((1, Value::Number(u64::MAX)))));
        let over = [&[0x08][..], &[0xff; 9], &[0x02]].concat();
        for bad in [&over[..], &[0x08], &[0x0a, 2, 0], &[0x09, 0], &[0x0b], &[0x00, 0], &[0x0f]] {
            assert_eq!(Fields::of(bad).next(), Err(Malformed), "{bad:?}");
        }
        assert_eq!(Fields::of(&[0x0d, 1, 2, 3, 4]).next(), Ok(Some((1, Value::Fixed))));
        assert_eq!(Fields::of(&[]).next(), Ok(None));
    }
}
