//! Getting in over HTTP: from the form to a refused token.

use super::*;

/// Runs a mutation; its payload.
async fn mutate(app: &App, token: Option<&str>, query: &str, variables: &Value) -> Value {
    let mut request = post_of(json!({ "query": query, "variables": variables }).to_string());
    if let Some(token) = token {
        request = with(request, "authorization", &format!("Bearer {token}"));
    }
    let request = with(with(request, "user-agent", "XP for iOS"), "x-forwarded-for", "203.0.113.9");
    let (status, _, body) = send(app, request).await;
    assert_eq!((status, body.get("errors")), (200, None), "{body}");
    let data = body["data"].as_object().expect("data");
    data.values().next().expect("one field").clone()
}

const PASSWORD: &str = "correct horse battery";

const SIGN_UP: &str = "mutation($email: String!, $password: String!) {
    signUp(input: { email: $email, password: $password, displayName: \"Ann\" }) {
        accessToken session { ipAddress userAgent } } }";

async fn sign_up(app: &App) -> Value {
    let variables = json!({ "email": "ann@example.com", "password": "correct horse battery" });
    mutate(app, None, SIGN_UP, &variables).await
}

#[tokio::test]
async fn a_token_is_good_until_its_session_is_signed_out() {
    let app = app().await;
    let payload = sign_up(&app).await;
    let session = json!({ "ipAddress": null, "userAgent": "XP for iOS" });
    assert_eq!(payload["session"], session, "without a connection nobody is believed");
    let token = payload["accessToken"].as_str().expect("a token");
    for _ in 0..2 {
        mutate(&app, Some(token), "{ me { id } }", &json!({})).await;
    }
    mutate(&app, Some(token), "mutation { signOut { session { id } } }", &json!({})).await;
    let request = with(post_of(QUERY), "authorization", &format!("Bearer {token}"));
    assert_eq!(rejection(&app, request).await, (401, "UNAUTHENTICATED".into()));
}

