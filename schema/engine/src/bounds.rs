//! What goes out is bounded like what comes in: the bytes of one answer, the memory of all long answers that
//! are being written, and the points that the tracks of one request are thinned from. An array of requests
//! counts as one answer. Here is the reckoning; who looks at it is `write`, and `location` for tracks. Not
//! here: what a document may cost before it runs (`cost`); how long an answer may take to be sent, and the
//! memory that it takes until then (`src`).
//!
//! There are two pools of memory for answers, one after the other, because they bound different things. Here
//! (`graph.max_writing_memory`) it is chunks that are added while rows are written: how many there will be is not
//! known, what is short never takes part, and whoever does not fit is refused in the middle of the work, so half of the
//! pool is any one owner's. The server's (`http.max_answer_memory`, `src/http/memory.rs`) is for finished answers of a
//! known size that wait for their clients, however slow these are; it knows addresses, keeps reserves for small answers
//! and for signed-in callers, and is shared with what streams have queued. One pool for both would let slow readers end
//! the writing of others. An answer is counted in both only for the moment in which it is handed over: `HeldMemory` is
//! dropped by the server once its own memory is reserved.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Mutex;
use uuid::Uuid;

use crate::error::{Code, FieldError, RequestError};

/// Bytes that are written without looking at anything but their number. What is no longer than this takes no
/// part in the reckoning of memory.
pub const PIECE: usize = 64 << 10;

/// Objects that one request may have copied out of what its mutations answer: results, and errors of inputs. How many
/// there are is up to the input, and each alias copies them again, so that no static cost can tell.
const MAX_COPIES: usize = 10_000;

/// What the answer to a request has taken so far. All requests of an array share one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Taken(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicUsize,
    copies: AtomicUsize,
    /// Held while a track is read: those of one request are read one after the other.
    points: Mutex<u32>,
}

impl Taken {
    /// Counts objects that are about to be copied out of a payload.
    ///
    /// # Errors
    /// `COST_LIMIT`, where the request has copied too many.
    pub fn copy(&self, count: usize) -> Result<(), FieldError> {
        let copied = self.0.copies.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        if copied <= MAX_COPIES {
            return Ok(());
        }
        let message = "Too many results and errors are selected: select them fewer times.";
        Err(FieldError::new(Code::CostLimit, message))
    }

    /// The points that were read for tracks.
    pub fn points(&self) -> &Mutex<u32> {
        &self.0.points
    }
}

/// The owner of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// An account, wherever it asks from.
    Account(Uuid),
    /// Callers without an account, by their address.
    Address(Option<IpAddr>),
    /// A gateway or another machine, which asks for many.
    Many,
}

/// The memory of all long answers that are being written. One owner may have half of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory {
    used: Arc<StdMutex<Used>>,
    most: usize,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    by_owner: HashMap<Owner, usize>,
}

impl Memory {
    /// Memory of so many bytes in all.
    pub fn of(most: usize) -> Self {
        Self { used: Arc::default(), most }
    }

    /// Takes more; false where there is too little left, of all or of the owner's. What is owed may take it all twice.
    fn take(&self, owner: &Owner, bytes: usize, is_owed: bool) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let own = used.by_owner.get(owner).copied().unwrap_or_default();
        let most = if is_owed { self.most.saturating_mul(2) } else { self.most };
        let share = if *owner == Owner::Many { most } else { most / 2 };
        let fits = |used: usize, most: usize| used.checked_add(bytes).is_some_and(|used| used <= most);
        if !fits(used.total, most) || !fits(own, share) {
            return false;
        }
        used.total += bytes;
        used.by_owner.insert(owner.clone(), own + bytes);
        true
    }

    fn give_back(&self, owner: &Owner, bytes: usize) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.total = used.total.saturating_sub(bytes);
        let own = used.by_owner.remove(owner).unwrap_or_default().saturating_sub(bytes);
        if own > 0 {
            used.by_owner.insert(owner.clone(), own);
        }
    }
}

/// The memory that a long answer takes; given back when this is dropped, which whoever takes over the bytes does.
#[derive(Debug, Default)]
pub struct HeldMemory(Option<(Memory, Owner, usize)>);

impl HeldMemory {
    /// Takes memory until there are `bytes`; false where there is too little left.
    fn reach(&mut self, bytes: usize, bounds: &Bounds, is_owed: bool) -> bool {
        let own = self.0.as_ref().map_or(0, |(.., own)| *own);
        let more = bytes.saturating_sub(own);
        let fits = bounds.memory.take(&bounds.owner, more, is_owed);
        if fits {
            self.0.get_or_insert_with(|| (bounds.memory.clone(), bounds.owner.clone(), 0)).2 += more;
        }
        fits
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        if let Some((memory, owner, bytes)) = &self.0 {
            memory.give_back(owner, *bytes);
        }
    }
}

/// The bounds of one request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Bytes of one answer at most.
    pub most: usize,
    /// The memory of all long answers.
    pub memory: Memory,
    /// What the answer has taken so far.
    pub taken: Taken,
    /// The owner of the answer.
    pub owner: Owner,
    /// Bytes that are written until they are looked at, at least 1.
    pub piece: usize,
}

impl Bounds {
    /// For one answer.
    pub fn answer(&self) -> AnswerBudget {
        AnswerBudget { bounds: self.clone(), reached: 0, held: HeldMemory::default(), done: None }
    }

    /// An answer of this size that is there already; `None` where there is no memory to give it again.
    pub fn hold(&self, bytes: usize) -> Option<HeldMemory> {
        let mut bound = self.answer();
        bound.reach(bytes, bytes).ok().map(|()| bound.held)
    }
}

