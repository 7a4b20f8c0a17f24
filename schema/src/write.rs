//! The answer in the making: one buffer of JSON, the path to where it is being written, and the errors so far. A
//! non-null field that fails takes its parent with it (October 2021, §6.4.4): the buffer is cut back to where the
//! nearest nullable parent began.

use std::sync::Arc;

use crate::{
    error::{Code, FieldError, Place, RequestError, shortened},
    scalar::{write_json, write_text},
    trace::{Moment, Traced, Tree},
};

/// Errors in an answer at most; more would only be a way to make the server talk.
const MAX_ERRORS: usize = 10;
/// The same for the items of a list at the root (`_entities`, `nodes`): a null there means absent, unless an error says
/// that it failed.
const MAX_ITEM_ERRORS: usize = 1_000;

/// The value could not be written; the error is noted, and the nearest nullable parent becomes null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nulled;

#[derive(Clone, Copy)]
enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

pub(crate) struct Writer<'a> {
    pub(crate) out: Vec<u8>,
    path: Vec<Segment<'a>>,
    errors: Errors,
}

/// The `errors` entry of an answer.
#[derive(Default)]
pub(crate) struct Errors {
    /// Told to the client with each of them, and to the log with what is behind them.
    request_id: Arc<str>,
    json: Vec<u8>,
    /// What was resolved, and failed, where somebody asks.
    pub(crate) trace: Option<Box<Tree>>,
    pub(crate) codes: Vec<&'static str>,
    /// The longest that an error says to wait.
    pub(crate) retry_after_seconds: Option<u32>,
    /// What is in the log already: one failure fails many fields.
    logged: Vec<Arc<str>>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: Vec<u8>, request_id: &Arc<str>) -> Self {
        Self::resume(out, Errors::of(request_id))
    }

    /// Goes on behind an answer that is not finished.
    pub(crate) fn resume(out: Vec<u8>, errors: Errors) -> Self {
        Self { out, path: Vec::new(), errors }
    }

    pub(crate) fn finish(self) -> (Vec<u8>, Errors) {
        (self.out, self.errors)
    }

    /// Writes a list with `item` for each index; a null item is kept where `nullable`, else the list fails.
    pub(crate) fn list(
        &mut self,
        length: usize,
        nullable: bool,
        mut item: impl FnMut(usize, &mut Self) -> Result<(), Nulled>,
    ) -> Result<(), Nulled> {
        self.out.push(b'[');
        for index in 0..length {
            if index > 0 {
                self.out.push(b',');
            }
            self.path.push(Segment::Index(index));
            if let Some(trace) = &mut self.errors.trace {
                trace.enter_item(index);
            }
            let written = self.or_null(nullable, |writer| item(index, writer));
            self.leave();
            self.path.pop();
            written?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// Writes a field's value under its response key.
    pub(crate) fn field(
        &mut self,
        key: &'a str,
        nullable: bool,
        value: impl FnOnce(&mut Self) -> Result<(), Nulled>,
    ) -> Result<(), Nulled> {
        self.path.push(Segment::Key(key));
        let written = self.or_null(nullable, value);
        self.path.pop();
        written
    }

    fn or_null(
        &mut self,
        nullable: bool,
        value: impl FnOnce(&mut Self) -> Result<(), Nulled>,
    ) -> Result<(), Nulled> {
        let start = self.out.len();
        match value(self) {
            Err(Nulled) if nullable => {
                self.out.truncate(start);
                self.out.extend(b"null");
                Ok(())
            }
            written => written,
        }
    }

    /// Whether what is written is noted in a trace.
    pub(crate) fn is_traced(&self) -> bool {
        self.errors.trace.is_some()
    }

    /// Runs `write` as that of a field, in the trace if there is one.
    pub(crate) fn traced<R>(
        &mut self,
        field: impl FnOnce() -> Traced<'a>,
        write: impl FnOnce(&mut Self) -> R,
    ) -> R {
        if let Some(trace) = &mut self.errors.trace {
            trace.enter(&field());
        }
        let result = write(self);
        self.leave();
        result
    }

    fn leave(&mut self) {
        if let Some(trace) = &mut self.errors.trace {
            trace.leave();
        }
    }

    /// What is written now was there at this moment.
    pub(crate) fn loaded(&mut self, at: Moment) {
        if let Some(trace) = &mut self.errors.trace {
            trace.loaded(at);
        }
    }

    /// Notes an error at the current path.
    pub(crate) fn fail(&mut self, error: &FieldError, place: Place) -> Nulled {
        if let Some(trace) = &mut self.errors.trace {
            trace.fail(error.code, place);
        }
        let path = &self.path;
        self.errors.log(error);
        self.errors.retry_after_seconds = self.errors.retry_after_seconds.max(error.retry_after_seconds);
        let is_item = matches!(path.as_slice(), [Segment::Key(_), Segment::Index(_)]);
        let most = if is_item { MAX_ITEM_ERRORS } else { MAX_ERRORS };
        self.errors.push(most, error.code, &error.message, &[place], |out| {
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
        Nulled
    }
}

impl Errors {
    /// None yet, of this request.
    pub(crate) fn of(request_id: &Arc<str>) -> Self {
        Self { request_id: Arc::clone(request_id), ..Self::default() }
    }

    /// To be noted there too.
    pub(crate) fn traced(self, trace: Option<Box<Tree>>) -> Self {
        Self { trace, ..self }
    }

    pub(crate) fn of_request(errors: &[RequestError], request_id: &Arc<str>) -> Self {
        let mut all = Self::of(request_id);
        for error in errors {
            all.push(MAX_ERRORS, error.code, &error.message, &error.places, |_| {});
        }
        all
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// The array as JSON.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
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
        code: Code,
        message: &str,
        places: &[Place],
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
        if !places.is_empty() {
            out.extend(b",\"locations\":[");
            for (index, place) in places.iter().enumerate() {
                out.extend(if index > 0 { &b",{\"line\":"[..] } else { b"{\"line\":" });
                write_json(&place.line, out);
                out.extend(b",\"column\":");
                write_json(&place.column, out);
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
        out.extend(b"}}");
    }
}
