//! Refresh tokens: `rt_` and, in base64url, the session's id, a counter, a MAC over both by a key of this
//! session, and a checksum. The counter says which token of the session it is, so nothing of a token is
//! stored, and the child of a token can be made again. Garbage is told by its checksum, without the database.
//! Not here: when a token is good.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::{auth::secret::Secret, id::SessionId};

const PREFIX: &str = "rt_";
const ID: usize = 16;
const COUNTER: usize = 8;
const MAC: usize = 32;
const CHECKSUM: usize = 4;
/// Characters of a token.
const LENGTH: usize = PREFIX.len() + (ID + COUNTER + MAC + CHECKSUM) * 4 / 3;

/// A token that is well-formed; whether it is genuine only its session can tell.
#[derive(Clone, Debug)]
pub(crate) struct RefreshToken {
    pub(crate) session: SessionId,
    pub(crate) counter: i64,
    mac: [u8; MAC],
}

impl RefreshToken {
    /// Reads a token; `None` for garbage.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() != LENGTH {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
        if checksum_of(body) != *checksum {
            return None;
        }
        let (id, rest) = body.split_first_chunk::<ID>()?;
        let (counter, mac) = rest.split_first_chunk::<COUNTER>()?;
        let (session, counter) = (SessionId(Uuid::from_bytes(*id)), i64::from_be_bytes(*counter));
        Some(Self { session, counter, mac: mac.try_into().ok()? })
    }

    /// Was it made by this server for the session of this salt?
    pub(crate) fn is_genuine(&self, secret: &Secret, salt: &str) -> bool {
        hmac::verify(&secret.session_key(salt), &signed(self.session, self.counter), &self.mac).is_ok()
    }
}

/// The text of a session's token of this counter.
pub(crate) fn make(secret: &Secret, salt: &str, session: SessionId, counter: i64) -> String {
    let mut bytes = signed(session, counter).to_vec();
    let mac = hmac::sign(&secret.session_key(salt), &bytes);
    bytes.extend(mac.as_ref());
    bytes.extend(checksum_of(&bytes));
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn signed(session: SessionId, counter: i64) -> [u8; ID + COUNTER] {
    let mut bytes = [0; ID + COUNTER];
    bytes[..ID].copy_from_slice(session.0.as_bytes());
    bytes[ID..].copy_from_slice(&counter.to_be_bytes());
    bytes
}

fn checksum_of(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut checksum = [0; CHECKSUM];
    checksum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_any_change_is_noticed() {
        let (secret, session) = (Secret::new("one"), SessionId::new());
        let text = make(&secret, "salt", session, 7);
        assert_eq!(text.len(), LENGTH);
        assert_eq!(text, make(&secret, "salt", session, 7), "the same child can be made again");
        let token = RefreshToken::parse(&text).expect("well-formed");
        assert_eq!((token.session, token.counter), (session, 7));
        assert!(token.is_genuine(&secret, "salt"));
        assert!(!token.is_genuine(&secret, "pepper") && !token.is_genuine(&Secret::new("two"), "salt"));
        for at in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("ASCII");
            assert!(RefreshToken::parse(&altered).is_none(), "byte {at}");
        }
        for garbage in ["", "rt_", &text[3..], &text[..text.len() - 1], &format!("{text}A"), "rt_ä"] {
            assert!(RefreshToken::parse(garbage).is_none(), "{garbage}");
        }
    }

    #[test]
    fn a_checksum_can_be_forged_and_a_mac_cannot() {
        let (secret, session) = (Secret::new("one"), SessionId::new());
        let forged = make(&Secret::new("guess"), "salt", session, 8);
        let token = RefreshToken::parse(&forged).expect("well-formed");
        assert!(!token.is_genuine(&secret, "salt"));
    }
}
