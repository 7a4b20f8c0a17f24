//! `_service`, by which a gateway reads the schema of a subgraph: the library declares the field, and an edge
//! answers it. Not here: the schema as text (`federation::sdl`), entities by their keys (the schema's).

use std::future::ready;

use async_graphql::{
    indexmap::IndexMap,
    registry::{MetaInputValue, Registry},
};
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::{
    context::Context,
    error::RequestError,
    object::{Edge, FieldRequest, Filled, Run, label},
    output::{Unwritten, Writer},
    scalar::write_text,
};

/// The edge `Query._service`, to be declared by `Object::unlisted_edge`.
pub struct Service {
    sdl: fn(&Context) -> &str,
}

impl Service {
    /// `sdl` finds the subgraph's schema in the data of the request.
    pub const fn new(sdl: fn(&Context) -> &str) -> Self {
        Self { sdl }
    }
}

impl<T> Edge<T> for Service {
    fn type_ref(&self, _: &mut Registry) -> String {
        "_Service!".to_owned()
    }

    fn arguments(&self, _: &mut Registry) -> IndexMap<String, MetaInputValue> {
        IndexMap::new()
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<T> + 'q>, RequestError> {
        let selected =
            request.planner.collect(&|condition| condition == "_Service", &request.selected.sets)?;
        let fields = selected.iter().map(|field| (label(field.key()), field.name() == "sdl")).collect();
        Ok(Box::new(Fields { fields, sdl: self.sdl }))
    }
}

/// The fields of `_Service` that are selected: their labels, and whether each is the SDL or `__typename`.
struct Fields {
    fields: Vec<(Vec<u8>, bool)>,
    sdl: fn(&Context) -> &str,
}

impl<T> Run<T> for Fields {
    fn start<'a>(&'a self, _: &[T], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let filled = FieldsFilled { fields: &self.fields, sdl: (self.sdl)(ctx) };
        ready(Box::new(filled) as Box<dyn Filled>).boxed()
    }
}

struct FieldsFilled<'a> {
    fields: &'a [(Vec<u8>, bool)],
    sdl: &'a str,
}

impl Filled for FieldsFilled<'_> {
    fn write<'w>(&'w self, _: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        writer.steps(self.fields.len(), |index, _, writer| {
            let (label, is_sdl) = &self.fields[index];
            writer.out.push(if index == 0 { b'{' } else { b',' });
            writer.out.extend(label);
            write_text(if *is_sdl { self.sdl } else { "_Service" }, writer.out.end());
            Ok(())
        })?;
        writer.out.extend(if self.fields.is_empty() { &b"{}"[..] } else { b"}" });
        Ok(())
    }
}
