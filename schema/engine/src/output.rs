//! The answer in the making: its JSON, the path to where it is being written, and the errors so far. A
//! non-null field that fails takes its parent with it (October 2021, §6.4.4): the JSON is cut back to where the
//! nearest nullable parent began.
//!
//! Writing is one pass in memory, but it is not done in one go: after each piece (`PIECE` bytes) it stops,
//! the bounds of the answer are looked at (`bounds`), others get their turn on the thread and the request's
//! deadline is seen; then it goes on where it was. So a row or a field costs one comparison, and an answer
//! that is too long ends in an error early.

use std::sync::Arc;

use crate::{
    bounds::{AnswerBudget, Bounds, Taken},
    chunks::Chunks,
    error::{Code, FieldError, OnError, RequestError, SourceLocation, shortened},
    federation::trace::{Moment, Traced, Tree},
    scalar::{write_json, write_text},
};

/// Errors in an answer at most; more would only be a way to make the server talk.
const MAX_ERRORS: usize = 10;
/// Errors of the items of a list at the root (`_entities`, `nodes`) at most: a null there means absent, unless an error
/// says that it failed.
const MAX_ITEM_ERRORS: usize = 1_000;

/// How many bytes of a piece are written before it is full: the last value has room too, so that what there
/// is need not be moved for it.
fn stop_within(piece: usize) -> usize {
    piece - piece / 32
}

/// What an item of a list takes in a trace, bytes.
const ITEM_BYTES: usize = size_of::<crate::federation::trace::Node>();

/// The value is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// It could not be: the error is noted, and the nearest nullable parent becomes null.
    Nulled,
    /// It was not loaded because something else has failed, which is told in its own place: here is null,
    /// whatever the type says, since nothing of this is told in the end.
    Skipped,
    /// A piece is full: what there is stays, and the same call again goes on behind it.
    Stopped,
}

use Unwritten::{Nulled, Skipped, Stopped};

#[derive(Clone, Copy)]
enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

/// Writes one answer.
pub struct Writer<'a> {
    /// The bytes so far.
    pub out: Chunks,
    path: Vec<Segment<'a>>,
    errors: Errors,
    bound: AnswerBudget,
    /// The length of `out` at which the piece is full.
    stop_at: usize,
    /// Bytes beside `out`: errors, and what is noted in a trace.
    beside: usize,
    /// Where it has stopped, the innermost first; empty while it goes on.
    stopped: Vec<StopPoint>,
    /// Nothing is left on the way out of what was stopped.
    is_stopping: bool,
    /// How many values could not be written.
    pub failures: usize,
}

/// A place to go on at.
#[derive(Clone, Copy)]
enum StopPoint {
    /// Before the step of this number, or within it.
    Step { number: usize, is_within: bool },
    /// In a value that began at this length of `out`.
    Value { start: usize },
}

/// An answer in the making, between two writers: its bytes, its errors, and what it may take.
pub struct Unfinished {
    /// The bytes so far.
    pub out: Chunks,
    /// The errors so far.
    pub errors: Errors,
    /// What it may take.
    pub bound: AnswerBudget,
}

/// The `errors` entry of an answer.
#[derive(Default)]
pub struct Errors {
    /// Told to the client with each of them, and to the log with what is behind them.
    request_id: Arc<str>,
    json: Vec<u8>,
    /// What was resolved, and failed, where somebody asks.
    pub trace: Option<Box<Tree>>,
    /// The codes of all errors, in order.
    pub codes: Vec<&'static str>,
    /// The longest that an error says to wait.
    pub retry_after_seconds: Option<u32>,
    /// What is in the log already: one failure fails many fields.
    logged: Vec<Arc<str>>,
    /// What a field that fails does to the rest of the answer.
    on_error: OnError,
    /// Whether sending the request again gives the result of this one, whatever this one did.
    is_repeatable: bool,
}

/// What an error tells beside its code.
#[derive(Clone, Copy)]
struct Told<'a> {
    /// Whether the same may be sent again, where that can be said.
    retryable: Option<bool>,
    /// The id of what was stored and could not be read back.
    stored: Option<&'a str>,
}