/// The bounds of one answer in the making.
pub struct AnswerBudget {
    bounds: Bounds,
    /// The most bytes that it has had so far.
    reached: usize,
    held: HeldMemory,
    /// What a mutation has done before, as its errors tell it. Whoever is told to try again would do it twice.
    done: Option<String>,
}

impl AnswerBudget {
    /// The field of a mutation under this key has run: from here on the answer is owed.
    pub fn has_done(&mut self, key: &str) {
        let others = if self.done.is_some() { " and the fields before it" } else { "" };
        self.done = Some(format!("What `{key}`{others} did is done."));
    }

    /// What a mutation has done so far, in a sentence.
    pub fn done(&self) -> Option<&str> {
        self.done.as_deref()
    }

    fn too_long(&self, message: String) -> RequestError {
        let message = match &self.done {
            Some(done) => format!("{message} {done}"),
            None => message,
        };
        RequestError::new(Code::CostLimit, message)
    }

    /// It has so many bytes now, for which so many are allocated.
    ///
    /// # Errors
    /// It is too long, or all answers together are. Of a mutation that has done something the code is never
    /// `OVERLOADED`.
    pub fn reach(&mut self, bytes: usize, allocated: usize) -> Result<(), RequestError> {
        let more = bytes.saturating_sub(self.reached);
        self.reached += more;
        let Bounds { most, taken, .. } = &self.bounds;
        let before = taken.0.bytes.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > *most {
            let message = format!("The answer is longer than {most} bytes. Ask for less at once.");
            return Err(self.too_long(message));
        }
        if bytes > PIECE && !self.held.reach(allocated, &self.bounds, self.done.is_some()) {
            if self.done.is_some() {
                let message = "The server cannot hold an answer of this length now. Ask for less at once.";
                return Err(self.too_long(message.to_owned()));
            }
            let message =
                "Too many long answers are under way. Try again in a moment, or ask for less at once.";
            return Err(RequestError::new(Code::Overloaded, message));
        }
        Ok(())
    }

    /// Bytes that may be written until it has to be told again.
    pub fn ahead(&self) -> usize {
        let left = self.bounds.most.saturating_sub(self.bounds.taken.0.bytes.load(Ordering::Relaxed));
        self.bounds.piece.min(left.saturating_add(1))
    }

    /// What the answer holds until it is sent.
    pub fn into_held(self) -> HeldMemory {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(most: usize, memory: usize) -> Bounds {
        let owner = Owner::Account(Uuid::new_v4());
        Bounds { most, memory: Memory::of(memory), taken: Taken::default(), owner, piece: PIECE }
    }

    #[test]
    fn the_answers_of_an_array_share_the_bytes() {
        let bounds = bounds(100, PIECE);
        let (mut one, mut other) = (bounds.answer(), bounds.answer());
        assert!(one.reach(40, 40).is_ok() && other.reach(50, 50).is_ok());
        assert!(one.reach(30, 30).is_ok(), "what was cut back counts once");
        assert!(one.reach(50, 50).is_ok());
        let error = other.reach(51, 51).expect_err("101 in all");
        assert_eq!(error.code, Code::CostLimit);
        assert!(bounds.clone().answer().reach(1, 1).is_err(), "it stays so for the rest of the array");
    }

    #[test]
    fn completed_mutations_are_never_reported_as_retryable() {
        let one = bounds(usize::MAX, 4 * PIECE);
        let again = Bounds { taken: Taken::default(), ..one.clone() };
        let (mut query, mut mutation) = (one.answer(), again.answer());
        assert!(query.reach(2 * PIECE, 2 * PIECE).is_ok(), "the whole share of the owner");
        assert_eq!(
            again.answer().reach(PIECE + 1, PIECE + 1).map_err(|error| error.code),
            Err(Code::Overloaded)
        );
        mutation.has_done("first");
        assert!(mutation.reach(2 * PIECE, 2 * PIECE).is_ok(), "what a mutation tells is owed");
        mutation.has_done("second");
        let error = mutation.reach(2 * PIECE + 1, 2 * PIECE + 1).expect_err("but not without end");
        assert_eq!(error.code, Code::CostLimit);
        assert!(error.message.ends_with("What `second` and the fields before it did is done."), "{error:?}");
        drop((query, mutation));
        assert!(again.memory.used.lock().expect("no panic").by_owner.is_empty());
    }

    #[test]
    fn long_answers_share_the_memory_and_give_it_back() {
        let one = bounds(usize::MAX, 10 * PIECE);
        let again = Bounds { taken: Taken::default(), ..one.clone() };
        let other = Bounds { owner: Owner::Address(None), ..again.clone() };
        let (mut first, mut second) = (one.answer(), again.answer());
        assert!(
            first.reach(3 * PIECE, 3 * PIECE).is_ok() && second.reach(PIECE, PIECE).is_ok(),
            "short ones take no part"
        );
        assert!(second.reach(2 * PIECE, 2 * PIECE).is_ok());
        let error = second.reach(2 * PIECE + 1, 2 * PIECE + 1).expect_err("half of it is the owner's share");
        assert_eq!(error.code, Code::Overloaded);
        let theirs = other.hold(5 * PIECE).expect("others have the other half");
        let many = Bounds { owner: Owner::Many, ..again.clone() };
        assert!(many.hold(2 * PIECE).is_none(), "all of it is taken");
        drop((theirs, second));
        let held = first.into_held();
        assert!(one.hold(3 * PIECE).is_none(), "the first one is still there");
        drop(held);
        assert!(one.hold(5 * PIECE).is_some() && many.hold(10 * PIECE).is_some(), "given back again");
        assert!(one.memory.used.lock().expect("no panic").by_owner.is_empty(), "nobody is remembered");
    }
}
