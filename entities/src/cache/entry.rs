//! One cached value: in this process with its header beside it, and as bytes in Redis. What cannot be read, be it
//! damaged, of another shape or of another key, is a miss. Not here: whether a header is still valid (`table`).

use std::{
    any::Any,
    io,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::table::{SLOTS, Slot, Version};

/// Which value: what it is of (type, row shape, arguments) and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    /// A 128-bit hash: nobody can make two of them meet.
    pub(crate) of: u128,
    /// The row or the parent.
    pub(crate) id: Uuid,
}

/// What is known about a value besides the value.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    /// The version of the table before it was loaded.
    pub(crate) version: Version,
    /// What it depends on.
    pub(crate) slots: Box<[Slot]>,
    /// When it was loaded.
    pub(crate) at: Instant,
    /// How long the load took.
    pub(crate) took: Duration,
    /// From `at`: after this it is loaded again.
    pub(crate) ttl: Duration,
    /// Something it was made of has to be checked against Redis at each read.
    pub(crate) is_strong: bool,
}

/// A value in this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CacheEntry(Arc<Content>);

/// What an entry has.
pub(crate) struct Content {
    pub(crate) header: Header,
    /// `None` is the knowledge that there is none.
    value: Option<Arc<dyn Any + Send + Sync>>,
    /// Bytes, about.
    pub(crate) weight: u32,
}

impl Deref for CacheEntry {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.0
    }
}

impl CacheEntry {
    /// A value of this process.
    pub(crate) fn new<V: Serialize + Send + Sync + 'static>(header: Header, value: Option<Arc<V>>) -> Self {
        let bytes = value.as_deref().map_or(0, weigh);
        Self::of_bytes(header, value, bytes)
    }

    /// A value that takes so many bytes.
    pub(crate) fn of_bytes<V: Send + Sync + 'static>(
        header: Header,
        value: Option<Arc<V>>,
        bytes: usize,
    ) -> Self {
        let value = value.map(|value| value as Arc<dyn Any + Send + Sync>);
        let weight = u32::try_from(bytes.saturating_add(OVERHEAD_BYTES)).unwrap_or(u32::MAX);
        Self(Arc::new(Content { header, value, weight }))
    }

    /// The value as what it is.
    pub(crate) fn value<V: Send + Sync + 'static>(&self) -> Option<Arc<V>> {
        let value = self.value.clone()?;
        Some(value.downcast().unwrap_or_else(|_| unreachable!("the key's hash covers the type")))
    }

    /// Is it more than the knowledge that there is none?
    pub(crate) fn has_value(&self) -> bool {
        self.value.is_some()
    }

    /// How long ago it was loaded.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.header.at)
    }
}

/// First bytes of every entry in Redis; the last one is the version of this layout.
const MAGIC: [u8; 4] = *b"xpc\x01";
/// Values above this are compressed.
const COMPRESS_ABOVE_BYTES: usize = 2_048;
/// Values above this are not cached.
pub(crate) const MAX_VALUE_BYTES: usize = 1 << 20;

#[derive(serde::Serialize, serde::Deserialize)]
struct Wire<'a> {
    magic: [u8; 4],
    /// The key again: an entry that was moved is not believed.
    of: u128,
    id: u128,
    epoch: u64,
    sequence: u64,
    age_micros: u64,
    took_micros: u64,
    ttl_micros: u64,
    slots: Vec<Slot>,
    #[serde(borrow)]
    body: Body<'a>,
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Body<'a> {
    Absent,
    Plain(#[serde(borrow)] &'a [u8]),
    Compressed(#[serde(borrow)] &'a [u8]),
}

/// Bytes of an entry beside its value, about: key, header, the map's own.
const OVERHEAD_BYTES: usize = 256;

/// How long a value is, without making its bytes.
fn weigh<V: Serialize>(value: &V) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    postcard::to_io(value, &mut count).map_or(usize::MAX, |count| count.0)
}

/// The bytes for Redis; `None` where the value is too large.
pub(crate) fn encode<V: Serialize>(key: CacheKey, header: &Header, value: Option<&V>) -> Option<Vec<u8>> {
    let plain = value.map(postcard::to_allocvec).transpose().ok()?;
    let compressed = plain.as_ref().filter(|plain| plain.len() > COMPRESS_ABOVE_BYTES);
    let compressed = compressed.map(|plain| lz4_flex::compress_prepend_size(plain));
    if plain.as_ref().is_some_and(|plain| plain.len() > MAX_VALUE_BYTES) {
        return None;
    }
    let body = match (&plain, &compressed) {
        (None, _) => Body::Absent,
        (Some(_), Some(compressed)) => Body::Compressed(compressed),
        (Some(plain), None) => Body::Plain(plain),
    };
    let micros = |time: Duration| time.as_micros() as u64;
    let wire = Wire {
        magic: MAGIC,
        of: key.of,
        id: key.id.as_u128(),
        epoch: header.version.epoch,
        sequence: header.version.sequence,
        age_micros: micros(header.at.elapsed()),
        took_micros: micros(header.took),
        ttl_micros: micros(header.ttl),
        slots: header.slots.to_vec(),
        body,
    };
    postcard::to_allocvec(&wire).ok()
}

