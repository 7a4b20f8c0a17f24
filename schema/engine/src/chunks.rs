//! The bytes of an answer, in chunks: what is written is never copied to make room for more, and a chunk can
//! be sent and given back while the others wait. A short answer is one vector. Not here: when a chunk is full
//! (`output`), how much answers may take (`bounds`).

use std::ops::Range;

use crate::scalar::make_room;

/// Bytes that are copied rather than kept as a chunk of their own.
const COPIED: usize = 4 << 10;

/// Bytes in chunks, of which the last one is written to.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    /// None in a short answer, which is so hardly larger than a vector.
    full: Option<Box<Full>>,
    end: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Full {
    chunks: Vec<Vec<u8>>,
    /// Bytes in them.
    bytes: usize,
    /// What they have allocated, bytes.
    allocated: usize,
}

impl Chunks {
    /// How many bytes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.before() + self.end.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is allocated for them, bytes; what a chunk has more than it needs is counted.
    pub fn allocated(&self) -> usize {
        self.full.as_ref().map_or(0, |full| full.allocated) + self.end.capacity()
    }

    /// Bytes in the full chunks.
    fn before(&self) -> usize {
        self.full.as_ref().map_or(0, |full| full.bytes)
    }

    fn full(&self) -> &[Vec<u8>] {
        self.full.as_ref().map_or(&[], |full| &full.chunks)
    }

    /// The last chunk, to append to. What is there already must be left as it is.
    #[inline]
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.end
    }

    /// Appends a byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.end.push(byte);
    }

    /// Appends bytes, of which there are few.
    #[inline]
    pub fn extend(&mut self, bytes: impl AsRef<[u8]>) {
        self.end.extend_from_slice(bytes.as_ref());
    }

    /// Makes room for so many bytes: begins a new chunk where the last one has too little left.
    pub fn make_room(&mut self, bytes: usize) {
        if self.end.capacity() - self.end.len() < bytes {
            let full = std::mem::replace(&mut self.end, Vec::with_capacity(bytes));
            self.seal(full);
        }
    }

    /// Appends other bytes, which are not copied where they are many.
    pub fn append(&mut self, other: Self) {
        if other.len() <= COPIED {
            if self.end.len() > COPIED {
                self.make_room(other.len());
            }
            other.slices().for_each(|slice| self.extend(slice));
            return;
        }
        let end = std::mem::take(&mut self.end);
        self.seal(end);
        for chunk in other.full.into_iter().flat_map(|full| full.chunks) {
            self.seal(chunk);
        }
        self.end = other.end;
    }

    fn seal(&mut self, chunk: Vec<u8>) {
        if !chunk.is_empty() {
            let full = self.full.get_or_insert_default();
            full.bytes += chunk.len();
            full.allocated += chunk.capacity();
            full.chunks.push(chunk);
        }
    }

    /// Cuts back to the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        while let Some(full) = &mut self.full
            && length < full.bytes
            && let Some(last) = full.chunks.pop()
        {
            full.bytes -= last.len();
            full.allocated -= last.capacity();
            self.end = last;
        }
        self.end.truncate(length.saturating_sub(self.before()));
    }

    /// Appends bytes that are there already once more.
    pub fn repeat(&mut self, mut range: Range<usize>) {
        make_room(range.len(), &mut self.end);
        let mut begin = 0;
        for chunk in self.full.iter().flat_map(|full| &full.chunks) {
            let end = begin + chunk.len();
            if range.start < end && !range.is_empty() {
                let part = range.start - begin..range.end.min(end) - begin;
                self.end.extend_from_slice(&chunk[part]);
                range.start = range.end.min(end);
            }
            begin = end;
        }
        if !range.is_empty() {
            self.end.extend_from_within(range.start - begin..range.end - begin);
        }
    }

    /// The chunks, none of them empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.full().iter().chain(Some(&self.end)).map(Vec::as_slice).filter(|chunk| !chunk.is_empty())
    }

    /// All of them in one vector: copied, unless there is one chunk only.
    pub fn into_vec(mut self) -> Vec<u8> {
        let end = std::mem::take(&mut self.end);
        match self.full {
            Some(mut full) if !full.chunks.is_empty() => {
                full.chunks.push(end);
                full.chunks.concat()
            }
            _ => end,
        }
    }
}

