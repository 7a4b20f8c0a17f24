//! Apollo's HTTP callback protocol (`callback/1.0`): a gateway asks once, and gets each event as a request of
//! ours. Only addresses of listed origins are called, never another one that they point to. First the address
//! has to confirm that it knows the subscription (`check`); then it gets `next` for each answer, `check` as
//! often as it wished, and `complete` at the end, with errors where something else than the subscription
//! ended it, or it could not begin. It ends when the address does not know it any more, or cannot be reached.
//! Not here: what is answered.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use opentelemetry::trace::SpanContext;
use schema::{Event, Reply};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Interval, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{Begun, End, begin, end, errors_of, sent};
use crate::{
    App,
    http::{graphql, params::GraphQLRequest, request_id, shares::Owner},
    rejection::Rejection,
    telemetry,
};

const SUBSCRIPTION_PROTOCOL: HeaderName = HeaderName::from_static("subscription-protocol");
const PROTOCOL: HeaderValue = HeaderValue::from_static("callback/1.0");
/// Subscriptions that are called back at a time.
const MOST: u32 = 10_000;
/// Ids and verifiers longer than this are none.
const LONGEST_ID: usize = 1_024;
/// An address is not asked more often whether it is still interested.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// What has failed is tried again after this long each; then the subscription ends.
const TRIES_AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

const NO_EXTENSION: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "callback/1.0 needs extensions.subscription: callbackUrl, subscriptionId and verifier (texts), \
     heartbeatIntervalMs (a number).",
);
const NOT_LISTED: Rejection =
    Rejection::new(StatusCode::FORBIDDEN, "FORBIDDEN", "This server does not call back at this address.");
const NOT_CONFIRMED: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "The callback address did not confirm the subscription.",
);
const BUSY: Rejection = Rejection::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "OVERLOADED",
    "Too many subscriptions are called back already; try again later.",
);

/// How many subscriptions are called back. They are counted by themselves: the connection that one was asked for on is
/// long closed while it goes on, and must not count as open.
#[derive(Debug)]
pub(crate) struct Callbacks(Arc<Semaphore>);

impl Default for Callbacks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST as usize)))
    }
}

impl Callbacks {
    /// A place for one more, if there is one.
    fn acquire(&self) -> Result<OwnedSemaphorePermit, Rejection> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| BUSY)
    }

    /// Waits until none is left, for so long at most; how many are left then.
    pub(crate) async fn ended(&self, within: Duration) -> usize {
        match timeout(within, self.0.acquire_many(MOST)).await {
            Ok(_) => 0,
            Err(_) => MOST as usize - self.0.available_permits(),
        }
    }
}

/// What a gateway says about where it wants the events.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallbackExtension {
    callback_url: String,
    subscription_id: String,
    verifier: String,
    /// 0: it does not want to be asked.
    #[serde(default)]
    heartbeat_interval_ms: u64,
}

/// What is said to the address.
#[derive(Serialize)]
struct Message<'a> {
    kind: &'static str,
    action: &'static str,
    id: &'a str,
    verifier: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a RawValue>,
}

/// Does a request want to be called back?
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|value| value.split(','));
    ranges.any(|range| {
        range.split(';').skip(1).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, version)| {
                name.trim().eq_ignore_ascii_case("callbackSpec") && version.trim().trim_matches('"') == "1.0"
            })
        })
    })
}

