//! Headers -> `schema::Viewer`: the bearer token, and from which address a request really comes. Not here: what makes a
//! token good (`schema::token`), sessions, what a viewer may see.

use std::net::IpAddr;

use axum::http::{HeaderMap, header::AUTHORIZATION};
use schema::{
    Access, Viewer,
    token::{Bearer, Refused},
};

use crate::config::setting::Networks;

/// Who sends a request with these headers. Without a token: nobody. With anything that is no valid token, another
/// scheme included, the request is refused rather than quietly served as anonymous.
pub fn bearer(access: &Access, headers: &HeaderMap) -> Result<Option<Bearer>, Refused> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Refused("more than one authorization header"));
    }
    let (scheme, token) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refused("no bearer token"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused("not the bearer scheme"));
    }
    access.verify(token.trim()).map(Some)
}

/// The viewer of these headers.
pub fn viewer(access: &Access, headers: &HeaderMap) -> Result<Viewer, Refused> {
    Ok(bearer(access, headers)?.map_or(Viewer::Anonymous, |bearer| bearer.viewer))
}

/// The client's address: that of the connection, or what proxies of ours say. `X-Forwarded-For` is read from its end, as
/// far as those who wrote it are trusted; what a client writes there itself is never reached.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut address = peer.to_canonical();
    let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
    for hop in hops.into_iter().rev() {
        if !trusted.contains(address) {
            break;
        }
        let Ok(next) = hop.parse::<IpAddr>() else { break };
        address = next.to_canonical();
    }
    address
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::HeaderValue;
    use entities::{DatabaseConfig, Store, id::UserId, user::Role};
    use prometheus_client::registry::Registry;
    use schema::token::Subject;

    use super::*;
    use crate::config::{Config, setting::Setting as _};

    #[tokio::test]
    async fn the_header_is_read_strictly() {
        let config = DatabaseConfig {
            url: "sqlite::memory:".into(),
            max_connections: 1,
            acquire_timeout: Duration::from_secs(5),
        };
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

    #[test]
    fn only_trusted_proxies_say_where_a_request_comes_from() {
        let trusted = Networks::parse("10.0.0.0/8, 127.0.0.1, 2001:db8::/32").expect("networks");
        let from = |peer: &str, forwarded: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append("x-forwarded-for", HeaderValue::from_static(value));
            }
            client_address(peer.parse().expect("an address"), &headers, &trusted).to_string()
        };
        assert_eq!(from("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "a client is not believed");
        assert_eq!(from("10.1.2.3", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("10.1.2.3", &["1.1.1.1, 198.51.100.7", "127.0.0.1"]), "198.51.100.7");
        assert_eq!(from("::ffff:10.1.2.3", &["2001:db8:1::1"]), "2001:db8:1::1");
        assert_eq!(from("10.1.2.3", &["nonsense"]), "10.1.2.3");
        assert_eq!(from("10.1.2.3", &[]), "10.1.2.3");
    }
}
