//! Gateways: how they prove what they are, what is refused, and what they may do that others may not.

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::*;
use crate::{
    config::{
        setting::{DocumentMode, Secrets, Setting, Switch},
        signature_keys::SignatureKeys,
    },
    gateway::OwnListener,
};

const FIRST: &str = "the first secret that is being replaced";
const NEXT: &str = "the next secret that takes its place";
const SERVICE: &str = "{ _service { sdl } }";
const ME: &str = "mutation { recordLocations(input: { points: [] }) { acceptedCount } }";

async fn guarded_with(change: impl FnOnce(&mut Config)) -> App {
    app_with(|config| {
        config.gateway.required = Switch::On;
        config.gateway.secrets = Secrets::parse(&format!("{FIRST}, {NEXT}")).expect("secrets");
        config.gateway.hmac_secrets = Secrets::parse(NEXT).expect("a secret");
        let key = format!("main=hmac-sha256:{}", BASE64_STANDARD.encode(FIRST));
        config.gateway.signature_keys = SignatureKeys::parse(&key).expect("a key");
        change(config);
    })
    .await
}

async fn guarded() -> App {
    guarded_with(|_| {}).await
}

fn asking(query: &str) -> HttpRequest<Body> {
    post_of(json!({ "query": query }).to_string())
}

/// As a gateway would ask.
fn by_gateway(request: HttpRequest<Body>) -> HttpRequest<Body> {
    with(request, "router-authorization", NEXT)
}

fn hmac_of(secret: &str, message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    BASE64_STANDARD.encode(hmac::sign(&key, message.as_bytes()))
}

/// With the signature that Hive Gateway adds.
fn hive(mut body: Value, secret: &str) -> Value {
    let (query, variables) = (&body["query"], &body["variables"]);
    let signed = if variables.is_null() {
        json!({ "query": query })
    } else {
        json!({ "query": query, "variables": variables })
    };
    body["extensions"]["hmac-signature"] = json!(hmac_of(secret, &signed.to_string()));
    body
}

/// A request that is signed as RFC 9421 has it.
fn signed(body: &str, age_seconds: i64) -> HttpRequest<Body> {
    signed_over(body.as_bytes().to_vec(), body.as_bytes(), age_seconds)
}

/// A signed request with the digest of these bytes.
fn signed_over(body: Vec<u8>, digested: &[u8], age_seconds: i64) -> HttpRequest<Body> {
    let content_digest = format!("sha-256=:{}:", BASE64_STANDARD.encode(digest(&SHA256, digested)));
    let created = entities::clock::now().timestamp() - age_seconds;
    let parameters = format!("(\"@method\" \"@path\" \"content-digest\");created={created};keyid=\"main\"");
    let base = format!(
        "\"@method\": POST\n\"@path\": /graphql\n\"content-digest\": {content_digest}\n\"@signature-params\": {parameters}"
    );
    let request = with(post_of(body), "content-digest", &content_digest);
    let request = with(request, "signature-input", &format!("sig={parameters}"));
    with(request, "signature", &format!("sig=:{}:", hmac_of(FIRST, &base)))
}

fn from_own_listener(mut request: HttpRequest<Body>) -> HttpRequest<Body> {
    request.extensions_mut().insert(OwnListener);
    request
}

/// Status, and `ok` or the code of the first error.
async fn outcome(app: &App, request: HttpRequest<Body>) -> (u16, String) {
    let (status, _, body) = send(app, request).await;
    let code = body["errors"][0]["extensions"]["code"].as_str().unwrap_or("ok").to_owned();
    (status, code)
}

fn fine() -> (u16, String) {
    (200, "ok".to_owned())
}

