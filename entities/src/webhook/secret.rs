//! The secrets of webhooks and their signatures, as Standard Webhooks has them: `whsec_` and 24 to 64 bytes
//! in base64; `v1,` and an HMAC-SHA256 over id, time and body. They are stored sealed with the server's
//! secret, since they have to be used again. Not here: keys of the server (`auth::secret`).

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Model;
use crate::{auth::secret::Secret, clock::Time, database::sql::Hidden, id::WebhookId};

const PREFIX: &str = "whsec_";
/// Bytes of a secret that is made here.
const BYTES: usize = 32;

/// A secret that deliveries are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(***)")
    }
}

impl WebhookSecret {
    /// A new one, which nobody can guess.
    pub fn generate() -> Self {
        let mut bytes = vec![0; BYTES];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random numbers");
        Self(bytes)
    }

    /// Reads one; `None` for what is not written like one, too short or too long.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// As its owner has to know it.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    pub(super) fn seal(&self, secret: &Secret, webhook: WebhookId) -> Hidden {
        Hidden(secret.seal_webhook(&webhook.to_string(), &self.0))
    }

    fn open(secret: &Secret, webhook: WebhookId, sealed: &Hidden) -> Option<Self> {
        secret.open_webhook(&webhook.to_string(), &sealed.0).map(Self)
    }

    /// The signature of an attempt.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl Model {
    /// What its deliveries are signed with at this moment: its secret, and while that is new the one before,
    /// if it can be opened. None where the secret was sealed with another secret of the server.
    pub fn secrets(&self, secret: &Secret, now: Time) -> Vec<WebhookSecret> {
        let before = self.previous_secret.as_ref().filter(|_| self.is_before_good(now));
        let Some(own) = WebhookSecret::open(secret, self.id, &self.secret) else { return Vec::new() };
        let before = before.and_then(|sealed| WebhookSecret::open(secret, self.id, sealed));
        [Some(own), before].into_iter().flatten().collect()
    }

    /// The secret of the webhook as it is stored, to be kept beside a new one; none where it cannot be opened.
    pub(super) fn usable_secret(&self, secret: &Secret) -> Option<Hidden> {
        WebhookSecret::open(secret, self.id, &self.secret).map(|_| self.secret.clone())
    }

    fn is_before_good(&self, now: Time) -> bool {
        self.previous_secret_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification (standard-webhooks/spec).
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(format!("{secret:?}"), "WebhookSecret(***)");
    }

    #[test]
    fn secrets_have_24_to_64_bytes() {
        let of = |bytes: usize| WebhookSecret::parse(&format!("whsec_{}", STANDARD.encode(vec![7; bytes])));
        for (bytes, is_good) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(of(bytes).is_some(), is_good, "{bytes}");
        }
        for nonsense in
            ["", "whsec_", "whsec_ä", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwj!"]
        {
            assert_eq!(WebhookSecret::parse(nonsense), None, "{nonsense}");
        }
        let made = WebhookSecret::generate();
        assert_eq!(WebhookSecret::parse(&made.expose()), Some(made));
    }
}
