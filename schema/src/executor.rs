//! The graph as async-graphql's `Executor`, for whoever mounts it with the library's own integrations
//! (async-graphql-axum and its like) instead of this project's HTTP (`examples/embed.rs`). What those leave
//! out is left out: limits before a body is read, persisted documents, answers as bytes, memory that is
//! counted. Not here: how a request is answered (`graph`).

use std::{any::TypeId, sync::Arc};

use async_graphql::{Data, ErrorExtensionValues, Executor, Request as EngineRequest, Response, ServerError};
use entities::clock;
use futures_util::{
    StreamExt as _,
    future::{self, Either},
    stream::{self, BoxStream},
};

use crate::{
    auth::{token::Bearer, viewer::Viewer},
    graph::{Graph, Opened, subscription::Event},
    request::{Caller, Reply, Request},
};

const INTERRUPTED: &str =
    "Another database took over, or a backup was restored: read what you need again, then subscribe again";
const ENDED: &str = "The session has ended, or the access token has expired.";

/// The graph for one caller: an `Executor` for services that hand over nothing but the request, such as
/// async-graphql-axum's `GraphQL` and `GraphQLSubscription`. Cheap to make.
#[derive(Clone)]
pub struct GraphFor {
    graph: Graph,
    bearer: Option<Bearer>,
    caller: Caller,
}

impl Graph {
    /// The graph for whoever came with this token (`Access::verify`); without one, for an anonymous caller.
    pub fn executor_for(&self, bearer: Option<Bearer>, caller: Caller) -> GraphFor {
        GraphFor { graph: self.clone(), bearer, caller }
    }

    /// For whom the request's or the connection's data says: a `Bearer`, and a `Caller`.
    fn executor_of(&self, data: [Option<&Data>; 2]) -> GraphFor {
        let bearer = data.iter().flatten().find_map(|data| find::<Bearer>(data));
        let caller = data.iter().flatten().find_map(|data| find::<Caller>(data));
        self.executor_for(bearer, caller.unwrap_or_default())
    }
}

/// Anonymous, unless a `Bearer` is in the data of the request, or in that of its connection.
impl Executor for Graph {
    async fn execute(&self, request: EngineRequest) -> Response {
        let executor = self.executor_of([Some(&request.data), None]);
        executor.execute(request).await
    }

    fn execute_stream(
        &self,
        request: EngineRequest,
        session_data: Option<Arc<Data>>,
    ) -> BoxStream<'static, Response> {
        let executor = self.executor_of([Some(&request.data), session_data.as_deref()]);
        executor.execute_stream(request, None)
    }
}

impl Executor for GraphFor {
    async fn execute(&self, request: EngineRequest) -> Response {
        if self.has_ended() {
            return refusal(ENDED, "UNAUTHENTICATED");
        }
        response(self.graph.execute(self.viewer(), self.request(request)).await)
    }

    /// One response to a query or a mutation; one for each event of a subscription, which ends with an error once the
    /// caller's token is no longer good.
    fn execute_stream(&self, request: EngineRequest, _: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        let this = self.clone();
        stream::once(async move {
            if this.has_ended() {
                return Either::Left(stream::once(future::ready(refusal(ENDED, "UNAUTHENTICATED"))));
            }
            match this.graph.open(this.viewer(), this.request(request)).await {
                Opened::Reply(reply) => Either::Left(stream::once(future::ready(response(*reply)))),
                Opened::Events(events) => Either::Right(events.scan(false, move |is_over, event| {
                    let told = match event {
                        _ if *is_over => return future::ready(None),
                        _ if this.has_ended() => Err(refusal(ENDED, "UNAUTHENTICATED")),
                        Event::Reply(reply) => Ok(response(*reply)),
                        Event::Interrupted => Err(refusal(INTERRUPTED, "SUBSCRIPTION_INTERRUPTED")),
                    };
                    *is_over = told.is_err();
                    future::ready(Some(told.unwrap_or_else(|last| last)))
                })),
            }
        })
        .flatten()
        .boxed()
    }
}

impl GraphFor {
    fn viewer(&self) -> Viewer {
        self.bearer.as_ref().map_or(Viewer::Anonymous, |bearer| bearer.viewer.clone())
    }

    /// The caller came with a token that is no longer good.
    fn has_ended(&self) -> bool {
        let is_over =
            |bearer: &Bearer| bearer.expires_at <= clock::now() || self.graph.access().is_revoked(bearer);
        self.bearer.as_ref().is_some_and(is_over)
    }

    fn request(&self, request: EngineRequest) -> Request {
        Request {
            query: request.query,
            operation_name: request.operation_name,
            variables: request.variables,
            caller: self.caller.clone(),
            ..Request::default()
        }
    }
}

fn find<T: Clone + 'static>(data: &Data) -> Option<T> {
    data.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref()).cloned()
}

/// The answer as the library has it, which is read from its bytes.
fn response(reply: Reply) -> Response {
    serde_json::from_slice(&reply.body.into_vec())
        .expect("answers are JSON of the form that the library writes")
}

fn refusal(message: &str, code: &str) -> Response {
    let mut error = ServerError::new(message, None);
    let mut extensions = ErrorExtensionValues::default();
    extensions.set("code", code);
    error.extensions = Some(extensions);
    Response::from_errors(vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_the_library_writes_them() {
        for body in [
            r#"{"data":{"a":[1,2.5,"x",null,{"b":true}]}}"#,
            r#"{"data":null,"errors":[{"message":"m","locations":[{"line":1,"column":3}],"path":["a",0],"extensions":{"code":"FORBIDDEN"}}]}"#,
            r#"{"data":{"a":1},"extensions":{"cacheToken":"7"}}"#,
        ] {
            let response = response(Reply { body: body.as_bytes().to_vec().into(), ..Reply::default() });
            let written: serde_json::Value = serde_json::to_value(&response).expect("JSON");
            let expected: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(written, expected);
        }
    }
}