impl<'a> Writer<'a> {
    /// Goes on behind an answer that is not finished.
    pub fn resume(Unfinished { out, errors, bound }: Unfinished) -> Self {
        let stop_at = out.len().saturating_add(stop_within(bound.ahead()));
        let (path, stopped) = (Vec::new(), Vec::new());
        Self { out, path, errors, bound, stop_at, beside: 0, stopped, is_stopping: false, failures: 0 }
    }

    /// Gives the answer back, to be gone on with or ended.
    pub fn finish(self) -> Unfinished {
        Unfinished { out: self.out, errors: self.errors, bound: self.bound }
    }

    /// Writes a value to its end, piece by piece. Between two pieces the request's deadline can end it.
    ///
    /// # Errors
    /// The answer is too long, or all answers together are: it is not to be told at all.
    pub async fn whole(
        &mut self,
        mut write: impl FnMut(&mut Self) -> Result<(), Unwritten>,
    ) -> Result<Result<(), Unwritten>, RequestError> {
        loop {
            let written = write(self);
            let is_at_end = written != Err(Stopped);
            if is_at_end && self.out.len() < self.stop_at {
                return Ok(written);
            }
            // Before the room for the next piece is taken.
            let room = if is_at_end { 0 } else { self.bound.ahead() };
            let allocated = self.out.allocated().saturating_add(room) + self.beside;
            self.bound.reach(self.out.len() + self.beside, allocated)?;
            if is_at_end {
                return Ok(written);
            }
            tokio::task::yield_now().await;
            let ahead = self.bound.ahead();
            self.out.make_room(ahead);
            self.stop_at = self.out.len().saturating_add(stop_within(ahead));
            self.is_stopping = false;
        }
    }

    /// Takes the steps 0 to `count`: those that were not taken before the last stop. A step is told whether it goes on
    /// within itself; what it has written before that is there.
    pub fn steps(
        &mut self,
        count: usize,
        mut step: impl FnMut(usize, bool, &mut Self) -> Result<(), Unwritten>,
    ) -> Result<(), Unwritten> {
        let (mut number, mut is_within) = match self.stopped.pop() {
            Some(StopPoint::Step { number, is_within }) => (number, is_within),
            _ => (0, false),
        };
        while number < count {
            if !is_within && self.out.len() >= self.stop_at {
                self.is_stopping = true;
                self.stopped.push(StopPoint::Step { number, is_within: false });
                return Err(Stopped);
            }
            if let Err(unwritten) = step(number, is_within, self) {
                if unwritten == Stopped {
                    self.stopped.push(StopPoint::Step { number, is_within: true });
                }
                return Err(unwritten);
            }
            (number, is_within) = (number + 1, false);
        }
        Ok(())
    }

    /// Whether it is on its way back to where it has stopped.
    pub fn is_returning(&self) -> bool {
        !self.stopped.is_empty()
    }

    /// What is kept beside the answer counts as a part of it.
    fn count_beside(&mut self, bytes: usize) {
        self.beside += bytes;
        self.stop_at = self.stop_at.saturating_sub(bytes);
    }

    /// Writes a list with `item` for each index; a null item is kept where `nullable`, else the list fails.
    pub fn list(
        &mut self,
        length: usize,
        nullable: bool,
        mut item: impl FnMut(usize, &mut Self) -> Result<(), Unwritten>,
    ) -> Result<(), Unwritten> {
        if !self.is_returning() {
            self.out.push(b'[');
        }
        self.steps(length, |index, is_within, writer| {
            if index > 0 && !is_within {
                writer.out.push(b',');
            }
            writer.path.push(Segment::Index(index));
            if let Some(trace) = writer.errors.trace.as_mut().filter(|_| !is_within) {
                trace.enter_item(index);
                writer.count_beside(ITEM_BYTES);
            }
            let written = writer.or_null(nullable, |writer| item(index, writer));
            writer.leave();
            writer.path.pop();
            written
        })?;
        self.out.push(b']');
        Ok(())
    }