pub(super) async fn serve(app: App, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut read = graphql::read_body(&app, None, &parts, body).await;
    let is_subscription = match &mut read {
        Ok(incoming) => graphql::goes_on(&app, &parts.headers, incoming).await,
        Err(_) => false,
    };
    let (requester, params, received) = match read {
        Ok(graphql::IncomingRequest {
            requester,
            requests: GraphQLRequest::One(params),
            held: (permit, received),
        }) if is_subscription => {
            // Nothing is worked on while the address takes its time to confirm.
            drop(permit);
            (requester, *params, received)
        }
        read => return graphql::answer(&app, &parts.headers, read).await,
    };
    let headers = Arc::new(parts.headers);
    let refuse = |rejection: Rejection| rejection.into_response(request_id(&headers));
    let address =
        params.extension("subscription").cloned().and_then(|given| serde_json::from_value(given).ok());
    let address = match address
        .ok_or(NO_EXTENSION)
        .and_then(|callback| Address::of(&app, &requester, callback, &headers))
    {
        Ok(address) => address,
        Err(rejection) => return refuse(rejection),
    };
    let permit = match app.callbacks.acquire() {
        Ok(permit) => permit,
        Err(busy) => return refuse(busy),
    };
    let ending = Box::pin(end(&app, requester.bearer.clone()));
    let owner = graphql::owner(&app, &requester.caller, requester.bearer.as_ref());
    let begun = begin(app, Arc::clone(&headers), requester, (params, received), "callback").await;
    // Also before it is told why there is none: gateways read of this answer only whether it was a success,
    // and wait then.
    if !address.confirms().await {
        return match begun {
            Begun::Answer(refusal) => answered(refusal.body.into_vec()),
            Begun::Answers(_) => refuse(NOT_CONFIRMED),
        };
    }
    let headers = Arc::clone(&headers);
    tokio::spawn(async move {
        match begun {
            Begun::Answers(events) => Callback::new(address, (headers, owner), events, ending).run().await,
            Begun::Answer(refusal) => {
                address.tell("complete", None, Some(&errors_of(refusal.body))).await;
            }
        }
        drop(permit);
    });
    let mut response = answered(br#"{"data":null}"#.to_vec());
    response.headers_mut().insert(SUBSCRIPTION_PROTOCOL, PROTOCOL);
    response
}

fn answered(body: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

/// Where a subscription is called back.
struct Address {
    app: App,
    uri: Uri,
    callback: CallbackExtension,
    trace: SpanContext,
}

/// What the address makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Yes,
    /// It has ended the subscription, or is not there.
    No,
}

impl Address {
    fn of(
        app: &App,
        requester: &graphql::Requester,
        callback: CallbackExtension,
        headers: &HeaderMap,
    ) -> Result<Self, Rejection> {
        // Where gateways have to prove that they are some, nobody else sends requests from here.
        if app.gateways_only && !requester.caller.is_gateway {
            return Err(NOT_LISTED);
        }
        if [&callback.subscription_id, &callback.verifier]
            .into_iter()
            .any(|text| text.is_empty() || text.len() > LONGEST_ID)
        {
            return Err(NO_EXTENSION);
        }
        let uri: Uri = callback.callback_url.parse().map_err(|_| NOT_LISTED)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(NOT_LISTED);
        };
        // As a whole, so that there is nothing to read in two ways: no account, no other port.
        let origin = format!("{scheme}://{authority}");
        if !app.gateway.callback_origins.contain(&origin) {
            return Err(NOT_LISTED);
        }
        Ok(Self { app: app.clone(), uri, callback, trace: telemetry::place_in_trace(headers) })
    }

    /// Asks whether the address knows the subscription.
    async fn confirms(&self) -> bool {
        match self.post("check", None, None).await {
            Ok((status, headers)) => {
                // Hive Gateway answers without the header.
                let protocol = headers.get(SUBSCRIPTION_PROTOCOL);
                status == StatusCode::NO_CONTENT && protocol.is_none_or(|protocol| *protocol == PROTOCOL)
            }
            Err(error) => {
                tracing::warn!(%error, "a callback address could not be asked");
                false
            }
        }
    }

    /// Tells an answer, which counts as memory meanwhile, as does the message that it becomes. What it was
    /// written in is given back before.
    async fn next(&self, mut reply: Reply, owner: &Owner, headers: &HeaderMap) -> Heard {
        let mut memory = self.app.admission.answer_memory(owner.clone());
        let reserved = sent::reserve(&mut memory, &mut reply, request_id(headers));
        if reserved.and_then(|()| memory.grow(reply.body.len())).is_err() {
            drop(reply);
            let last = End::OutOfMemory.reply(headers);
            self.tell("complete", None, Some(&errors_of(last.body))).await;
            return Heard::No;
        }
        let Reply { body, held, .. } = reply;
        let body = body.into_vec();
        drop(held);
        self.tell("next", Some(&body), None).await
    }

    async fn tell(&self, action: &'static str, payload: Option<&[u8]>, errors: Option<&[u8]>) -> Heard {
        let mut waits = TRIES_AFTER.into_iter();
        loop {
            match self.post(action, payload, errors).await {
                Ok((status, _)) if status.is_success() => return Heard::Yes,
                // It does not know the subscription any more, or does not take this message.
                Ok((status, _)) if status.is_client_error() => return Heard::No,
                Ok(_) | Err(_) => {}
            }
            let Some(wait) = waits.next() else {
                tracing::warn!(action, "a callback address cannot be reached; its subscription ends");
                return Heard::No;
            };
            sleep(wait).await;
        }
    }

    async fn post(
        &self,
        action: &'static str,
        payload: Option<&[u8]>,
        errors: Option<&[u8]>,
    ) -> Result<(StatusCode, HeaderMap), crate::outbound::Failed> {
        fn raw(json: &[u8]) -> &RawValue {
            serde_json::from_slice(json).expect("answers are JSON")
        }
        let CallbackExtension { subscription_id: id, verifier, .. } = &self.callback;
        let (payload, errors) = (payload.map(raw), errors.map(raw));
        let message = Message { kind: "subscription", action, id, verifier, payload, errors };
        let json = Bytes::from(serde_json::to_vec(&message).expect("texts and JSON are JSON"));
        let headers = HeaderMap::from_iter([(SUBSCRIPTION_PROTOCOL, PROTOCOL)]);
        self.app.outbound.post("callback", &self.trace, &self.uri, headers, json).await
    }
}

