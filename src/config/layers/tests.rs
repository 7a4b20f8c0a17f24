//! The layers, from defaults to flags, and what is said when they are wrong.

use std::time::Duration;

use tempfile::{TempDir, tempdir};

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Inputs {
    let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    Inputs { environment: pairs.iter().map(own).collect(), ..Inputs::nothing(Mode::Tool) }
}

/// A folder with this file, removed at the end.
fn folder_with(name: &str, text: &str) -> TempDir {
    let folder = tempdir().expect("a folder");
    std::fs::write(folder.path().join(name), text).expect("written");
    folder
}

#[test]
fn the_defaults_are_valid_and_documented() {
    let loaded = load(&Inputs::nothing(Mode::Tool)).expect("the defaults are valid");
    assert_eq!(loaded.config.http.port, 8080);
    assert_eq!(loaded.config.http.request_timeout, Duration::from_secs(2));
    assert_eq!(loaded.config.graph.limits(), schema::Limits::default());
    assert_eq!(loaded.entries.len(), KEYS.len());
    assert!(KEYS.iter().all(|key| key.doc.trim().ends_with('.')));
}

#[test]
fn later_layers_win() {
    let directory = folder_with("xp.toml", "[http]\nport = 1\nhost = \"h\"\nbody_timeout = \"3s\"\n");
    let mut inputs = environment(&[("PORT", "2"), ("HOST", "")]);
    inputs.directory = Some(directory.path().to_owned());
    let loaded = load(&inputs).expect("valid");
    assert_eq!((loaded.config.http.port, loaded.config.http.host.as_str()), (2, "h"));
    let source = |name| loaded.entries.iter().find(|e| e.key.name == name).map(|e| e.source.clone());
    assert_eq!(source("http.body_timeout"), Some(Source::File(directory.path().join("xp.toml"), 4)));
    inputs.flags = vec![("http.port".into(), "3".into(), "--port".into())];
    assert_eq!(load(&inputs).expect("valid").config.http.port, 3);
}

