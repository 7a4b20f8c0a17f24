//! Apollo's multipart protocol (`multipart/mixed;subscriptionSpec="1.0"`): one operation a request, by POST
//! or GET; each answer is a part `{"payload": …}`, an empty object says that the stream is alive, and what
//! ends it from outside is a part without payload that has the errors. Each part is followed by the next
//! boundary at once, so that its reader need not wait. Not here: what is answered, and what ends it.

use schema::{Chunks, Reply};

use super::errors_of;

pub(super) const CONTENT_TYPE: &str = "multipart/mixed;boundary=\"graphql\";subscriptionSpec=\"1.0\"";
pub(super) const OPENING: &[u8] = b"\r\n--graphql";
pub(super) const ALIVE: &[u8] = b"\r\ncontent-type: application/json\r\n\r\n{}\r\n--graphql";
pub(super) const CLOSING: &[u8] = b"--\r\n";

/// Whether a range of `Accept` means this protocol.
pub(super) fn is_meant(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let is_version = |parameter: &str| {
        parameter.split_once('=').is_some_and(|(name, version)| {
            name.trim().eq_ignore_ascii_case("subscriptionSpec") && version.trim().trim_matches('"') == "1.0"
        })
    };
    parts.next().is_some_and(|media| media.eq_ignore_ascii_case("multipart/mixed")) && parts.any(is_version)
}

/// An answer.
pub(super) fn part(answer: Chunks) -> Chunks {
    json(b"{\"payload\":", answer)
}

/// What ended the stream although nobody asked for that.
pub(super) fn error(reply: Reply) -> Chunks {
    json(b"{\"payload\":null,\"errors\":", errors_of(reply.body).into())
}

fn json(begins: &[u8], value: Chunks) -> Chunks {
    let mut part = Chunks::from(b"\r\ncontent-type: application/json\r\n\r\n".to_vec());
    part.extend(begins);
    part.append(value);
    part.append(b"}\r\n--graphql".to_vec().into());
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_that_there_is_is_meant() {
        for (range, meant) in [
            ("multipart/mixed;subscriptionSpec=\"1.0\"", true),
            ("Multipart/Mixed; boundary=graphql; subscriptionSpec=1.0", true),
            ("multipart/mixed; subscriptionspec = 1.0", true),
            ("multipart/mixed", false),
            ("multipart/mixed;deferSpec=20220824", false),
            ("multipart/mixed;subscriptionSpec=2.0", false),
            ("application/json;subscriptionSpec=1.0", false),
        ] {
            assert_eq!(is_meant(range), meant, "{range}");
        }
    }
}