/// A subscription that is called back.
struct Callback {
    address: Address,
    /// Of the request.
    headers: Arc<HeaderMap>,
    /// On whose account the memory of answers is.
    owner: Owner,
    events: BoxStream<'static, Event>,
    end: Pin<Box<dyn Future<Output = End> + Send>>,
    checks: Option<Interval>,
}

impl Callback {
    fn new(
        address: Address,
        (headers, owner): (Arc<HeaderMap>, Owner),
        events: BoxStream<'static, Event>,
        end: Pin<Box<dyn Future<Output = End> + Send>>,
    ) -> Self {
        let every = Duration::from_millis(address.callback.heartbeat_interval_ms);
        let checks = (!every.is_zero()).then(|| {
            let every = every.max(SHORTEST_INTERVAL);
            let mut checks = interval_at(tokio::time::Instant::now() + every, every);
            checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            checks
        });
        Self { address, headers, owner, events, end, checks }
    }

    async fn run(self) {
        let Self { address, headers, owner, mut events, mut end, mut checks } = self;
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    event = events.next() => match event {
                        Some(Event::Reply(reply)) if reply.executed => {
                            address.next(*reply, &owner, &headers).await
                        }
                        last => {
                            let last = match last {
                                Some(Event::Reply(reply)) => Some(*reply),
                                Some(Event::Interrupted) => Some(End::Interrupted.reply(&headers)),
                                None => None,
                            };
                            let errors = last.map(|reply| errors_of(reply.body));
                            address.tell("complete", None, errors.as_deref()).await;
                            Heard::No
                        }
                    },
                    () = tick(&mut checks) => address.tell("check", None, None).await,
                }
            };
            // Also while the address takes its time.
            tokio::select! {
                biased;
                end = &mut end => {
                    let last = end.reply(&headers);
                    address.tell("complete", None, Some(&errors_of(last.body))).await;
                    return;
                }
                heard = next => if heard == Heard::No { return },
            }
        }
    }
}

async fn tick(checks: &mut Option<Interval>) {
    match checks {
        Some(checks) => _ = checks.tick().await,
        None => std::future::pending().await,
    }
}