#[tokio::test]
async fn the_address_comes_from_the_connection_or_trusted_proxies() {
    for (trusted, wanted) in [("", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.9")] {
        let app = app_with(|config| {
            config.http.trusted_proxies = crate::config::setting::Setting::parse(trusted).expect("networks");
        })
        .await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(server::serve(app.clone(), listener, std::future::pending()));
        let variables = json!({ "email": "ann@example.com", "password": "correct horse battery" });
        let body = json!({ "query": SIGN_UP, "variables": variables }).to_string();
        let request = format!(
            "POST /graphql HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: 198.51.100.1, 203.0.113.9\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        assert!(answer.contains(&format!(r#""ipAddress":"{wanted}""#)), "{answer}");
        serving.abort();
    }
}

#[tokio::test]
async fn too_many_tries_say_when_the_next_one_is_worth_it() {
    let app = app().await;
    let wrong = || {
        post_of(
            r#"{"query": "mutation { signIn(input: { email: \"a@b\", password: \"wrong\" }) { userErrors { code } } }"}"#,
        )
    };
    for _ in 0..5 {
        let (_, headers, body) = send(&app, wrong()).await;
        assert_eq!(body["data"]["signIn"]["userErrors"][0]["code"], "INVALID_CREDENTIALS");
        assert_eq!(headers.get("retry-after"), None);
    }
    let (status, headers, body) = send(&app, wrong()).await;
    assert_eq!((status, &body["data"]), (200, &Value::Null));
    assert_eq!(body["errors"][0]["extensions"]["code"], "RATE_LIMITED");
    let seconds: u32 = headers["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=2).contains(&seconds), "{seconds}");
}

/// What mends a bad token must not be refused for it.
#[tokio::test]
async fn a_bad_token_counts_as_none_for_signing_in() {
    let app = app().await;
    let query = "mutation($p: String!) {
        signUp(input: { email: \"ann@example.com\", password: $p, displayName: \"Ann\" }) { accessToken refreshToken } }";
    let made = mutate(&app, None, query, &json!({ "p": PASSWORD })).await;
    let token = |payload: &Value, name: &str| payload[name].as_str().expect("a token").to_owned();
    let old = token(&made, "accessToken");
    let sign_in =
        "mutation($p: String!) { a: signIn(input: { email: \"ann@example.com\", password: $p }) { ...T } }
        fragment T on SignInPayload { accessToken refreshToken user { displayName } session { isCurrent } }";
    mutate(&app, Some(&old), "mutation { signOut { session { id } } }", &json!({})).await;
    for bad in [format!("Bearer {old}"), "Bearer x".into(), "Basic YTpi".into(), "x".into()] {
        let ask = |body: Value| with(post_of(body.to_string()), "authorization", &bad);
        let run = async |body: Value| send(&app, ask(body)).await;
        let (status, _, body) = run(json!({ "query": sign_in, "variables": { "p": PASSWORD } })).await;
        let payload = &body["data"]["a"];
        assert_eq!((status, &payload["user"]["displayName"]), (200, &json!("Ann")), "{bad}: {body}");
        assert_eq!(payload["session"]["isCurrent"], true, "who was let in reads");
        let refresh = "mutation($t: String!) { __typename ... { ...R } }
            fragment R on Mutation { refreshSession(input: { refreshToken: $t }) { accessToken } }";
        let variables = json!({ "t": token(payload, "refreshToken") });
        let (status, _, body) = run(json!({ "query": refresh, "variables": variables })).await;
        assert!(status == 200 && body["data"]["refreshSession"]["accessToken"].is_string(), "{bad}: {body}");
        // One of several operations, by a name.
        let several =
            format!("query Me {{ me {{ id }} }} {}", refresh.replacen("mutation(", "mutation Go(", 1));
        let named = |name: &str| json!({ "query": several, "operationName": name, "variables": variables });
        assert_eq!(run(named("Go")).await.0, 200);
        for other in [
            named("Me"),
            named("Nothing"),
            json!({ "query": "{ me { id } }" }),
            json!({ "query": "mutation { __typename }" }),
            json!({ "query": "mutation { signIn: signOut { session { id } } }" }),
            json!({ "query": format!("mutation($p: String!) {{ signOut {{ session {{ id }} }} {}", &sign_in[24..]), "variables": { "p": "x" } }),
            json!({ "query": "mutation { signIn(input: {}) { nothing } }" }),
            json!({ "query": "{" }),
            json!({ "query": 1 }),
            json!({}),
            json!([{ "query": sign_in, "variables": { "p": "x" } }]),
            json!({ "query": " ".repeat(300 << 10) }),
        ] {
            let said = other.to_string();
            let said = said.get(..200).unwrap_or(&said);
            assert_eq!(
                rejection(&app, ask(other.clone())).await,
                (401, "UNAUTHENTICATED".into()),
                "{bad}: {said}"
            );
            let stream = with(ask(other.clone()), "accept", "text/event-stream");
            assert_eq!(send(&app, stream).await.0, 401, "{bad}: {said}");
        }
        let by_get = with(get_of("/graphql?query=%7B__typename%7D"), "authorization", &bad);
        assert_eq!(rejection(&app, by_get).await, (401, "UNAUTHENTICATED".into()));
    }
}

/// Runs a mutation by the hash of a document, which a client registers when it is told to.
#[tokio::test]
async fn a_bad_token_is_mended_by_a_persisted_document_too() {
    let app = app().await;
    let sign_in = "mutation A { signIn(input: { email: \"a@b\", password: \"x\" }) { userErrors { code } } }";
    let ask = |text: Option<&str>, document: &str| {
        let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, document.as_bytes());
        let hash = hex::encode(sha256);
        let persisted = json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } });
        let body = json!({ "query": text, "extensions": persisted }).to_string();
        send(&app, with(post_of(body), "authorization", "Bearer x"))
    };
    let code = |body: &Value| body["errors"][0]["extensions"]["code"].as_str().unwrap_or("none").to_owned();
    for (document, wanted) in [(sign_in, (200, "none")), ("query B { me { id } }", (401, "UNAUTHENTICATED"))]
    {
        let (status, _, body) = ask(None, document).await;
        assert_eq!((status, code(&body).as_str()), (200, "PERSISTED_QUERY_NOT_FOUND"));
        for text in [Some(document), None] {
            let (status, _, body) = ask(text, document).await;
            assert_eq!((status, code(&body).as_str()), wanted, "{body}");
        }
    }
}

/// Bounds of one session's refreshes: a burst for many tabs, then one a second. The session goes on.
#[tokio::test]
async fn a_session_is_not_refreshed_without_end() {
    let app = app().await;
    let query = "mutation($p: String!) {
        signUp(input: { email: \"ann@example.com\", password: $p, displayName: \"Ann\" }) { refreshToken } }";
    let made = mutate(&app, None, query, &json!({ "p": PASSWORD })).await;
    let refresh = |token: &Value| {
        let query = "mutation($t: String!) { refreshSession(input: { refreshToken: $t }) { refreshToken } }";
        send(&app, post_of(json!({ "query": query, "variables": { "t": token } }).to_string()))
    };
    let mut token = made["refreshToken"].clone();
    let mut exchanges = 0;
    let limited = loop {
        let (_, headers, body) = refresh(&token).await;
        if body["errors"].is_array() {
            break (headers, body);
        }
        token = body["data"]["refreshSession"]["refreshToken"].clone();
        assert!(token.is_string(), "{body}");
        exchanges += 1;
        assert!(exchanges < 2_000, "there is no bound");
    };
    assert!(exchanges >= 40, "{exchanges} at once");
    assert_eq!(limited.1["errors"][0]["extensions"]["code"], "RATE_LIMITED");
    assert_eq!(limited.0["retry-after"], "1");
    sleep(Duration::from_millis(1_100)).await;
    assert!(refresh(&token).await.2["data"]["refreshSession"]["refreshToken"].is_string(), "it goes on");
}

/// Passwords of many accounts from many addresses, faster than they can be checked: nobody is counted out, the queue is
/// full.
#[tokio::test]
async fn too_many_sign_ins_are_refused_with_retry_after() {
    let app = app_with(|config| config.http.request_timeout = Duration::from_mins(1)).await;
    let tries = (0..80_u8).map(|index| {
        let query = format!("mutation {{ signIn(input: {{ email: \"a{index}@b\", password: \"wrong\" }}) {{ userErrors {{ code }} }} }}");
        let mut request = post_of(json!({ "query": query }).to_string());
        request.extensions_mut().insert(peer::Peer([10, 0, index, 1].into()));
        send(&app, request)
    });
    let (mut checked, mut refused) = (0, 0);
    for (status, headers, body) in futures_util::future::join_all(tries).await {
        assert_eq!(status, 200);
        if body["errors"].is_null() {
            assert_eq!(body["data"]["signIn"]["userErrors"][0]["code"], "INVALID_CREDENTIALS");
            checked += 1;
        } else {
            assert_eq!(body["errors"][0]["extensions"]["code"], "OVERLOADED", "{body}");
            assert!(
                ["1", "2"].map(|seconds| headers["retry-after"] == seconds).contains(&true),
                "{headers:?}"
            );
            refused += 1;
        }
    }
    assert!(checked > 0 && refused > 0, "{checked} were checked, {refused} refused");
}

/// An array would be many tries in one request.
#[tokio::test]
async fn arrays_cannot_sign_in_sign_up_or_refresh() {
    let app = app_with(|config| config.http.max_batch = 10).await;
    let bearer = format!("Bearer {}", token(&app, Role::Admin));
    let array = |queries: &[&str]| {
        let queries: Vec<_> = queries.iter().map(|query| json!({ "query": query })).collect();
        with(post_of(json!(queries).to_string()), "authorization", &bearer)
    };
    let sign_in =
        "mutation { signIn(input: { email: \"a@b\", password: \"wrong\" }) { userErrors { code } } }";
    let each = [
        sign_in,
        "mutation { ...In } fragment In on Mutation { x: signIn(input: { email: \"a@b\", password: \"x\" }) { userErrors { code } } }",
        "mutation { signUp(input: { email: \"a@b\", password: \"correct horse\", displayName: \"A\" }) { userErrors { code } } }",
        "mutation { refreshSession(input: { refreshToken: \"x\" }) { userErrors { code } } }",
        "{ __typename }",
        "mutation { revokeAllSessions(input: {}) { userErrors { code } } }",
    ];
    for queries in [&each[..], &[sign_in]] {
        let (status, _, body) = send(&app, array(queries)).await;
        let answers = body.as_array().expect("an answer to each").iter();
        let codes: Vec<_> =
            answers.map(|answer| answer["errors"][0]["extensions"]["code"].as_str()).collect();
        let refused = queries.len().min(4);
        assert_eq!(
            (status, &codes[..refused]),
            (200, &[Some("BAD_USER_INPUT")][..].repeat(refused)[..]),
            "{body}"
        );
        assert!(codes[refused..].iter().all(Option::is_none), "{body}");
    }
    assert_eq!(send(&app, post_of(json!({ "query": sign_in }).to_string())).await.2["errors"], Value::Null);
}

#[tokio::test]
async fn gateways_find_the_public_keys() {
    let app = app().await;
    let (status, headers, body) = send(&app, get_of("/.well-known/jwks.json")).await;
    assert_eq!(
        (status, &headers["content-type"]),
        (200, &HeaderValue::from_static("application/jwk-set+json"))
    );
    assert_eq!(headers["cache-control"], "public, max-age=60");
    let keys = body["keys"].as_array().expect("keys");
    assert_eq!((keys.len(), &keys[0]["alg"], keys[0].get("d")), (1, &json!("ES256"), None));
}