impl From<Vec<u8>> for Chunks {
    fn from(end: Vec<u8>) -> Self {
        Self { end, ..Self::default() }
    }
}

impl IntoIterator for Chunks {
    type Item = Vec<u8>;
    type IntoIter = std::iter::Chain<std::vec::IntoIter<Vec<u8>>, std::option::IntoIter<Vec<u8>>>;

    /// The chunks, none of them empty.
    fn into_iter(self) -> Self::IntoIter {
        self.full
            .map_or_else(Vec::new, |full| full.chunks)
            .into_iter()
            .chain(Some(self.end).filter(|end| !end.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `abc`, `def`, …: each three bytes in a chunk of its own.
    fn chunks(text: &str) -> Chunks {
        let mut chunks = Chunks::default();
        for part in text.as_bytes().chunks(3) {
            chunks.make_room(3);
            chunks.extend(part);
        }
        chunks
    }

    fn text(chunks: &Chunks) -> String {
        chunks.slices().map(|slice| std::str::from_utf8(slice).unwrap()).collect()
    }

    #[test]
    fn a_full_chunk_is_not_moved_to_make_room() {
        let mut chunks = Chunks::default();
        chunks.make_room(1_000);
        let mut places = Vec::new();
        for _ in 0..100 {
            chunks.extend([b'x'; 1_000]);
            places.push(chunks.end().as_ptr());
            chunks.make_room(1_000);
        }
        assert_eq!((chunks.len(), chunks.allocated()), (100_000, 101_000));
        assert!(places.iter().copied().eq(chunks.slices().map(<[u8]>::as_ptr)));
    }

    #[test]
    fn one_chunk_is_given_away_as_it_is() {
        let mut chunks = Chunks::from(Vec::with_capacity(100));
        chunks.make_room(100);
        chunks.extend(b"short");
        let place = chunks.end().as_ptr();
        let whole = chunks.into_vec();
        assert_eq!(whole.as_ptr(), place);
        assert_eq!(chunks_of("abcdefgh"), ["abc", "def", "gh"]);
        assert_eq!(self::chunks("abcdefgh").into_vec(), b"abcdefgh");
    }

    fn chunks_of(text: &str) -> Vec<String> {
        chunks(text).into_iter().map(|chunk| String::from_utf8(chunk).unwrap()).collect()
    }

    #[test]
    fn they_are_cut_back_to_any_length() {
        let whole = "abcdefgh";
        for length in 0..=whole.len() {
            let mut cut = chunks(whole);
            cut.truncate(length);
            assert_eq!((text(&cut).as_str(), cut.len()), (&whole[..length], length));
            cut.extend(b"XY");
            assert_eq!(text(&cut), format!("{}XY", &whole[..length]));
            let capacities: usize = cut.clone().into_iter().map(|chunk| chunk.capacity()).sum();
            assert!(cut.allocated() >= capacities, "{length}");
        }
    }

    #[test]
    fn any_part_of_them_can_be_repeated() {
        let whole = "abcdefgh";
        for start in 0..=whole.len() {
            for end in start..=whole.len() {
                let mut repeated = chunks(whole);
                repeated.repeat(start..end);
                assert_eq!(text(&repeated), format!("{whole}{}", &whole[start..end]));
            }
        }
    }

    #[test]
    fn they_are_appended_without_being_copied() {
        let (mut one, long) = (chunks("abcdef"), "x".repeat(COPIED + 1));
        let other = Chunks::from(long.clone().into_bytes());
        let places: Vec<_> = one.slices().chain(other.slices()).map(<[u8]>::as_ptr).collect();
        one.append(other);
        assert!(places.iter().copied().eq(one.slices().map(<[u8]>::as_ptr)));
        one.append(chunks("ghijk"));
        one.append(Chunks::default());
        assert_eq!(one.slices().count(), 4, "what is short is copied, behind a full chunk into a new one");
        assert_eq!(text(&one), format!("abcdef{long}ghijk"));
        assert_eq!(one.len(), one.into_vec().len());
    }
}
