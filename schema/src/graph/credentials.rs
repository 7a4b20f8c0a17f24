//! E-mails, names and passwords as they are typed in: what is taken, and whether a password is right. Checking one is
//! throttled before anything is hashed, and an account that does not exist, is blocked or has no password takes as long
//! and answers the same as a wrong password. Not here: what follows from it (`session::sign_in`, `user::mutation`).

use std::time::{Duration, Instant};

use entities::{
    auth::password::{self, Hasher, MAX_BYTES, MIN_BYTES, Unfit, Verdict},
    unicode,
    user::{Credentials, ERASED_DOMAIN},
};

use crate::{
    auth::throttle::{Attempt, RateLimited},
    context::ContextExt as _,
    graph::user_error::{UserError, UserErrorCode, is_one_line},
};
use engine::{
    context::Context,
    error::{Code, FieldError},
};

/// Bytes of an e-mail at most (RFC 5321, §4.5.3.1.3).
const MAX_EMAIL_BYTES: usize = 254;
/// Characters of a display name at most.
const MAX_NAME_CHARS: usize = 100;
/// When it is worth trying again after `OVERLOADED`.
const BUSY: Duration = Duration::from_secs(1);

/// An e-mail in the form in which it is stored.
pub fn email(given: &str) -> Result<String, UserError> {
    let email = given.trim().to_lowercase();
    let refused = |code, message| Err(UserError::new(code, &["input", "email"], message));
    if email.len() > MAX_EMAIL_BYTES {
        return refused(UserErrorCode::TooLarge, "An e-mail has at most 254 characters.");
    }
    let is_written_so = email.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.starts_with('.') && !domain.ends_with('.')
    });
    if !is_written_so || !email.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refused(UserErrorCode::Invalid, "An e-mail is written as in name@example.com.");
    }
    if email.rsplit_once('@').is_some_and(|(_, domain)| domain == ERASED_DOMAIN) {
        return refused(UserErrorCode::Invalid, "This address stands for accounts that were erased.");
    }
    Ok(email)
}

/// A display name in the form in which it is stored.
pub fn display_name(given: &str) -> Result<String, UserError> {
    let name = unicode::composed(given.trim());
    let refused = |code, message| Err(UserError::new(code, &["input", "displayName"], message));
    if unicode::is_blank(&name) {
        return refused(UserErrorCode::Required, "A name has at least one character that can be seen.");
    }
    if name.chars().count() > MAX_NAME_CHARS {
        return refused(UserErrorCode::TooLarge, "A name has at most 100 characters.");
    }
    if !is_one_line(&name) {
        return refused(UserErrorCode::Invalid, "A name is one line of text without invisible characters.");
    }
    Ok(name.into_owned())
}

/// What is wrong with a new password.
pub(crate) fn unfit(password: &str, known: &[&str], at: &'static str) -> Option<UserError> {
    let (code, message) = match password::unfit(password, known)? {
        Unfit::TooShort => {
            (UserErrorCode::TooSmall, format!("A password has at least {MIN_BYTES} characters."))
        }
        Unfit::TooLong => (UserErrorCode::TooLarge, format!("A password has at most {MAX_BYTES} bytes.")),
        Unfit::Weak => (UserErrorCode::WeakPassword, "This password is too easy to guess.".to_owned()),
    };
    Some(UserError::new(code, &["input", at], message))
}

/// The hash of a new password.
pub(crate) async fn hash(ctx: &Context, password: &str) -> Result<String, FieldError> {
    hasher(ctx).hash(password).await.map_err(|_| overloaded())
}