    /// Writes a field's value under its response key.
    pub fn field(
        &mut self,
        key: &'a str,
        nullable: bool,
        value: impl FnOnce(&mut Self) -> Result<(), Unwritten>,
    ) -> Result<(), Unwritten> {
        self.path.push(Segment::Key(key));
        let written = self.or_null(nullable, value);
        self.path.pop();
        written
    }

    fn or_null(
        &mut self,
        nullable: bool,
        value: impl FnOnce(&mut Self) -> Result<(), Unwritten>,
    ) -> Result<(), Unwritten> {
        let start = match self.stopped.pop() {
            Some(StopPoint::Value { start }) => start,
            _ => self.out.len(),
        };
        let ends_here = match self.errors.on_error {
            OnError::Propagate => nullable,
            OnError::Null => true,
            OnError::Halt => false,
        };
        match value(self) {
            Err(unwritten @ (Nulled | Skipped)) if ends_here || unwritten == Skipped => {
                self.out.truncate(start);
                self.out.extend(b"null");
                let stop_at = self.out.len().saturating_add(stop_within(self.bound.ahead()));
                self.stop_at = self.stop_at.min(stop_at);
                Ok(())
            }
            Err(Stopped) => {
                self.stopped.push(StopPoint::Value { start });
                Err(Stopped)
            }
            written => written,
        }
    }

    /// Whether what is written is noted in a trace.
    pub fn is_traced(&self) -> bool {
        self.errors.trace.is_some()
    }

    /// Runs `write` as that of a field, in the trace if there is one.
    pub fn traced<R>(&mut self, field: impl FnOnce() -> Traced<'a>, write: impl FnOnce(&mut Self) -> R) -> R {
        if !self.is_returning()
            && let Some(trace) = &mut self.errors.trace
        {
            let bytes = trace.enter(&field());
            self.count_beside(bytes);
        }
        let result = write(self);
        self.leave();
        result
    }

    fn leave(&mut self) {
        if let Some(trace) = self.errors.trace.as_mut().filter(|_| !self.is_stopping) {
            trace.leave();
        }
    }

    /// What is written now was there at this moment.
    pub fn loaded(&mut self, at: Moment) {
        if let Some(trace) = self.errors.trace.as_mut().filter(|_| self.stopped.is_empty()) {
            trace.loaded(at);
        }
    }

    /// Notes an error at the current path. Where a mutation did something before, the error tells that.
    pub fn fail(&mut self, error: &FieldError, location: SourceLocation) -> Unwritten {
        if error.is_halted() {
            return Skipped;
        }
        self.failures += 1;
        let done = self.bound.done().filter(|_| !self.errors.is_repeatable);
        let after = done.map(|done| error.clone().after(Some(done)));
        let error = after.as_ref().unwrap_or(error);
        if let Some(trace) = &mut self.errors.trace {
            trace.fail(error.code, location);
        }
        let path = &self.path;
        self.errors.log(error);
        self.errors.retry_after_seconds = self.errors.retry_after_seconds.max(error.retry_after_seconds);
        let is_item = matches!(path.as_slice(), [Segment::Key(_), Segment::Index(_)]);
        let most = if is_item { MAX_ITEM_ERRORS } else { MAX_ERRORS };
        let before = self.errors.json.len();
        let retryable = error.retryable.map(|retryable| retryable || self.errors.is_repeatable);
        let told = Told { retryable, stored: error.stored.as_deref() };
        self.errors.push(most, (error.code, &error.message), &[location], told, |out| {
            out.extend(b",\"path\":[");
            for (index, segment) in path.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                match segment {
                    Segment::Key(key) => write_text(key, out),
                    Segment::Index(index) => write_json(index, out),
                }
            }
            out.push(b']');
        });
        self.count_beside(self.errors.json.len() - before);
        Nulled
    }
}