#[tokio::test]
async fn to_strangers_the_federations_fields_do_not_exist() {
    let app = guarded().await;
    let entities = "query($r: [_Any!]!) { _entities(representations: $r) { __typename } }";
    for (field, query) in [
        ("_service", SERVICE),
        ("_service", "{ _service { nonsense } }"),
        ("_service", "{ ...A } fragment A on Query { _service { sdl } }"),
        ("_entities", entities),
    ] {
        let (status, _, body) = send(&app, asking(query)).await;
        let absent = send(&app, asking("{ _nothing { sdl } }")).await.2;
        let words = absent["errors"][0]["message"].as_str().expect("text").replace("_nothing", field);
        assert_eq!((status, &body["errors"][0]["message"]), (200, &json!(words)), "{query}");
        // Each has its request's id, and nothing else.
        for body in [&body, &absent] {
            let extensions = body["errors"][0]["extensions"].as_object().expect("an object");
            assert_eq!(extensions["code"], "GRAPHQL_VALIDATION_FAILED");
            assert_eq!(extensions.keys().collect::<Vec<_>>(), ["code", "requestId"]);
        }
        assert_eq!(body.get("data"), None);
    }
    for query in ["{ __schema { types { name } } }", "{ __type(name: \"User\") { name } }"] {
        assert_eq!(outcome(&app, asking(query)).await, (200, "INTROSPECTION_DISABLED".into()), "{query}");
        assert_eq!(outcome(&app, by_gateway(asking(query))).await, fine(), "{query}");
    }
    assert_eq!(send(&app, get_of("/schema.graphql")).await.0, 404);
    assert_eq!(send(&app, by_gateway(get_of("/schema.graphql"))).await.0, 200);
    let open = guarded_with(|config| config.gateway.required = Switch::Off).await;
    for query in [SERVICE, "{ __type(name: \"User\") { name } }"] {
        assert_eq!(outcome(&open, asking(query)).await, fine(), "{query}");
    }
    assert_eq!(send(&open, get_of("/schema.graphql")).await.0, 200);
}

#[tokio::test]
async fn gateway_only_answers_are_not_cached_for_others() {
    let app = guarded().await;
    let open = guarded_with(|config| config.gateway.required = Switch::Off).await;
    for path in
        ["/graphql?query=%7B_service%7Bsdl%7D%7D", "/graphql?query=%7B__schema%7Btypes%7Bname%7D%7D%7D"]
    {
        let (status, headers, _) = send(&app, by_gateway(get_of(path))).await;
        assert_eq!(
            (status, &headers["cache-control"]),
            (200, &HeaderValue::from_static("max-age=60, private"))
        );
        let (_, headers, _) = send(&open, by_gateway(get_of(path))).await;
        assert_eq!(headers["cache-control"], "max-age=60, public", "everybody may");
    }
}

#[tokio::test]
async fn in_production_that_is_so_unless_it_is_said_otherwise() {
    let production = app_of(None, |_| {}, |store, _| store).await;
    assert_eq!(outcome(&production, asking(SERVICE)).await, (200, "GRAPHQL_VALIDATION_FAILED".into()));
    let open = app_of(None, |config| config.gateway.required = Switch::Off, |store, _| store).await;
    assert_eq!(outcome(&open, asking(SERVICE)).await, fine());
    assert_eq!(outcome(&app().await, asking(SERVICE)).await, fine(), "development");
}

#[tokio::test]
async fn documents_prepared_for_gateways_stay_gateway_only() {
    let app = guarded().await;
    let hash = hex::encode(digest(&SHA256, SERVICE.as_bytes()));
    let persisted = |query: Option<&str>| {
        let extensions = json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } });
        post_of(json!({ "query": query, "extensions": extensions }).to_string())
    };
    assert_eq!(outcome(&app, by_gateway(persisted(Some(SERVICE)))).await, fine());
    assert_eq!(outcome(&app, by_gateway(persisted(None))).await, fine());
    for request in [persisted(None), persisted(Some(SERVICE)), asking(SERVICE)] {
        assert_eq!(outcome(&app, request).await, (200, "GRAPHQL_VALIDATION_FAILED".into()));
    }
}