/// One more sign-in or sign-up from the caller's address. The first refusal in a minute is logged: where it
/// comes as a surprise, many people share one address, which is a proxy's. Those who come through a gateway
/// that does not say for whom it asks are counted for their accounts alone: nobody may keep all of its users
/// out.
pub(crate) fn throttle(ctx: &Context) -> Result<(), FieldError> {
    let (throttle, now) = (ctx.access().throttle(), Instant::now());
    let address = ctx.caller().client_address();
    if ctx.caller().is_gateway && address.is_none() {
        if throttle.may_tell_of_gateway() {
            tracing::warn!(
                gateway = ctx.caller().address.map(|address| address.to_string()),
                "a gateway brings sign-ins and does not say for whom: they are counted for each account \
                 only, and their sessions have no ipAddress. Let it forward X-Forwarded-For and User-Agent, \
                 and set http.trusted_proxies (XP_HTTP_TRUSTED_PROXIES) to the gateway's address or network"
            );
        }
        return Ok(());
    }
    throttle.try_from(address, now).map_err(|refused| {
        if throttle.may_tell(now) {
            let client = address.map(|address| address.to_string());
            let is_gateway = ctx.caller().is_gateway;
            tracing::warn!(
                client,
                is_gateway,
                "too many sign-ins from one address or network: refused for now. If this is a proxy or a \
                 gateway, let it say for whom it asks (X-Forwarded-For) and list it as trusted"
            );
        }
        rate_limited(refused)
    })
}

/// One more try for this account, whether or not there is one, from the caller's address.
pub(crate) fn throttle_account(ctx: &Context, email: &str) -> Result<Attempt, FieldError> {
    ctx.access()
        .throttle()
        .try_account(email, ctx.caller().client_address(), Instant::now())
        .map_err(rate_limited)
}

/// Is it the password of this account? `Wrong` also where there is no such account, and for blocked ones. A try that
/// cannot be decided (`OVERLOADED`) is none.
pub(crate) async fn check(
    ctx: &Context,
    attempt: Attempt,
    account: Option<&Credentials>,
    password: &str,
) -> Result<Verdict, FieldError> {
    let stored =
        account.filter(|account| account.is_active).and_then(|account| account.password_hash.as_deref());
    let verdict = if password.len() > MAX_BYTES {
        Verdict::Wrong
    } else {
        hasher(ctx).verify(password, stored).await.map_err(|_| overloaded())?
    };
    if verdict == Verdict::Wrong {
        attempt.failed();
    } else {
        attempt.succeeded();
    }
    Ok(verdict)
}

/// Those of one network take turns with those of others.
fn hasher(ctx: &Context) -> Hasher {
    ctx.access().hasher().for_network(ctx.caller().network())
}

pub(crate) fn rate_limited(RateLimited { retry_after }: RateLimited) -> FieldError {
    FieldError::not_now(Code::RateLimited, "Too many tries; wait a little", retry_after)
}

fn overloaded() -> FieldError {
    FieldError::not_now(Code::Overloaded, "Too many sign-ins at once; try again", BUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_are_stored_in_lower_case_and_look_like_one() {
        assert_eq!(email(" Ada@Example.COM ").as_deref(), Ok("ada@example.com"));
        for wrong in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@.com",
            "ada@example.",
            "a b@example.com",
            "ä@example.com",
            "erased-1@Erased.Invalid",
        ] {
            assert_eq!(email(wrong).expect_err("refused").code, UserErrorCode::Invalid, "{wrong}");
        }
        let long = format!("{}@example.com", "a".repeat(250));
        assert_eq!(email(&long).expect_err("refused").code, UserErrorCode::TooLarge);
    }

    #[test]
    fn names_are_one_line_of_text() {
        assert_eq!(display_name("  Ada Lovelace ").as_deref(), Ok("Ada Lovelace"));
        assert_eq!(display_name("Nguye\u{302}\u{303}n").as_deref(), Ok("Nguyễn"), "composed");
        let code = |name: &str| display_name(name).expect_err("refused").code;
        for blank in ["  ", "\u{200b}", "\u{a0}\u{3000}", "\u{feff}\u{2060}"] {
            assert_eq!(code(blank), UserErrorCode::Required, "{blank:?}");
        }
        for hidden in
            ["a\0b", "a\nb", "Ada\u{202e}nimdA", "Ad\u{200b}a", "Ada\u{200d}", "\u{2066}Ada\u{2069}"]
        {
            assert_eq!(code(hidden), UserErrorCode::Invalid, "{hidden:?}");
        }
        assert_eq!(code(&"ä".repeat(101)), UserErrorCode::TooLarge);
    }
}
