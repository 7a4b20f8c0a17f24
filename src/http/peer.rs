//! The other end of a connection, as requests carry it. Not here: whom a proxy asks for (`forwarded`).

use std::net::IpAddr;

/// The other end of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);
