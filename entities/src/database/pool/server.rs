//! Which running server a connection leads to, and what is known of one that is watched. Not here: what its state is
//! (`replica`).

use std::time::Instant;

use super::Session;

/// A running server: another one behind the same name, and the same one started anew, is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerId(pub(in crate::database) i64);

/// The SQL of a `ServerId`: the microsecond in which the server was started. Every account may ask for it,
/// and it is the same by whichever way the server is reached.
macro_rules! server_id {
    () => {
        "hashtextextended(concat(current_setting('port'), '/', \
         extract(epoch FROM pg_postmaster_start_time())), 0)"
    };
}
pub(in crate::database) use server_id;

/// A connection that watches a server, as it was when it was asked last. What it was told is true of the
/// server for as long as that runs: its replay never goes back. After a crash of one of its processes a
/// server closes all connections and replays anew from an earlier point, under the same `ServerId`; so what a
/// watch was told holds for those connections only that were open together with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// The server.
    pub(crate) server: ServerId,
    /// When the watching connection was opened.
    pub(in crate::database) opened: Instant,
    /// When it was asked last, before it answered.
    pub(in crate::database) asked: Instant,
    /// How far the log went then, in bytes: what a standby had replayed, and a primary written.
    pub(crate) position: i64,
}

impl Watch {
    /// Does what the watch was told hold for what this connection reads from now on?
    pub(super) fn covers(&self, session: &Session) -> bool {
        self.holds_for(session.server, session.opened, session.position)
    }

    /// A connection that is older than the watch was open with it if it still answers. One that is newer was,
    /// if the watch has answered since; or it came to a server that was as far.
    fn holds_for(&self, server: ServerId, opened: Instant, position: i64) -> bool {
        server == self.server && (opened < self.opened || opened <= self.asked || position >= self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_watch_holds_for_connections_that_were_open_with_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let watch = Watch { server: ServerId(1), opened: at(10), asked: at(20), position: 5 };
        assert!(watch.holds_for(ServerId(1), at(5), 1), "it was there before");
        assert!(watch.holds_for(ServerId(1), at(15), 1), "the watch has answered since");
        assert!(!watch.holds_for(ServerId(1), at(21), 4), "it may replay anew, and nobody has asked since");
        assert!(watch.holds_for(ServerId(1), at(21), 5), "it was as far when it was opened");
        assert!(!watch.holds_for(ServerId(2), at(15), 9), "another server");
    }
}
