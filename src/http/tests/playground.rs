//! The playground: where it is, in which codings, and who gets introspection there. Not here: the page itself
//! (`tests/browser`).

use super::*;

#[tokio::test]
async fn the_playground_is_there_where_it_is_on() {
    let app = app().await;
    let Value::String(page) = send(&app, get_of("/")).await.2 else { panic!("a page") };
    assert!(page.contains("<!doctype html>"), "{page}");
    let response =
        router(app.clone()).oneshot(with(get_of("/"), "accept-encoding", "gzip, br")).await.expect("ok");
    assert_eq!(response.headers()["content-encoding"], "br");
    let etag = response.headers()["etag"].to_str().expect("text").to_owned();
    let again = with(with(get_of("/"), "accept-encoding", "br"), "if-none-match", &etag);
    assert_eq!(send(&app, again).await.0, 304);
    let from = |peer: [u8; 4]| {
        let mut request = get_of("/playground/config.json");
        request.extensions_mut().insert(peer::Peer(peer.into()));
        request
    };
    let settings = send(&app, from([127, 0, 0, 1])).await.2;
    assert_eq!(settings["accounts"][0]["name"], "ann");
    for foreign in [
        with(from([127, 0, 0, 1]), "host", "evil.example:8080"),
        with(from([127, 0, 0, 1]), "x-forwarded-for", "127.0.0.1"),
        from([192, 0, 2, 1]),
        get_of("/playground/config.json"),
    ] {
        assert_eq!(send(&app, foreign).await.2["accounts"], json!([]));
    }
    assert_eq!(send(&app, get_of("/playground/nothing.js")).await.0, 404);
    let sent_here = |path: &str, accept: &str| {
        let app = app.clone();
        let request = HttpRequest::get(path).header("accept", accept).body(Body::empty()).expect("a request");
        async move { send(&app, request).await }
    };
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for accept in [browser, "text/html", "Text/HTML;q=0.5"] {
        let (status, headers, _) = sent_here("/graphql", accept).await;
        assert_eq!((status, text(&headers["location"])), (303, "/"), "{accept}");
        assert_eq!(
            (text(&headers["cache-control"]), text(&headers["vary"])),
            ("no-store", "accept, authorization, origin")
        );
    }
    assert_eq!(sent_here("/graphql", "application/json, text/html;q=0").await.0, 400);
    assert_eq!(
        sent_here("/graphql?query=%7B__typename%7D", "text/html").await.0,
        406,
        "there is something to ask"
    );
    let off = app_with(|config| config.http.playground = Playground::Off).await;
    assert_eq!(send(&off, get_of("/")).await.0, 404);
    assert_eq!(send(&off, with(get_of("/graphql"), "accept", "text/html")).await.0, 406);
    assert_eq!(send(&off, get_of("/playground/config.json")).await.0, 404);
}

#[tokio::test]
async fn signed_in_admins_get_introspection_where_the_playground_is_for_them() {
    const INTROSPECTION: &str = r#"{"query": "{ __schema { queryType { name } } }"}"#;
    const FEDERATION: &str = r#"{"query": "{ __typename _service { sdl } }"}"#;
    let production =
        async |playground| app_of(None, |config| config.http.playground = playground, |store, _| store).await;
    let app = production(Playground::Admins).await;
    let asked = async |app: &App, role: Option<Role>, body: &'static str| {
        let bearer = role.map(|role| format!("Bearer {}", token(app, role)));
        let request = post_of(body);
        send(app, bearer.into_iter().fold(request, |request, bearer| with(request, "authorization", &bearer)))
            .await
            .2
    };
    assert_eq!(send(&app, get_of("/")).await.0, 200, "the page is there");
    assert_eq!(send(&app, get_of("/playground/config.json")).await.2["explains"], json!(false));
    let admin = asked(&app, Some(Role::Admin), INTROSPECTION).await;
    assert_eq!(admin["data"]["__schema"]["queryType"]["name"], "Query", "{admin}");
    // Also once the document is known.
    for role in [None, Some(Role::Viewer), Some(Role::Editor), Some(Role::Manager)] {
        let refused = asked(&app, role, INTROSPECTION).await;
        assert_eq!(
            refused["errors"][0]["extensions"]["code"], "INTROSPECTION_DISABLED",
            "{role:?}: {refused}"
        );
    }
    let refused = asked(&app, Some(Role::Admin), FEDERATION).await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{refused}");
    let off = production(Playground::On).await;
    let refused = asked(&off, Some(Role::Admin), INTROSPECTION).await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], "INTROSPECTION_DISABLED", "{refused}");
    for (role, status) in [(Role::Admin, 200), (Role::Manager, 403)] {
        let request = with(
            get_of("/playground/documents.json"),
            "authorization",
            &format!("Bearer {}", token(&app, role)),
        );
        assert_eq!(send(&app, request).await.0, status, "{role:?}");
    }
}
