//! A body that is in memory, in chunks, each of which is given back as soon as it was handed over. Not here: how it is
//! compressed (`compression`), and how fast it is taken (`sending`).

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use schema::Chunks;

/// What is still to be handed over.
#[derive(Debug, Default)]
pub(super) struct InMemory {
    /// None of them empty.
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

impl InMemory {
    /// All of a body that waits for nothing; what fails on the way ends it.
    pub(super) async fn collect(mut body: Body) -> Self {
        let mut whole = Self::default();
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                whole.push(data);
            }
        }
        whole
    }

    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes bytes from the front: so many at most, and none only where there are none.
    pub(super) fn take(&mut self, most: usize) -> Bytes {
        let Some(first) = self.chunks.front_mut() else { return Bytes::new() };
        let piece = first.split_to(first.len().min(most));
        if first.is_empty() {
            self.chunks.pop_front();
        }
        self.bytes -= piece.len();
        piece
    }
}

impl From<Chunks> for InMemory {
    fn from(chunks: Chunks) -> Self {
        let mut whole = Self::default();
        chunks.into_iter().for_each(|chunk| whole.push(chunk.into()));
        whole
    }
}

impl From<InMemory> for Body {
    fn from(mut whole: InMemory) -> Self {
        match whole.chunks.len() {
            0 | 1 => Self::from(whole.chunks.pop_front().unwrap_or_default()),
            _ => Self::new(whole),
        }
    }
}

impl HttpBody for InMemory {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.get_mut().take(usize::MAX);
        Poll::Ready((!chunk.is_empty()).then(|| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its chunks are those of the answer, whose length is known beforehand, and each is free once it is taken.
    #[tokio::test]
    async fn a_body_is_handed_over_chunk_by_chunk() {
        let mut chunks = Chunks::default();
        for byte in [b'a', b'b', b'c'] {
            chunks.make_room(1_000);
            chunks.extend([byte; 1_000]);
        }
        let places: Vec<_> = chunks.slices().map(<[u8]>::as_ptr).collect();
        let body = Body::from(InMemory::from(chunks));
        assert_eq!(body.size_hint().exact(), Some(3_000));
        let mut whole = InMemory::collect(body).await;
        assert!(whole.chunks.iter().map(|chunk| chunk.as_ptr()).eq(places));
        assert_eq!((whole.take(600).len(), whole.take(600).len(), whole.len()), (600, 400, 2_000));
        assert_eq!(whole.chunks.len(), 2);
        assert_eq!(whole.take(usize::MAX), vec![b'b'; 1_000]);
        assert_eq!((whole.take(2_000).len(), whole.take(1).len(), whole.is_empty()), (1_000, 0, true));
    }
}