/// Reads what `encode` wrote; `None` for anything else. The age counts from when it was stored: the remaining time
/// in Redis bounds it, not a clock that two instances would have to agree on.
pub(crate) fn decode<V: DeserializeOwned + Send + Sync + 'static>(
    key: CacheKey,
    bytes: &[u8],
) -> Option<CacheEntry> {
    let wire: Wire<'_> = postcard::from_bytes(bytes).ok()?;
    let in_table = |slot: &Slot| SLOTS.contains(slot);
    if wire.magic != MAGIC
        || (wire.of, wire.id) != (key.of, key.id.as_u128())
        || !wire.slots.iter().all(in_table)
    {
        return None;
    }
    let inflated;
    // What a value takes here, not there: a megabyte of blanks is short when it is compressed.
    let mut length = 0;
    let value = match wire.body {
        Body::Absent => None,
        Body::Plain(plain) => {
            length = plain.len();
            Some(postcard::from_bytes::<V>(plain).ok()?)
        }
        Body::Compressed(bytes) => {
            length = bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize)?;
            if length > MAX_VALUE_BYTES {
                return None;
            }
            inflated = lz4_flex::decompress_size_prepended(bytes).ok()?;
            Some(postcard::from_bytes::<V>(&inflated).ok()?)
        }
    };
    let header = Header {
        version: Version { epoch: wire.epoch, sequence: wire.sequence },
        slots: wire.slots.into(),
        at: Instant::now().checked_sub(Duration::from_micros(wire.age_micros)).unwrap_or_else(Instant::now),
        took: Duration::from_micros(wire.took_micros),
        ttl: Duration::from_micros(wire.ttl_micros),
        // Who reads it knows its type.
        is_strong: false,
    };
    Some(CacheEntry::of_bytes(header, value.map(Arc::new), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CacheKey = CacheKey { of: 5, id: Uuid::from_u128(6) };

    fn header() -> Header {
        let version = Version { epoch: 3, sequence: 4 };
        let (at, took, ttl) = (Instant::now(), Duration::from_millis(2), Duration::from_mins(1));
        Header { version, slots: [20, 30].into(), at, took, ttl, is_strong: false }
    }

    #[test]
    fn encoded_values_decode_to_themselves() {
        for text in ["short", &"long ".repeat(2_000)] {
            let text = text.to_owned();
            let bytes = encode(KEY, &header(), Some(&text)).expect("it is small");
            assert!(bytes.len() < 2_100, "long texts are compressed: {}", bytes.len());
            let entry = decode::<String>(KEY, &bytes).expect("it was written here");
            assert_eq!(*entry.value::<String>().expect("there is one"), text);
            assert_eq!((entry.header.version, &*entry.header.slots), (header().version, &[20, 30][..]));
        }
        let bytes = encode::<String>(KEY, &header(), None).expect("absence is short");
        assert!(decode::<String>(KEY, &bytes).expect("it was written here").value.is_none());
    }

    #[test]
    fn anything_else_is_a_miss_and_never_a_panic() {
        let bytes = encode(KEY, &header(), Some(&"x".repeat(5_000))).expect("it is small");
        assert!(
            decode::<String>(CacheKey { of: 5, id: Uuid::from_u128(7) }, &bytes).is_none(),
            "another key"
        );
        for end in 0..bytes.len() {
            assert!(decode::<String>(KEY, &bytes[..end]).is_none(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let _ = decode::<String>(KEY, &damaged);
            }
        }
        // A length that promises gigabytes is not believed.
        let wire = Wire {
            magic: MAGIC,
            of: 5,
            id: 6,
            epoch: 1,
            sequence: 1,
            age_micros: 0,
            took_micros: 0,
            ttl_micros: 1,
            slots: vec![],
            body: Body::Compressed(&[255; 64]),
        };
        assert!(decode::<String>(KEY, &postcard::to_allocvec(&wire).expect("it is short")).is_none());
    }

    #[test]
    fn what_was_compressed_weighs_what_it_takes_here() {
        let text = "x".repeat(500_000);
        let bytes = encode(KEY, &header(), Some(&text)).expect("it is within the limit");
        assert!(bytes.len() < 10_000, "{}", bytes.len());
        let entry = decode::<String>(KEY, &bytes).expect("it was written here");
        assert!(entry.weight >= 500_000, "{}", entry.weight);
    }

    #[test]
    fn a_value_over_the_limit_is_not_cached() {
        assert!(encode(KEY, &header(), Some(&"x".repeat(MAX_VALUE_BYTES + 1))).is_none());
    }
}