impl Unfinished {
    /// What is told in the place of an answer that cannot be told; what it has written and held so far is dropped.
    pub fn instead(error: &RequestError, request_id: &Arc<str>, bounds: &Bounds) -> Self {
        let mut errors = Errors::of_request(std::slice::from_ref(error), request_id);
        errors.retry_after_seconds = (error.code == Code::Overloaded).then_some(1);
        let bound = Bounds { taken: Taken::default(), ..bounds.clone() }.answer();
        Self { out: b"{\"data\":null".to_vec().into(), errors, bound }.with_errors()
    }

    /// Adds the last brace. What is too long for the entries beside `data` is not told either.
    #[must_use]
    pub fn finished(mut self, request_id: &Arc<str>, bounds: &Bounds) -> Self {
        let reached = self.bound.reach(self.out.len() + 1, self.out.allocated());
        if let Err(error) = reached {
            self = Self::instead(&error, request_id, bounds);
        }
        self.out.push(b'}');
        self
    }

    /// Adds the entry `errors`, where there are any.
    #[must_use]
    pub fn with_errors(mut self) -> Self {
        if !self.errors.is_empty() {
            self.out.make_room(self.errors.json.len() + 16);
            self.out.extend(b",\"errors\":");
            self.errors.write(self.out.end());
        }
        self
    }
}

impl Errors {
    /// None yet, of this request.
    pub fn of(request_id: &Arc<str>) -> Self {
        Self { request_id: Arc::clone(request_id), ..Self::default() }
    }

    /// To be noted there too.
    #[must_use]
    pub fn traced(self, trace: Option<Box<Tree>>) -> Self {
        Self { trace, ..self }
    }

    /// Of a request that wants this of a field that fails.
    #[must_use]
    pub fn handled(self, on_error: OnError) -> Self {
        Self { on_error, ..self }
    }

    /// Of a request that gives the result of this one when it is sent again, whatever this one did.
    #[must_use]
    pub fn repeatable(self, is_repeatable: bool) -> Self {
        Self { is_repeatable, ..self }
    }

    /// The id of the request.
    pub fn request_id(&self) -> &Arc<str> {
        &self.request_id
    }

    /// Errors of a request that did not run.
    pub fn of_request(errors: &[RequestError], request_id: &Arc<str>) -> Self {
        let mut all = Self::of(request_id);
        for error in errors {
            let told = Told { retryable: error.code.is_retryable(), stored: None };
            all.push(MAX_ERRORS, (error.code, &error.message), &error.locations, told, |_| {});
        }
        all
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// The array as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        out.extend(&self.json);
        out.push(b']');
    }

    /// Tells the log what is behind an internal failure, once for each request.
    fn log(&mut self, error: &FieldError) {
        if let Some(cause) = &error.cause
            && !self.logged.contains(cause)
        {
            tracing::error!(request_id = &*self.request_id, %cause, "a part of an answer failed");
            self.logged.push(Arc::clone(cause));
        }
    }

    fn push(
        &mut self,
        most: usize,
        (code, message): (Code, &str),
        locations: &[SourceLocation],
        told: Told<'_>,
        path: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.codes.len() >= most {
            return;
        }
        self.codes.push(code.as_str());
        let out = &mut self.json;
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend(b"{\"message\":");
        write_text(&shortened(message), out);
        if !locations.is_empty() {
            out.extend(b",\"locations\":[");
            for (index, location) in locations.iter().enumerate() {
                out.extend(if index > 0 { &b",{\"line\":"[..] } else { b"{\"line\":" });
                write_json(&location.line, out);
                out.extend(b",\"column\":");
                write_json(&location.column, out);
                out.push(b'}');
            }
            out.push(b']');
        }
        path(out);
        out.extend(b",\"extensions\":{\"code\":");
        write_text(code.as_str(), out);
        if !self.request_id.is_empty() {
            out.extend(b",\"requestId\":");
            write_text(&self.request_id, out);
        }
        if let Some(retryable) = told.retryable {
            out.extend(if retryable { &b",\"retryable\":true"[..] } else { b",\"retryable\":false" });
        }
        if let Some(id) = told.stored {
            out.extend(b",\"stored\":");
            write_text(id, out);
        }
        out.extend(b"}}");
    }
}

#[cfg(test)]
mod tests;