#[test]
fn an_old_name_is_read_with_a_warning_that_names_the_new_one() {
    let directory = tempdir().expect("a folder");
    let path = directory.path();
    let write = |text: &str| std::fs::write(path.join("xp.toml"), text).expect("written");
    let load_with = |pairs: &[(&str, &str)], flags: &[&str]| {
        let flags = flags.iter().map(|value| ("graph.max_filler".into(), (*value).into(), "--set".into()));
        let inputs =
            Inputs { directory: Some(path.to_owned()), flags: flags.collect(), ..environment(pairs) };
        let loaded = load(&inputs).expect("valid");
        let warnings: Vec<_> = loaded.renamed.iter().map(|problem| problem.fix.clone()).collect();
        (loaded.config.graph.max_ignored_bytes, warnings)
    };
    write("[graph]\nmax_filler = 1\n");
    assert_eq!(load_with(&[], &[]), (1, vec!["rename it to graph.max_ignored_bytes".to_owned()]));
    let old = [("XP_GRAPH_MAX_FILLER", "2")];
    let (value, warnings) = load_with(&old, &[]);
    assert_eq!((value, warnings.len()), (2, 2));
    assert_eq!(warnings[1], "rename it to XP_GRAPH_MAX_IGNORED_BYTES");
    assert_eq!(load_with(&old, &["3"]).0, 3);
    write("[graph]\nmax_filler = 1\nmax_ignored_bytes = 4\n");
    assert_eq!(load_with(&[], &[]).0, 4, "the new name wins within a layer");
    write("[graph]\nmax_ignored_bytes = 5\nmax_filler = 1\n");
    assert_eq!(load_with(&[], &[]).0, 5, "in whatever order they stand");
    write("");
    assert_eq!(load_with(&[("XP_GRAPH_MAX_IGNORED_BYTES", "6")], &[]), (6, vec![]));
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let directory = folder_with("xp.toml", "[http]\nprot = 1\n[htpp]\nport = 1\n[auth]\nissuer = []\n");
    let mut inputs = environment(&[("PORT", "many"), ("XP_HTTP_BODY_TIMEOT", "1s"), ("XP_HTTP_PROT", "1")]);
    inputs.directory = Some(directory.path().to_owned());
    inputs.mode = Mode::Production;
    let Invalid(problems) = load(&inputs).expect_err("invalid");
    let text = Invalid(problems.clone()).to_string();
    for part in [
        "xp.toml:2",
        "did you mean `http.port`?",
        "auth.issuer must be a single value",
        "environment PORT",
        "did you mean `XP_HTTP_BODY_TIMEOUT`?",
        "did you mean `PORT`?",
        "database.url is not set",
        "auth.secret is not set",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert_eq!(problems.len(), 8, "{text}");
}

#[test]
fn a_secret_is_read_from_its_file_and_never_shown() {
    let folder = folder_with("url", "postgres://ann:s3cret@db/xp\n");
    let path = folder.path().join("url");
    let loaded = load(&environment(&[("DATABASE_URL_FILE", path.to_str().expect("UTF-8"))])).expect("valid");
    assert_eq!(
        loaded.config.database.url.as_ref().map(super::super::DatabaseUrl::expose),
        Some("postgres://ann:s3cret@db/xp")
    );
    assert!(!format!("{:?}", loaded.config).contains("s3cret"));
    for printed in [super::super::print::text(&loaded), super::super::print::json(&loaded).to_string()] {
        assert!(printed.contains("postgres://ann:***@db/xp") && !printed.contains("s3cret"), "{printed}");
    }
    let wrong =
        load(&environment(&[("DATABASE_URL", "mysql://ann:s3cret@db/xp")])).expect_err("unknown scheme");
    assert!(!wrong.to_string().contains("s3cret"), "{wrong}");
}

#[test]
fn the_router_is_at_an_address_without_an_account() {
    let load_with = |url| load(&environment(&[("XP_GATEWAY_INVALIDATION_URL", url)]));
    for url in ["http://router:3000/invalidation", "https://router"] {
        assert!(load_with(url).is_ok(), "{url}");
    }
    for url in
        ["router:3000", "/invalidation", "ftp://router/", "http://ann:s3cret@router/", "nonsense\u{7f}"]
    {
        let text = load_with(url).expect_err(url).to_string();
        assert!(text.contains("gateway.invalidation_url") && !text.contains("s3cret"), "{text}");
    }
}

#[test]
fn hive_has_an_address_without_an_account_and_a_token_that_fits() {
    const REGISTRY: &str = "0123456789abcdef0123456789abcdef";
    const ACCESS: &str = "hvo1/0123456789abcdef0123456789abcdef";
    let load_with = |endpoint: &str, token: &str, target: &str| {
        let given = [
            ("XP_TELEMETRY_HIVE_ENDPOINT", endpoint),
            ("XP_TELEMETRY_HIVE_TOKEN", token),
            ("XP_TELEMETRY_HIVE_TARGET", target),
        ];
        load(&environment(&given.into_iter().filter(|(_, text)| !text.is_empty()).collect::<Vec<_>>()))
    };
    let usual = "https://app.graphql-hive.com/usage";
    for (endpoint, token, target, address) in [
        (usual, REGISTRY, "", usual.to_owned()),
        (usual, ACCESS, "acme/shop/production", format!("{usual}/acme/shop/production")),
        ("http://hive:8081/", ACCESS, "0190aaaa-0000", "http://hive:8081/0190aaaa-0000".to_owned()),
    ] {
        let config = load_with(endpoint, token, target).expect(endpoint).config;
        assert_eq!(config.telemetry.hive_address().map(|uri| uri.to_string()), Some(address));
    }
    for (endpoint, token, target, named) in [
        ("ftp://hive/usage", REGISTRY, "", "hive_endpoint"),
        ("http://ann:s3cret@hive/usage", REGISTRY, "", "hive_endpoint"),
        ("http://hive/usage?key=s3cret", REGISTRY, "", "hive_endpoint"),
        (usual, ACCESS, "acme/../other?", "hive_target"),
        (usual, ACCESS, "acme//other", "hive_target"),
        (usual, ACCESS, "acme/other", "hive_target"),
        (usual, REGISTRY, "acme/shop/production", "is a registry token"),
        (usual, "", "", "hive_token is not"),
        (usual, "0123456789abcdef\n0123456789abcdef", "", "no header can have"),
        (usual, ACCESS, "", "hive_target is not set"),
    ] {
        let text = load_with(endpoint, token, target).expect_err(endpoint).to_string();
        assert!(text.contains(named) && !text.contains("s3cret") && !text.contains("0123456789"), "{text}");
    }
}

#[test]
fn no_address_is_shown_with_its_account() {
    let given = [
        ("REDIS_URL", "redis://cache/?password=s3cret"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://ann:s3cret@collector:4318/?api-key=s3cret"),
        ("XP_GATEWAY_INVALIDATION_URL", "http://router:3000/invalidation?token=s3cret"),
        ("XP_GATEWAY_CALLBACK_ORIGINS", "http://router:4000, http://ann:s3cret@router:4001"),
        ("XP_HTTP_CORS_ORIGINS", "http://ann:s3cret@page"),
        ("DATABASE_URL", "postgres://ann@db/xp?password=s3cret"),
    ];
    for given in given {
        // Whatever is said of it, as a value or as a mistake.
        let said = match load(&environment(&[given])) {
            Ok(loaded) => {
                let printed =
                    super::super::print::text(&loaded) + &super::super::print::json(&loaded).to_string();
                format!("{printed}{:?}", loaded.config)
            }
            Err(invalid) => invalid.to_string(),
        };
        assert!(said.contains("***") && !said.contains("s3cret"), "{said}");
    }
    for (variable, wrong) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://ann:s3cret@collector"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ann:s3cret@collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://ann:s3cret@collector:many"),
        ("XP_GATEWAY_CALLBACK_ORIGINS", "http://ann:s3cret@router/path"),
        ("REDIS_URL", "http://ann:s3cret@cache"),
    ] {
        let said = load(&environment(&[(variable, wrong)])).expect_err(wrong).to_string();
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn kubernetes_service_variables_are_not_keys() {
    let links = [
        ("XP_GRAPH_SERVICE_HOST", "10.96.0.12"),
        ("XP_GRAPH_SERVICE_PORT", "80"),
        ("XP_GRAPH_SERVICE_PORT_HTTP", "80"),
        ("XP_GRAPH_PORT", "tcp://10.96.0.12:80"),
        ("XP_GRAPH_PORT_80_TCP", "tcp://10.96.0.12:80"),
        ("XP_GRAPH_PORT_80_TCP_PROTO", "tcp"),
        ("XP_GRAPH_PORT_80_TCP_PORT", "80"),
        ("XP_GRAPH_PORT_80_TCP_ADDR", "10.96.0.12"),
    ];
    assert!(load(&environment(&links)).is_ok());
    let with_mistake = [&links[..], &[("XP_GRAPH_MAX_DEPHT", "9"), ("XP_HTTP_PORT", "8080")]].concat();
    let Invalid(problems) = load(&environment(&with_mistake)).expect_err("misspelt");
    let fixes: Vec<_> = problems.iter().map(|problem| problem.fix.as_str()).collect();
    assert_eq!(fixes, ["did you mean `XP_GRAPH_MAX_DEPTH`?", "did you mean `PORT`?"]);
}

#[test]
fn sign_up_is_off_by_default_except_in_development() {
    for (mode, wanted) in [(Mode::Tool, false), (Mode::Development, true)] {
        assert_eq!(load(&Inputs::nothing(mode)).expect("valid").config.auth.sign_up, wanted);
    }
    let production = Inputs {
        mode: Mode::Production,
        ..environment(&[
            ("DATABASE_URL", "sqlite:x"),
            ("XP_AUTH_SECRET", "a secret of thirty-two characters"),
        ])
    };
    assert!(!load(&production).expect("valid").config.auth.sign_up);
}

#[test]
fn a_missing_file_fails_only_when_named() {
    let mut inputs = Inputs::nothing(Mode::Tool);
    let empty = tempdir().expect("a folder");
    inputs.directory = Some(empty.path().to_owned());
    assert!(load(&inputs).is_ok());
    inputs.file = Some("/nowhere/xp.toml".into());
    assert!(load(&inputs).is_err_and(|e| e.to_string().contains("/nowhere/xp.toml")));
}

#[test]
fn statement_timeout_never_exceeds_request_timeout() {
    let limit = |request_timeout: &str, serving: bool| {
        let given = [("DATABASE_URL", "postgres://host/name"), ("XP_HTTP_REQUEST_TIMEOUT", request_timeout)];
        let config = load(&environment(&given)).expect("valid").config;
        config.store(serving).expect("a URL").statement_timeout
    };
    assert_eq!(limit("500ms", true), Some(Duration::from_millis(500)));
    assert_eq!(limit("1m", true), Some(Duration::from_secs(2)));
    assert_eq!(limit("500ms", false), None);
}
