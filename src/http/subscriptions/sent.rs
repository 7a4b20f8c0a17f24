//! Memory of what is sent on a stream, over any transport: it counts in `http.max_answer_memory` from before
//! it is handed to the connection until the connection has taken the last of it. Not here: the bound itself
//! (`memory`), and how fast it must be taken (`sending`, `websocket::frames`).

use std::sync::Arc;

use bytes::Bytes;
use schema::{Chunks, HeldMemory, OperationKind, Reply};

use crate::http::{
    graphql,
    memory::{MemoryReservation, OutOfMemory},
};

/// Bytes with the memory that is reserved for them.
struct Reserved {
    bytes: Vec<u8>,
    _memory: Arc<MemoryReservation>,
}

impl AsRef<[u8]> for Reserved {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reserves memory for what is sent of an answer. A mutation has run: its answer may take more, and if it
/// does not fit at all, its place is taken by one that says that it is done, since its client would otherwise
/// run it again.
pub(super) fn reserve(
    memory: &mut MemoryReservation,
    reply: &mut Reply,
    request_id: &str,
) -> Result<(), OutOfMemory> {
    if !reply.executed || reply.operation != Some(OperationKind::Mutation) {
        return memory.grow(reply.body.len());
    }
    memory.grow_owed(reply.body.len()).or_else(|OutOfMemory| {
        (reply.body, reply.held) = (graphql::done(request_id, reply.set).into(), HeldMemory::default());
        memory.grow_owed(reply.body.len())
    })
}

/// Chunks that keep `memory` until the last slice of them is dropped.
pub(super) fn with_memory(chunks: Chunks, memory: MemoryReservation) -> impl Iterator<Item = Bytes> {
    let memory = Arc::new(memory);
    chunks.into_iter().map(move |mut bytes| {
        bytes.shrink_to_fit();
        Bytes::from_owner(Reserved { bytes, _memory: Arc::clone(&memory) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{memory::MemoryPool, shares::Owner};

    fn reply(operation: OperationKind, executed: bool) -> Reply {
        let mut body = Chunks::from(vec![b'x'; 40]);
        body.make_room(60);
        body.extend([b'x'; 60]);
        Reply { body, operation: Some(operation), executed, ..Reply::default() }
    }

    #[test]
    fn memory_is_held_until_the_last_slice_is_dropped() {
        let pool = MemoryPool::new(1_000, 100);
        let mut reply = reply(OperationKind::Query, true);
        let mut memory = pool.reserve(Owner::default());
        assert_eq!(reserve(&mut memory, &mut reply, "mine"), Ok(()));
        let mut chunks: Vec<_> = with_memory(reply.body, memory).collect();
        assert_eq!(chunks.len(), 2);
        let slice = chunks[1].split_to(10);
        drop(chunks);
        assert_eq!(pool.held(), 100);
        drop(slice);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn only_what_has_been_written_is_told_beyond_the_bound() {
        let pool = MemoryPool::new(90, 100);
        for (operation, executed, fits) in [
            (OperationKind::Query, true, Err(OutOfMemory)),
            (OperationKind::Subscription, true, Err(OutOfMemory)),
            (OperationKind::Mutation, false, Err(OutOfMemory)),
            (OperationKind::Mutation, true, Ok(())),
        ] {
            let mut memory = pool.reserve(Owner::default());
            let outcome = reserve(&mut memory, &mut reply(operation, executed), "mine");
            assert_eq!(outcome, fits, "{operation:?}");
            assert_eq!(pool.held(), if fits.is_ok() { 100 } else { 0 });
        }
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn a_mutation_with_a_huge_answer_reports_success() {
        for (set, end) in [(None, "]}"), (Some(3), r#"],"variableIndex":3}"#)] {
            let pool = MemoryPool::new(50_000, 100);
            let whole = reply(OperationKind::Mutation, true);
            let mut reply = Reply { body: vec![b'x'; 100_001].into(), set, ..whole };
            let mut memory = pool.reserve(Owner::default());
            assert_eq!(reserve(&mut memory, &mut reply, "mine"), Ok(()));
            let body = String::from_utf8(reply.body.into_vec()).expect("text");
            assert!(body.starts_with(r#"{"data":null,"errors":"#) && body.contains("COST_LIMIT"), "{body}");
            assert!(body.ends_with(end), "{body}");
            assert!(reply.executed && pool.held() == body.len(), "{body}");
        }
    }
}
