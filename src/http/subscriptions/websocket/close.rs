//! Why a WebSocket is closed: each reason has a code of the protocol, and a text for the developer of the
//! client. Clients of the package graphql-ws decide by the code whether they connect again. docs/clients.md
//! has the same table; a test compares them.

/// A code (RFC 6455 §7.4, and 4400 to 4499 of `graphql-transport-ws`), and a text of 123 bytes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: u16,
    pub(super) reason: &'static str,
}

macro_rules! closes {
    ($($name:ident = $code:literal $reason:literal;)+) => {
        $(pub(super) const $name: Close = Close { code: $code, reason: $reason };)+
        #[cfg(test)]
        const ALL: &[Close] = &[$($name),+];
    };
}

closes! {
    GOING_AWAY = 1001 "The server stops";
    BAD_FRAME = 1002 "Invalid WebSocket frame";
    NOT_UTF8 = 1007 "A text is not UTF-8";
    TOO_LARGE = 1009 "The message is too large";
    INTERRUPTED = 1012 "What was told may not be true any more: read and subscribe again";
    NO_MEMORY = 1013 "The server has too much to do; try again in a moment";
    TOO_MANY_SOCKETS = 1013 "This account has too many WebSockets";
    BINARY = 4400 "Messages are texts, not binary";
    INVALID_MESSAGE = 4400 "Invalid message";
    INVALID_PAYLOAD = 4400 "Invalid message: the payload must be an object";
    TOO_MUCH_JSON = 4400 "Invalid message: nested too deep, or too many values";
    NOT_READY = 4401 "Unauthorized: connection_init comes first";
    NO_GATEWAY = 4401 "The gateway's credentials are not valid";
    REVOKED = 4401 "The session has ended";
    EXPIRED = 4403 "The access token has expired";
    NOT_VALID = 4403 "The access token is not valid";
    UNREADABLE = 4403 "The authorization cannot be read: a text is expected";
    NO_PROTOCOL = 4406 "Subprotocol not acceptable";
    INIT_TIMEOUT = 4408 "Connection initialisation timeout";
    MESSAGE_TIMEOUT = 4408 "A message did not arrive in time";
    PING_TIMEOUT = 4408 "A ping was not answered in time";
    TAKEN = 4409 "Subscriber already exists: each operation needs its own id";
    TWICE = 4429 "Too many initialisation requests";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// graphql-ws ends for good after these, and after all others below 2000.
    const FATAL: [u16; 8] = [4004, 4005, 4400, 4401, 4406, 4409, 4429, 4500];
    const RETRIED_BELOW_2000: [u16; 7] = [1000, 1001, 1005, 1006, 1012, 1013, 1014];

    fn is_retried(code: u16) -> bool {
        RETRIED_BELOW_2000.contains(&code) || (code >= 2000 && !FATAL.contains(&code))
    }

    #[test]
    fn the_documentation_has_each_code_with_its_texts() {
        let page = include_str!("../../../../docs/clients.md");
        for close in ALL {
            let line = page.lines().find(|line| line.starts_with(&format!("| {} |", close.code)));
            let line = line.unwrap_or_else(|| panic!("docs/clients.md has no line for {close:?}"));
            assert!(line.contains(close.reason), "docs/clients.md does not have {close:?}: {line}");
            let again = if is_retried(close.code) { "| yes |" } else { "| no |" };
            assert!(line.ends_with(again), "{close:?} ends with {again}: {line}");
            assert!(close.reason.len() <= 123, "{close:?}");
        }
    }
}
