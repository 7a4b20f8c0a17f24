//! Too much to do: who is refused, how early, and what is taken all the same. Not here: how much is too much
//! (`admission::adaptive`), how it is divided (`admission`).

use std::collections::BTreeMap;

use super::*;
use crate::{
    config::setting::{Secrets, Setting as _},
    http::{admission::Permit, shares::Owner, shedding::shed},
};

const SIGN_OUT: &str = r#"{"query": "mutation { signOut { userErrors { code } } }"}"#;
const PRETENDS: &str = r#"{"query": "{ me { id } } # signOut"}"#;

/// A server under load, and what it is busy with.
async fn busy() -> (App, Vec<Permit>) {
    let app = app_with(|config| {
        config.http.max_concurrent_requests = 8;
        config.http.address_share.0 = 100;
        config.gateway.secrets =
            Secrets::parse("the secret of a gateway that is long enough").expect("a secret");
    })
    .await;
    app.admission.lower_to(4);
    let gateway = Owner { is_gateway: true, ..Owner::default() };
    let mut permits: Vec<_> = std::iter::from_fn(|| app.admission.acquire(gateway.clone()).ok()).collect();
    // And the one more that an account without any may have.
    let other = Owner { account: Some(UserId::new()), ..Owner::default() };
    permits.extend(app.admission.acquire(other).ok());
    (app, permits)
}

/// Whether a request is refused before it is read.
async fn is_shed(app: &App, request: HttpRequest<Body>) -> bool {
    shed(app, request).await.is_err()
}

#[tokio::test]
async fn under_load_a_request_is_refused_before_it_is_read() {
    let (app, permits) = busy().await;
    assert_eq!(permits.len(), 5);
    let request = with(post_of(QUERY), "x-request-id", "mine-1");
    let refused = shed(&app, request).await.expect_err("refused");
    let (parts, body) = refused.into_parts();
    let body: Value =
        serde_json::from_slice(&body.collect().await.expect("a body").to_bytes()).expect("JSON");
    assert_eq!((parts.status.as_u16(), &parts.headers["retry-after"]), (503, &HeaderValue::from_static("1")));
    let (_, headers, as_usual) = send(&app, with(post_of(QUERY), "x-request-id", "mine-1")).await;
    assert_eq!(body, as_usual, "said as where it is refused later");
    for name in ["content-type", "cache-control", "x-request-id"] {
        assert_eq!(parts.headers[name], headers[name], "{name}");
    }
    assert!(is_shed(&app, get_of("/graphql?query=%7B__typename%7D")).await);
    assert!(is_shed(&app, post_of("no JSON")).await);
    let metrics = app.exposition.text().await.expect("metrics");
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(metrics.contains("http_server_requests_shed_total 3"), "{metrics}");
    drop(permits);
    assert!(!is_shed(&app, post_of(QUERY)).await, "when there is less to do");
}

#[tokio::test]
async fn what_is_not_seen_at_once_is_refused_later() {
    let (app, _permits) = busy().await;
    let in_parts = || {
        let parts = ["{\"query\":", " \"{ __typename }\"}"].map(Ok::<_, std::io::Error>);
        Body::from_stream(futures_util::stream::iter(parts))
    };
    for request in [post_of(in_parts()), with(post_of(QUERY), "content-encoding", "identity")] {
        let request = shed(&app, request).await.expect("given back");
        assert_eq!(rejection(&app, request).await, (503, "OVERLOADED".into()));
    }
    let by_gateway =
        with(post_of(QUERY), "router-authorization", "the secret of a gateway that is long enough");
    shed(&app, by_gateway).await.expect("what a gateway may have is looked at when it has proved to be one");
    for path in ["/livez", "/.well-known/jwks.json", "/readyz"] {
        let request = shed(&app, get_of(path)).await.expect("never refused");
        assert_eq!(send(&app, request).await.0, 200, "{path}");
    }
}

/// A browser shows no answer to a page of another origin that does not allow it, not even that there is too much to do.
#[tokio::test]
async fn a_page_can_read_that_it_is_refused_early() {
    let (app, _permits) = busy().await;
    let cors = |headers: &HeaderMap| -> BTreeMap<String, HeaderValue> {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.clone()));
        headers.filter(|(name, _)| name.starts_with("access-control-")).collect()
    };
    let page = |origin: &str| with(post_of(QUERY), "origin", origin);
    let early = async |origin: &str| shed(&app, page(origin)).await.expect_err("refused").headers().clone();
    let (allowed, foreign) = ("http://localhost:5173", "https://elsewhere.example");
    let refused = early(allowed).await;
    assert_eq!(refused["access-control-allow-origin"], allowed);
    let exposed = refused["access-control-expose-headers"].to_str().expect("text");
    assert!(exposed.split(", ").any(|name| name == "retry-after"), "{exposed}");
    let (status, late, _) = send(&app, page(allowed)).await;
    assert_eq!(status, 503);
    assert_eq!(cors(&refused), cors(&late), "as where it is refused later");
    assert_eq!(refused["vary"], "origin", "a cache must tell pages apart");
    let refused = early(foreign).await;
    assert!(cors(&refused).is_empty(), "{refused:?}");
    assert_eq!(refused["vary"], "origin");
}

#[tokio::test]
async fn sessions_are_refreshed_and_ended_under_load() {
    let (app, _permits) = busy().await;
    let token = token(&app, Role::Viewer);
    let ask = async |body: &str| {
        let request = with(post_of(body.to_owned()), "authorization", &format!("Bearer {token}"));
        let request = shed(&app, request).await.expect("not refused yet");
        let (status, _, body) = send(&app, request).await;
        (status, body["errors"][0]["extensions"]["code"].as_str().unwrap_or_default().to_owned())
    };
    // It has no session to sign out of, which is for the mutation to say.
    let (status, code) = ask(SIGN_OUT).await;
    assert!(status == 200 && code != "OVERLOADED", "{status} {code}");
    assert_eq!(ask(PRETENDS).await, (503, "OVERLOADED".into()), "found out when it is read");
    let array = format!("[{SIGN_OUT}]");
    assert_ne!(ask(&array).await.0, 200);
    // By the id of a document that was asked for before.
    let hash = hex::encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        b"mutation { signOut { userErrors { code } } }",
    ));
    let by_id =
        format!(r#"{{"extensions": {{"persistedQuery": {{"version": 1, "sha256Hash": "{hash}"}}}}}}"#);
    assert!(is_shed(&app, post_of(by_id.clone())).await, "not known yet");
    let registered = SIGN_OUT.replacen('{', &format!("{{{},", &by_id[1..by_id.len() - 1]), 1);
    ask(&registered).await;
    let (status, code) = ask(&by_id).await;
    assert!(status == 200 && code != "OVERLOADED", "{status} {code}");
}
