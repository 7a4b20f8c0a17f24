//! Headers -> `schema::Viewer`: the bearer token. Not here: what makes a token good (`schema::token`), sessions, what a
//! viewer may see, from which address a request comes (`forwarded`).

use axum::http::{HeaderMap, header::AUTHORIZATION};
use schema::{
    Access, Viewer,
    auth::token::{Bearer, InvalidToken},
};

/// Who sends a request with these headers. Without a token: nobody. With anything that is no valid token, another
/// scheme included, the request is refused rather than quietly served as anonymous.
pub fn bearer(access: &Access, headers: &HeaderMap) -> Result<Option<Bearer>, InvalidToken> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(InvalidToken("more than one authorization header"));
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or(InvalidToken("the bearer token is missing"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(InvalidToken("not the bearer scheme"));
    }
    access.verify(token.trim()).map(Some)
}

/// The viewer of these headers.
pub fn viewer(access: &Access, headers: &HeaderMap) -> Result<Viewer, InvalidToken> {
    Ok(bearer(access, headers)?.map_or(Viewer::Anonymous, |bearer| bearer.viewer))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use entities::{DatabaseOptions, Role, Store, id::UserId};
    use prometheus_client::registry::Registry;
    use schema::auth::token::Subject;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn the_header_is_read_strictly() {
        let config = DatabaseOptions::at("sqlite::memory:");
        let store = Store::connect(&config, &mut Registry::default()).await.expect("SQLite in memory");
        migration::up(store.connection()).await.expect("the steps run");
        let access = Access::new(store, Config::default().auth.access());
        access.open().await.expect("a key is made");
        let subject = Subject { user: UserId::new(), role: Role::Viewer, epoch: 0, session: None };
        let (token, _) = access.tokens().mint(subject, 60).expect("minted");
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
            }
            viewer(&access, &headers)
        };
        assert_eq!(of(&[]), Ok(Viewer::Anonymous));
        assert_eq!(of(&[&format!("bearer {token}")]).expect("valid").user_id(), Some(subject.user));
        for bad in [token.as_str(), "Bearer", "Bearer ", "Basic YTpi"] {
            assert!(of(&[bad]).is_err(), "{bad}");
        }
        assert!(of(&[&format!("Bearer {token}"), "Bearer x"]).is_err(), "two headers");
    }
}