#[tokio::test]
async fn a_gateway_proves_itself_in_any_of_four_ways() {
    let app = guarded().await;
    let text = json!({ "query": SERVICE }).to_string();
    assert_eq!(outcome(&app, asking(SERVICE)).await, (200, "GRAPHQL_VALIDATION_FAILED".into()));
    for secret in [FIRST, NEXT] {
        assert_eq!(outcome(&app, with(asking(SERVICE), "router-authorization", secret)).await, fine());
    }
    assert_eq!(outcome(&app, from_own_listener(asking(SERVICE))).await, fine());
    assert_eq!(outcome(&app, signed(&text, 0)).await, fine());
    assert_eq!(outcome(&app, post_of(hive(json!({ "query": SERVICE }), NEXT).to_string())).await, fine());
    let hash = hex::encode(digest(&SHA256, SERVICE.as_bytes()));
    let registering = json!({ "query": SERVICE,
        "extensions": { "persistedQuery": { "version": 1, "sha256Hash": hash } } });
    assert_eq!(outcome(&app, post_of(hive(registering, NEXT).to_string())).await, fine());
    let variables = json!({ "query": "query($r: [_Any!]!) { _entities(representations: $r) { __typename } }",
        "variables": { "r": [{ "id": "0190aaaa-0000-7000-8000-000000000000", "__typename": "User" }] } });
    assert_eq!(outcome(&app, post_of(hive(variables, NEXT).to_string())).await, fine());
    let get = with(get_of("/graphql?query=%7B_service%7Bsdl%7D%7D"), "router-authorization", FIRST);
    assert_eq!(outcome(&app, get).await, fine());
}

#[tokio::test]
async fn the_digest_is_of_the_bytes_as_they_were_sent() {
    let app = guarded().await;
    let text = json!({ "query": SERVICE }).to_string();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, text.as_bytes()).expect("written");
    let sent = encoder.finish().expect("ended");
    let request = |digested: &[u8]| with(signed_over(sent.clone(), digested, 0), "content-encoding", "gzip");
    assert_eq!(outcome(&app, request(&sent)).await, fine());
    assert_eq!(outcome(&app, request(text.as_bytes())).await, (401, "UNAUTHENTICATED".into()), "inflated");
}

#[tokio::test]
async fn what_proves_nothing_is_refused() {
    let app = guarded().await;
    let text = json!({ "query": SERVICE }).to_string();
    let refused = (401, "UNAUTHENTICATED".to_owned());
    for secret in ["", "the first secret", &FIRST.to_uppercase()] {
        assert_eq!(
            outcome(&app, with(asking(SERVICE), "router-authorization", secret)).await,
            refused,
            "{secret}"
        );
    }
    let mut twice = with(asking(SERVICE), "router-authorization", FIRST);
    twice.headers_mut().append("router-authorization", HeaderValue::from_static("another"));
    assert_eq!(outcome(&app, twice).await, refused);

    assert_eq!(outcome(&app, signed(&text, 120)).await, refused, "replayed later");
    let mut altered = signed(&text, 0);
    *altered.body_mut() = Body::from(json!({ "query": "{ _service { sdl } me { id } }" }).to_string());
    assert_eq!(outcome(&app, altered).await, refused, "another body");
    let mut elsewhere = signed(&text, 0);
    *elsewhere.uri_mut() = "/graphql/0123456789abcdef0123456789abcdef".parse().expect("a path");
    assert_eq!(outcome(&app, elsewhere).await, refused, "another path");
    let unsigned = with(asking(SERVICE), "signature-input", "sig=(\"@method\");created=1;keyid=\"main\"");
    assert_eq!(outcome(&app, unsigned).await, refused);

    let good = hive(json!({ "query": SERVICE }), NEXT);
    let signature = &good["extensions"]["hmac-signature"];
    for forged in [
        hive(json!({ "query": SERVICE }), FIRST),
        json!({ "query": "{ _service { sdl } me { id } }", "extensions": { "hmac-signature": signature } }),
        json!({ "query": SERVICE, "variables": { "a": 1 }, "extensions": { "hmac-signature": signature } }),
        json!({ "query": SERVICE, "documentId": "another", "extensions": { "hmac-signature": signature } }),
        json!({ "query": SERVICE, "doc_id": "another", "extensions": { "hmac-signature": signature } }),
        json!({ "query": SERVICE, "id": "another", "extensions": { "hmac-signature": signature } }),
        json!({ "query": SERVICE, "extensions": { "hmac-signature": signature,
            "persistedQuery": { "version": 1, "sha256Hash": "another" } } }),
        json!({ "documentId": "another", "extensions": { "hmac-signature": signature } }),
        json!({ "query": SERVICE, "extensions": { "hmac-signature": 1 } }),
    ] {
        assert_eq!(outcome(&app, post_of(forged.to_string())).await, refused, "{forged}");
    }
    let by_id = with(post_of(good.to_string()), "accept", "application/json");
    let (mut parts, body) = by_id.into_parts();
    parts.uri = "/graphql/another".parse().expect("a path");
    assert_eq!(outcome(&app, HttpRequest::from_parts(parts, body)).await, refused, "a document by its id");

    // Nobody is known to this one: it takes none of these for a proof, and none for an attack.
    let open = app_with(|config| config.gateway.required = Switch::On).await;
    for request in [by_gateway(asking(SERVICE)), signed(&text, 0), post_of(good.to_string())] {
        assert_eq!(outcome(&open, request).await, (200, "GRAPHQL_VALIDATION_FAILED".into()));
    }
}

