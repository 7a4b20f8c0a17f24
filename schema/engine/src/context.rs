//! What the executor knows of one request: its loads, its bounds, its clock, and whatever the schema's own
//! code wants to know, which the executor does not look at. Not here: that data (the schema's).

use std::{any::Any, sync::Arc};

use crate::{
    batch::Batcher,
    bounds::Bounds,
    error::OnError,
    federation::trace::{Clock, Moment},
};

/// One request while it runs. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Its loads.
    pub batcher: Batcher,
    /// Runs where somebody asks for a trace.
    pub clock: Option<Clock>,
    /// What its answer may take.
    pub bounds: Bounds,
    /// What a field that fails does to the rest.
    pub on_error: OnError,
    data: Arc<dyn Any + Send + Sync>,
}

impl Context {
    /// A request with its own data, such as who asks, which visibility checks and loaders get by [`Context::data`].
    pub fn new<D: Any + Send + Sync>(data: D, batcher: Batcher, bounds: Bounds) -> Self {
        Self { batcher, clock: None, bounds, on_error: OnError::default(), data: Arc::new(data) }
    }

    /// The loads, bounds and clock of this request with other data.
    #[must_use]
    pub fn with_data<D: Any + Send + Sync>(&self, data: D) -> Self {
        Self { data: Arc::new(data), ..self.clone() }
    }

    /// The request's own data.
    ///
    /// # Panics
    /// Where the request was made with data of another type.
    pub fn data<D: Any + Send + Sync>(&self) -> &D {
        self.data.downcast_ref().expect("the request was made with data of this type")
    }

    /// A field of this request has failed. Where nothing further is wanted then, nothing further is loaded.
    pub fn note_failure(&self) {
        if self.on_error == OnError::Halt {
            self.batcher.halt();
        }
    }

    /// Nanoseconds since the request began, where somebody asks for a trace; else 0.
    pub fn moment(&self) -> Moment {
        self.clock.map_or(0, Clock::now)
    }
}
