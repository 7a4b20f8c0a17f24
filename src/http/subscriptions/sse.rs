//! Server-sent events, "distinct connections mode" (the protocol of the npm package `graphql-sse`): one
//! operation a request, by POST or GET; an event `next` for each answer, and `complete` at the end. A stream
//! that ends without it was interrupted, and its client asks again. Not here: what is answered, and what ends
//! it.

use schema::Chunks;

pub(super) const CONTENT_TYPE: &str = "text/event-stream";
pub(super) const ALIVE: &[u8] = b":\n\n";
pub(super) const CLOSING: &[u8] = b"event: complete\ndata: \n\n";

/// Whether a range of `Accept` means this protocol.
pub(super) fn is_meant(range: &str) -> bool {
    range.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(CONTENT_TYPE))
}

/// An answer is one line: JSON has no line breaks outside of its texts, and there they are escaped. `id`
/// stands for the event: who comes back with it as `Last-Event-ID` gets those after it (HTML, §9.2.6); an
/// empty one makes readers forget theirs.
pub(super) fn event(answer: Chunks, id: Option<&str>) -> Chunks {
    let mut event = Chunks::from(b"event: next\n".to_vec());
    if let Some(id) = id {
        event.extend(format!("id: {id}\n").as_bytes());
    }
    event.extend(b"data: ");
    event.append(answer);
    event.append(b"\n\n".to_vec().into());
    event
}
