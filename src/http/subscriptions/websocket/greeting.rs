//! Who a socket is of: what `connection_init` says, and what a later `ping` does. Not here: what is asked on it.

use std::{
    ops::ControlFlow::{Break, Continue},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use schema::auth::token::Bearer;

use super::{Connection, Flow, close, flow, limits, memory, message::ClientMessage};
use crate::{
    auth,
    gateway::Trust,
    http::{graphql, subscriptions::end},
};

/// What is looked for in the payload of `connection_init`.
const AUTHORIZATION: &str = "authorization";
const ROUTER_AUTHORIZATION: &str = "router-authorization";
/// How long a client may take to say who it is.
const INIT_WITHIN: Duration = Duration::from_secs(3);

impl Connection {
    /// Waits for `connection_init`, and finds out who it is.
    pub(super) async fn greet(&mut self, speaks_protocol: bool) -> Flow {
        if !speaks_protocol {
            return Break(close::NO_PROTOCOL.into());
        }
        let init_until = tokio::time::Instant::now() + INIT_WITHIN;
        loop {
            let received = tokio::select! {
                received = self.socket.receive() => received,
                () = tokio::time::sleep_until(init_until) => return Break(close::INIT_TIMEOUT.into()),
                end = &mut self.end => return Break(end.into()),
            };
            let Some(text) = self.text_of(received).await? else { continue };
            let message = flow(ClientMessage::read(&text.text, self.bounds()))?;
            match &*message.kind {
                "connection_init" => {
                    self.recognize_gateway(&message)?;
                    let bearer = match flow(message.header(AUTHORIZATION))? {
                        Some(token) => self.bearer_of(&token).map(Some),
                        None => auth::bearer(&self.app.access, &self.headers).ok(),
                    };
                    match bearer {
                        Some(bearer) => self.admit(bearer)?,
                        // Its client hears nothing of a socket that is closed, but of operations that are refused.
                        None if self.trust.is_gateway() => self.has_bad_token = true,
                        None => return Break(close::NOT_VALID.into()),
                    }
                    return self.send([Bytes::from_static(br#"{"type":"connection_ack"}"#)]).await;
                }
                "ping" => self.pong(message.payload).await?,
                "subscribe" => return Break(close::NOT_READY.into()),
                "pong" | "complete" => {}
                _ => return Break(close::INVALID_MESSAGE.into()),
            }
        }
    }

    /// Routers send the headers that they have for a subgraph here, and not in the handshake.
    fn recognize_gateway(&mut self, message: &ClientMessage<'_>) -> Flow {
        // The handshake has proved it already.
        if self.trust == Trust::Connection {
            return Continue(());
        }
        let Some(secret) = flow(message.header(ROUTER_AUTHORIZATION))? else { return Continue(()) };
        match self.app.gateways().has_secret(&secret) {
            Ok(false) => Continue(()),
            Ok(true) => {
                self.trust = Trust::Connection;
                self.caller.is_gateway = true;
                let owner = graphql::owner(&self.app, &self.caller, None);
                // The sockets of a gateway are those of many.
                if let Ok(counted) = self.app.quotas.socket_of_address(owner.address) {
                    self.counted = counted;
                }
                self.socket.set_limits(limits(&self.app, true, self.trust), memory(&self.app, owner));
                Continue(())
            }
            Err(_) => Break(close::NO_GATEWAY.into()),
        }
    }

    /// A ping may bring the next access token of the same account and session: `{"authorization": "Bearer …"}`.
    pub(super) fn renew(&mut self, message: &ClientMessage<'_>) -> Flow {
        let Some(token) = flow(message.header(AUTHORIZATION))? else { return Continue(()) };
        match self.bearer_of(&token) {
            Some(bearer) if self.bearer.is_some() && bearer.viewer == self.viewer => {
                self.end = Box::pin(end(&self.app, Some(bearer.clone())));
                self.bearer = Some(bearer);
                Continue(())
            }
            _ => Break(close::NOT_VALID.into()),
        }
    }

    /// `None`: refused.
    fn bearer_of(&self, authorization: &str) -> Option<Bearer> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(authorization).ok()?);
        auth::bearer(&self.app.access, &headers).ok().flatten()
    }

    /// Lets them in who has come with this token, or with none.
    fn admit(&mut self, bearer: Option<Bearer>) -> Flow {
        let Some(bearer) = bearer else { return Continue(()) };
        // The place among those of the address is free for the next one now.
        self.counted = flow(self.app.quotas.socket_of(&bearer.viewer).map_err(|_| close::TOO_MANY_SOCKETS))?;
        self.viewer = bearer.viewer.clone();
        self.end = Box::pin(end(&self.app, Some(bearer.clone())));
        let owner = graphql::owner(&self.app, &self.caller, Some(&bearer));
        self.bearer = Some(bearer);
        self.socket.set_limits(limits(&self.app, false, self.trust), memory(&self.app, owner));
        Continue(())
    }
}
