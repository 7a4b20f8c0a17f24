//! The layers, from defaults to flags, and what is said when they are wrong.

use std::time::Duration;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Inputs {
    let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    Inputs { environment: pairs.iter().map(own).collect(), ..Inputs::nothing(Mode::Tool) }
}

fn folder() -> PathBuf {
    let path = std::env::temp_dir().join(format!("xp-config-{}", entities::id::new()));
    std::fs::create_dir(&path).expect("the temporary folder can be written");
    path
}

#[test]
fn the_defaults_are_valid_and_documented() {
    let loaded = load(&Inputs::nothing(Mode::Tool)).expect("the defaults are valid");
    assert_eq!(loaded.config.http.port, 8080);
    assert_eq!(loaded.config.http.request_timeout, Duration::from_secs(2));
    assert_eq!(loaded.config.graph.limits(), schema::gate::Limits::default());
    assert_eq!(loaded.entries.len(), KEYS.len());
    assert!(KEYS.iter().all(|key| key.doc.trim().ends_with('.')));
}

#[test]
fn later_layers_win() {
    let directory = folder();
    std::fs::write(directory.join("xp.toml"), "[http]\nport = 1\nhost = \"h\"\nbody_timeout = \"3s\"\n")
        .expect("written");
    let mut inputs = environment(&[("PORT", "2"), ("HOST", "")]);
    inputs.directory = Some(directory.clone());
    let loaded = load(&inputs).expect("valid");
    assert_eq!((loaded.config.http.port, loaded.config.http.host.as_str()), (2, "h"));
    let source = |name| loaded.entries.iter().find(|e| e.key.name == name).map(|e| e.source.clone());
    assert_eq!(source("http.body_timeout"), Some(Source::File(directory.join("xp.toml"), 4)));
    inputs.flags = vec![("http.port".into(), "3".into(), "--port".into())];
    assert_eq!(load(&inputs).expect("valid").config.http.port, 3);
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let directory = folder();
    std::fs::write(directory.join("xp.toml"), "[http]\nprot = 1\n[htpp]\nport = 1\n[auth]\nissuer = []\n")
        .expect("written");
    let mut inputs = environment(&[("PORT", "many"), ("XP_HTTP_BODY_TIMEOT", "1s"), ("XP_HTTP_PROT", "1")]);
    inputs.directory = Some(directory);
    inputs.mode = Mode::Production;
    let Invalid(problems) = load(&inputs).expect_err("invalid");
    let text = Invalid(problems.clone()).to_string();
    for part in [
        "xp.toml:2",
        "did you mean `http.port`?",
        "auth.issuer is no single value",
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
    let path = folder().join("url");
    std::fs::write(&path, "postgres://ann:s3cret@db/xp\n").expect("written");
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
fn a_missing_file_is_an_error_only_when_it_was_asked_for() {
    let mut inputs = Inputs::nothing(Mode::Tool);
    inputs.directory = Some(folder());
    assert!(load(&inputs).is_ok());
    inputs.file = Some("/nowhere/xp.toml".into());
    assert!(load(&inputs).is_err_and(|e| e.to_string().contains("/nowhere/xp.toml")));
}

#[test]
fn postgresql_works_no_longer_on_a_statement_than_its_request_may_take() {
    let url = |request_timeout: &str, serving: bool| {
        let given = [("DATABASE_URL", "postgres://host/name"), ("XP_HTTP_REQUEST_TIMEOUT", request_timeout)];
        let config = load(&environment(&given)).expect("valid").config;
        config.store(serving).expect("a URL").url
    };
    assert_eq!(url("500ms", true), "postgres://host/name?options[statement_timeout]=500");
    assert_eq!(url("1m", true), "postgres://host/name?options[statement_timeout]=2000");
    assert_eq!(url("500ms", false), "postgres://host/name");
}