fn claims(app: &App, change: impl FnOnce(&mut Value)) -> Value {
    let claims = app.access.tokens().claims(&token(app, Role::Admin)).expect("a good token");
    let mut claims = serde_json::to_value(claims).expect("JSON");
    change(&mut claims);
    claims
}

#[tokio::test]
async fn claims_are_nobodys_word_unless_the_operator_says_so() {
    let app = guarded().await;
    let body = json!({ "query": ME, "extensions": { "jwt": claims(&app, |_| {}) } }).to_string();
    for request in
        [by_gateway(post_of(body.clone())), from_own_listener(post_of(body.clone())), signed(&body, 0)]
    {
        assert_eq!(
            outcome(&app, request).await,
            (200, "UNAUTHENTICATED".into()),
            "a client may have written them"
        );
    }
}

#[tokio::test]
async fn claims_are_trusted_only_in_fully_signed_requests() {
    let app = guarded_with(|config| config.gateway.claims = true).await;
    let body = |claims: Value| json!({ "query": ME, "extensions": { "jwt": claims } });
    let good = claims(&app, |_| {});
    let as_hive = json!({ "payload": good, "token": { "prefix": "Bearer", "value": "x" } });
    for claims in [good.clone(), as_hive] {
        let text = body(claims).to_string();
        for request in
            [by_gateway(post_of(text.clone())), from_own_listener(post_of(text.clone())), signed(&text, 0)]
        {
            let (status, code) = outcome(&app, request).await;
            assert!(status == 200 && code != "UNAUTHENTICATED", "{code}");
        }
        let (_, _, stranger) = send(&app, post_of(text)).await;
        assert_eq!(stranger["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{stranger}");
    }
    let (_, _, by_hmac) = send(&app, post_of(hive(body(good.clone()), NEXT).to_string())).await;
    assert_eq!(by_hmac["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "the HMAC covers no claims");

    let now = entities::clock::now().timestamp();
    for (what, claims) in [
        ("expired", claims(&app, |claims| claims["exp"] = json!(now - 10))),
        ("not yet good", claims(&app, |claims| claims["nbf"] = json!(now + 60))),
        ("longer than a token", claims(&app, |claims| claims["exp"] = json!(now + 2 * 86_400))),
        (
            "longer than a token of a session",
            claims(&app, |claims| {
                claims["sid"] = json!("0190aaaa-0000-7000-8000-000000000000");
                claims["exp"] = json!(now + 600);
            }),
        ),
        ("another issuer", claims(&app, |claims| claims["iss"] = json!("x"))),
        ("another audience", claims(&app, |claims| claims["aud"] = json!("x"))),
        ("no role", claims(&app, |claims| drop(claims.as_object_mut().expect("claims").remove("role")))),
        ("a role that is none", claims(&app, |claims| claims["role"] = json!("GOD"))),
        ("no claims", json!("ADMIN")),
    ] {
        let (status, _, answer) = send(&app, by_gateway(post_of(body(claims).to_string()))).await;
        assert_eq!((status, answer.get("data")), (200, None), "{what}");
        assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{what}");
    }
    // A token beside them is whose request it is.
    let request = with(post_of(body(good.clone()).to_string()), "authorization", "Bearer nonsense");
    assert_eq!(outcome(&app, by_gateway(request)).await, (200, "UNAUTHENTICATED".into()));
    let two = json!([body(good), body(claims(&app, |claims| claims["jti"] = json!("other")))]);
    assert_eq!(outcome(&app, by_gateway(post_of(two.to_string()))).await, (200, "UNAUTHENTICATED".into()));
}

#[tokio::test]
async fn a_gateway_gets_bad_tokens_as_graphql_errors() {
    let app = guarded().await;
    let bad = |request| with(request, "authorization", "Bearer nonsense");
    assert_eq!(outcome(&app, bad(asking(QUERY))).await, (401, "UNAUTHENTICATED".into()));
    assert_eq!(outcome(&app, by_gateway(bad(asking(QUERY)))).await, (200, "UNAUTHENTICATED".into()));
    let by_hmac = bad(post_of(hive(json!({ "query": SERVICE }), NEXT).to_string()));
    assert_eq!(outcome(&app, by_hmac).await, (200, "UNAUTHENTICATED".into()));
}

#[tokio::test]
async fn a_gateway_may_send_more() {
    let app = guarded_with(|config| config.documents.mode = DocumentMode::RequireId).await;
    assert_eq!(outcome(&app, asking("{ __typename }")).await, (400, "PERSISTED_QUERY_ID_REQUIRED".into()));
    assert_eq!(outcome(&app, by_gateway(asking("{ __typename }"))).await, fine());

    // Fewer than by default: no document of one token a field has so many without too many fields.
    let app = guarded_with(|config| config.gateway.max_tokens = 9_000).await;
    let long =
        |tokens: usize| format!("{{ users(first: 1) {{ nodes {{ {} }} }} }}", "id ".repeat(tokens - 13));
    for (tokens, stranger, gateway) in [
        (2_000, "ok", "ok"),
        (2_001, "COST_LIMIT", "ok"),
        (9_000, "COST_LIMIT", "ok"),
        (9_001, "COST_LIMIT", "COST_LIMIT"),
    ] {
        assert_eq!(outcome(&app, by_gateway(asking(&long(tokens)))).await.1, gateway, "{tokens}");
        assert_eq!(outcome(&app, asking(&long(tokens))).await.1, stranger, "{tokens}, after the gateway");
    }
    // What a gateway joins by alias, as Hive Router does: 40 references of different selections.
    let representations = "(representations: [{ __typename: \"User\", id: \"x\" }])";
    let joined = |count: usize| {
        let field = |index| format!("e{index}: _entities{representations} {{ ... on User {{ id }} }}");
        format!("{{ {} }}", (0..count).map(field).collect::<Vec<_>>().join(" "))
    };
    let nested = |depth: usize| {
        let open = "owner { forms(first: 1) { nodes { ".repeat((depth - 3) / 3);
        format!("{{ forms(first: 1) {{ nodes {{ {open} id {} }} }} }}", "} } } ".repeat((depth - 3) / 3))
    };
    assert_eq!(outcome(&app, by_gateway(asking(&joined(40)))).await.1, "BAD_USER_INPUT", "the ids are wrong");
    assert_eq!(outcome(&app, by_gateway(asking(&joined(201)))).await.1, "COST_LIMIT");
    for (depth, stranger, gateway) in
        [(12, "ok", "ok"), (15, "DEPTH_LIMIT", "ok"), (18, "DEPTH_LIMIT", "DEPTH_LIMIT")]
    {
        assert_eq!(outcome(&app, by_gateway(asking(&nested(depth)))).await.1, gateway, "{depth}");
        assert_eq!(outcome(&app, asking(&nested(depth))).await.1, stranger, "{depth}, after the gateway");
    }
    let array =
        |length: usize| post_of(json!(vec![json!({ "query": "{ __typename }" }); length]).to_string());
    assert_eq!(outcome(&app, array(2)).await, (400, "BAD_USER_INPUT".into()));
    assert_eq!(outcome(&app, by_gateway(array(10))).await, fine());
    assert_eq!(outcome(&app, by_gateway(array(11))).await, (400, "BAD_USER_INPUT".into()));
    let signed_array = |secret: [&str; 2]| {
        post_of(json!(secret.map(|secret| hive(json!({ "query": "{ __typename }" }), secret))).to_string())
    };
    assert_eq!(outcome(&app, signed_array([NEXT, NEXT])).await, fine());
    assert_eq!(outcome(&app, signed_array([NEXT, FIRST])).await, (401, "UNAUTHENTICATED".into()));

    let large = |bytes: usize| {
        post_of(json!({ "query": "{ __typename }", "variables": { "a": "x".repeat(bytes) } }).to_string())
    };
    assert_eq!(outcome(&app, large(300 << 10)).await, (413, "PAYLOAD_TOO_LARGE".into()));
    assert_eq!(outcome(&app, by_gateway(large(300 << 10))).await, fine());
    assert_eq!(outcome(&app, by_gateway(large(3 << 20))).await, (413, "PAYLOAD_TOO_LARGE".into()));
}

#[tokio::test]
async fn a_rate_is_the_callers_and_not_the_gateways() {
    let app =
        guarded_with(|config| (config.http.rate_per_second, config.http.rate_burst) = (Some(1), 1)).await;
    assert_eq!(outcome(&app, asking("{ __typename }")).await, fine());
    assert_eq!(outcome(&app, asking("{ __typename }")).await, (429, "RATE_LIMITED".into()));
    for _ in 0..5 {
        assert_eq!(outcome(&app, by_gateway(asking("{ __typename }"))).await, fine());
    }
    let ann = format!("Bearer {}", token(&app, Role::Viewer));
    let as_ann = || by_gateway(with(asking("{ __typename }"), "authorization", &ann));
    assert_eq!(outcome(&app, as_ann()).await, fine());
    assert_eq!(outcome(&app, as_ann()).await, (429, "RATE_LIMITED".into()));
}

/// The tries of one user of a gateway must not keep all others from signing in.
#[tokio::test]
async fn sign_ins_through_a_gateway_count_for_whom_it_names_or_for_the_account() {
    let sign_in = |email: &str, client: Option<&str>| {
        let query = "mutation($e: String!) { signIn(input: { email: $e, password: \"wrong horse\" }) { userErrors { code } } }";
        let mut request =
            by_gateway(post_of(json!({ "query": query, "variables": { "e": email } }).to_string()));
        request.extensions_mut().insert(peer::Peer([127, 0, 0, 1].into()));
        match client {
            Some(client) => with(request, "x-forwarded-for", client),
            None => request,
        }
    };
    let email = |index: usize| format!("{index}@example.com");
    let limited = (200, "RATE_LIMITED".to_owned());
    for proxies in ["", "127.0.0.0/8"] {
        let app = guarded_with(|config| {
            config.http.trusted_proxies = Setting::parse(proxies).expect("networks");
            (config.auth.password_memory.0, config.auth.password_passes) = (64 << 10, 1);
        })
        .await;
        // Nobody is named: 25 accounts at once, where one address has 20 tries.
        for index in 0..25 {
            assert_eq!(outcome(&app, sign_in(&email(index), None)).await, fine(), "{proxies} {index}");
        }
        // An account has its own bound all the same.
        for _ in 1..5 {
            assert_eq!(outcome(&app, sign_in(&email(0), None)).await, fine());
        }
        assert_eq!(outcome(&app, sign_in(&email(0), None)).await, limited);
        // A client that is named has a bound of its own, where that is believed.
        for index in 30..50 {
            assert_eq!(outcome(&app, sign_in(&email(index), Some("203.0.113.9"))).await, fine());
        }
        let one_more = outcome(&app, sign_in(&email(50), Some("203.0.113.9"))).await;
        assert_eq!(one_more, if proxies.is_empty() { fine() } else { limited.clone() });
        assert_eq!(outcome(&app, sign_in(&email(51), Some("198.51.100.1"))).await, fine());
    }
}

#[tokio::test]
async fn a_session_through_a_gateway_has_the_address_of_its_client_or_none() {
    let app = guarded_with(|config| {
        config.http.trusted_proxies = Setting::parse("127.0.0.0/8").expect("networks");
    })
    .await;
    let sign_up = "mutation($e: String!) { signUp(input: { email: $e, password: \"correct horse battery\",
        displayName: \"Ann\" }) { session { ipAddress userAgent } } }";
    for (email, client, address, agent, device) in [
        ("a@example.com", Some("203.0.113.9"), json!("203.0.113.9"), "Phone", json!("Phone")),
        ("b@example.com", None, Value::Null, "", Value::Null),
    ] {
        let body = json!({ "query": sign_up, "variables": { "e": email } });
        let mut request = with(by_gateway(post_of(body.to_string())), "user-agent", agent);
        request.extensions_mut().insert(peer::Peer([127, 0, 0, 1].into()));
        let request = match client {
            Some(client) => with(request, "x-forwarded-for", client),
            None => request,
        };
        let session = &send(&app, request).await.2["data"]["signUp"]["session"];
        assert_eq!(*session, json!({ "ipAddress": address, "userAgent": device }));
    }
}

#[tokio::test]
async fn answers_to_gateways_are_compressed_cheaply_or_not_at_all() {
    for (setting, accepted, coding, to_others) in [
        ("cheapest", "gzip, br, zstd", Some("zstd"), Some("br")),
        ("cheapest", "gzip, br", Some("gzip"), Some("br")),
        ("cheapest", "gzip;q=0.5, br", Some("br"), Some("br")),
        ("cheapest", "br", Some("br"), Some("br")),
        ("smallest", "gzip, br, zstd", Some("br"), Some("br")),
        ("off", "gzip, br, zstd", None, Some("br")),
        ("off", "gzip, br, identity;q=0", Some("gzip"), Some("br")),
    ] {
        let app = guarded_with(|config| {
            config.gateway.required = Switch::Off;
            config.gateway.compression = Setting::parse(setting).expect("a setting");
        })
        .await;
        let ask = || with(asking(SERVICE), "accept-encoding", accepted);
        let read = || with(get_of("/schema.graphql"), "accept-encoding", accepted);
        for (request, coding) in [
            (by_gateway(ask()), coding),
            (ask(), to_others),
            (by_gateway(read()), coding),
            (read(), to_others),
        ] {
            let (status, headers, _) = send(&app, request).await;
            assert_eq!(status, 200);
            assert_eq!(headers.get("content-encoding").map(text), coding, "{setting} {accepted}");
        }
    }
}

#[tokio::test]
async fn whoever_comes_to_the_listener_for_gateways_is_one() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let app = guarded_with(|config| config.gateway.address = Some(address)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let main = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server::serve(app, listener, async move { drop(stopped.await) }));
    let ask = async |address: std::net::SocketAddr| {
        let body = json!({ "query": SERVICE }).to_string();
        let request = format!(
            "POST /graphql HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        };
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    };
    assert!(ask(address).await.contains("\"sdl\":"));
    let stranger = ask(main).await;
    assert!(stranger.contains("Cannot query field"), "{stranger}");
    stop.send(()).expect("it serves");
    assert_eq!(serving.await.expect("no panic").expect("served"), 0);
    assert!(TcpStream::connect(address).await.is_err(), "it ends with the other");
}

#[tokio::test]
async fn gateways_get_entity_cache_tags_on_request() {
    let id = "0190aaaa-0000-7000-8000-000000000000";
    let ask = || {
        let representations = json!([{ "__typename": "User", "id": id }, { "__typename": "Nothing" },
            { "__typename": "User", "email": "ann@example.com" }]);
        let query = "query($r: [_Any!]!) { _entities(representations: $r) { __typename } }";
        by_gateway(post_of(json!({ "query": query, "variables": { "r": representations } }).to_string()))
    };
    let app = guarded_with(|config| config.gateway.cache_tags = true).await;
    let (_, headers, body) = send(&app, ask()).await;
    let tags = json!([[format!("User:{id}")], [], ["User"]]);
    assert_eq!(body["extensions"]["apolloEntityCacheTags"], tags, "{body}");
    assert_eq!(headers["cache-control"], "no-store", "an answer with errors is for this once");
    let (_, _, plain) = send(&app, by_gateway(asking("{ __typename }"))).await;
    assert_eq!(plain.get("extensions"), None, "it depends on nothing");
    let users = || asking("{ users(first: 1) { nodes { id } } }");
    let (_, headers, whole) = send(&app, by_gateway(users())).await;
    assert_eq!(headers["cache-control"], "max-age=60, private", "all that it is made of has tags");
    assert_eq!(send(&app, users()).await.1["cache-control"], "no-store", "others are told no tags");
    let untold = by_gateway(asking("{ activityLogs(first: 1) { nodes { id } } }"));
    assert_eq!(send(&app, untold).await.1["cache-control"], "no-store", "no tag covers it");
    assert_eq!(whole["extensions"]["apolloCacheTags"], json!(["User"]), "{whole}");
    let (_, _, body) = send(&guarded().await, ask()).await;
    assert_eq!(body.get("extensions"), None, "not wanted");
}
