//! `_service`, by which a gateway reads the schema of a subgraph: the library declares the field, and an edge answers it.
//! Not here: the schema as text (`federation::sdl`), entities by their keys (the schema's).

use async_graphql::{
    indexmap::IndexMap,
    registry::{MetaInputValue, Registry},
};

use crate::{
    context::Context,
    edge::Ready,
    error::RequestError,
    object::{Edge, FieldRequest, Run, label},
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
        let mut json = Vec::new();
        for field in request.planner.collect(&|condition| condition == "_Service", &request.selected.sets)? {
            json.push(if json.is_empty() { b'{' } else { b',' });
            json.extend(label(field.key()));
            write_text(if field.name() == "sdl" { (self.sdl)(request.ctx) } else { "_Service" }, &mut json);
        }
        json.extend(if json.is_empty() { &b"{}"[..] } else { b"}" });
        Ok(Box::new(Ready { json }))
    }
}
