//! Serde values in the words of a message: postcard, eight bytes to a word, little endian.

use heapless::{String, Vec};
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::utcb::WORDS;

/// Bytes that fit into the words behind a message's header word.
pub const MAX_BODY: usize = (WORDS - 1) * 8;

/// A type with an upper bound on its encoded size.
pub trait Wire: Serialize + DeserializeOwned {
    /// Most bytes that a value takes.
    const MAX: usize;
}

/// Bytes of a length prefix for up to `n`.
#[must_use]
pub const fn length_prefix(n: usize) -> usize {
    let bits = usize::BITS - n.leading_zeros();
    if bits == 0 { 1 } else { bits.div_ceil(7) as usize }
}

macro_rules! fixed {
    ($($type:ty: $max:literal),+ $(,)?) => {
        $( impl Wire for $type { const MAX: usize = $max; } )+
    };
}

fixed!((): 0, bool: 1, u8: 1, i8: 1, u16: 3, i16: 3, u32: 5, i32: 5, u64: 10, i64: 10);

impl<T: Wire> Wire for Option<T> {
    const MAX: usize = 1 + T::MAX;
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    const MAX: usize = A::MAX + B::MAX;
}

impl<T: Wire, const N: usize> Wire for Vec<T, N> {
    const MAX: usize = length_prefix(N) + N * T::MAX;
}

impl<const N: usize> Wire for String<N> {
    const MAX: usize = length_prefix(N) + N;
}

/// The value does not fit or does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error;

/// Packs bytes into words as they come.
struct Words<'a> {
    words: &'a mut [u64],
    bytes: usize,
}

impl Flavor for Words<'_> {
    type Output = usize;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        let shift = self.bytes % 8 * 8;
        let word =
            self.words.get_mut(self.bytes / 8).ok_or(postcard::Error::SerializeBufferFull)?;
        if shift == 0 {
            *word = 0;
        }
        *word |= u64::from(byte) << shift;
        self.bytes += 1;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<usize> {
        Ok(self.bytes.div_ceil(8))
    }
}

/// Writes a value into `words`; returns how many it took. Unused bytes of the last one are zero.
///
/// # Errors
/// The value does not fit.
pub fn encode<T: Serialize>(value: &T, words: &mut [u64]) -> Result<usize, Error> {
    postcard::serialize_with_flavor(value, Words { words, bytes: 0 }).map_err(|_| Error)
}

/// A copy of a message body that nobody else can change while it is read.
pub struct Body {
    bytes: [u8; MAX_BODY],
    len: usize,
}

impl Body {
    /// Copies words, at most as many as a message holds.
    #[must_use]
    pub fn copy(words: &[u64]) -> Self {
        let mut body = Self { bytes: [0; MAX_BODY], len: words.len().min(WORDS - 1) * 8 };
        for (to, from) in body.bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        body
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Reads a value from the start of the body.
    ///
    /// # Errors
    /// The bytes are not such a value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        postcard::from_bytes(self.bytes()).map_err(|_| Error)
    }
}
