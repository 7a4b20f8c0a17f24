//! `xp serve` and `xp dev` as they are without settings: what is safe by default, and what they say of what
//! is not. With real processes. Not here: what each setting does (unit tests in `src`).

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::harness::{
    db,
    process::{Server, send, xp},
};

/// As nobody has set them: an empty variable counts as none.
const DEFAULTS: [(&str, &str); 2] = [("XP_HTTP_METRICS_ADDRESS", ""), ("XP_AUTH_SIGN_UP", "")];
const JSON: (&str, &str) = ("content-type", "application/json");

fn mutate(server: &Server, query: &str, more: &[(&str, &str)]) -> Value {
    let body = json!({ "query": query }).to_string();
    let headers = [&[JSON], more].concat();
    let (_, body) = send(&server.address, "/graphql", &headers, &body).expect("an answer");
    serde_json::from_str(&body).expect("JSON")
}

/// How many lines of a log say this; waits for the first.
fn lines(server: &Server, text: &str) -> usize {
    for _ in 0..200 {
        let found = server.log().lines().filter(|line| line.contains(text)).count();
        if found > 0 {
            return found;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{text} is not in {}", server.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn production_is_safe_without_settings_and_says_what_is_not() {
    let url = db::own_sqlite().await;
    // Two on one machine: the second one has no metrics, and starts.
    let [server, second] = [Server::start(&url, &DEFAULTS), Server::start(&url, &DEFAULTS)];
    for server in [&server, &second] {
        let (status, body) = send(&server.address, "/metrics", &[], "").expect("an answer");
        assert_eq!(status, 404, "{body}");
    }
    lines(&second, "/metrics is not served");
    let sign_up = "mutation { signUp(input: { email: \"new@example.com\", password: \"correct horse battery\", \
                   displayName: \"New\" }) { accessToken userErrors { code } } }";
    let refused = json!({ "accessToken": null, "userErrors": [{ "code": "NOT_ALLOWED" }] });
    assert_eq!(mutate(&server, sign_up, &[])["data"]["signUp"], refused);

    // It cannot know that there is a proxy before it hears of one.
    lines(&server, "http.trusted_proxies is empty, and http.host is reached by this machine only");
    for address in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        mutate(&server, "{ __typename }", &[("x-forwarded-for", address)]);
    }
    assert_eq!(
        lines(&server, "comes from a peer that is not in http.trusted_proxies"),
        1,
        "{}",
        server.log()
    );
    let wrong =
        "mutation { signIn(input: { email: \"nobody@example.com\", password: \"wrong\" }) { accessToken } }";
    for _ in 0..30 {
        mutate(&server, &wrong.replace("nobody", &entities::id::new().to_string()), &[]);
    }
    assert_eq!(lines(&server, "too many sign-ins from one address or network"), 1, "{}", server.log());

    // Signing up and metrics for everybody are said, where they are wanted.
    let open = Server::start(&url, &[]);
    for said in ["auth.sign_up is on", "http.metrics_address is main"] {
        assert_eq!(lines(&open, said), 1);
    }
    assert_eq!(send(&open.address, "/metrics", &[], "").expect("an answer").0, 200);
}

#[tokio::test]
async fn metrics_are_served_only_at_their_address() {
    let url = db::own_sqlite().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = xp(&url).args(["serve", "--port", "0"]).env("XP_HTTP_METRICS_ADDRESS", &address).output();
    let output = output.expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("http.metrics_address cannot be listened on"),
        "{said}"
    );
    drop(taken);
    let server = Server::start(&url, &[("XP_HTTP_METRICS_ADDRESS", &address)]);
    assert_eq!(send(&server.address, "/metrics", &[], "").expect("an answer").0, 404);
    let (status, text) = send(&address, "/metrics", &[], "").expect("an answer");
    assert!(status == 200 && text.contains("build_info{"), "{text}");
    assert_eq!(send(&address, "/graphql", &[], "").expect("an answer").0, 404, "metrics only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_read_again_at_sighup_and_a_wrong_one_changes_nothing() {
    let url = db::own_sqlite().await;
    let folder = tempdir().expect("a folder");
    let (file, secret) = (folder.path().join("xp.toml"), folder.path().join("secret"));
    let [old, new] = [
        "the first secret of a gateway; it is long enough",
        "the second secret of a gateway; it is long enough",
    ];
    fs::write(&file, "[http]\nmax_body_memory = \"64MiB\"\n").expect("written");
    fs::write(&secret, old).expect("written");
    let settings = [
        ("XP_GATEWAY_SECRETS_FILE", secret.to_str().expect("UTF-8")),
        ("XP_GATEWAY_REQUIRED", "on"),
        ("XP_HTTP_TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let server = Server::start_configured(&url, &file, &settings);
    let is_gateway = |secret: &str| {
        let body = json!({ "query": "{ _service { sdl } }" }).to_string();
        let headers = [JSON, ("router-authorization", secret)];
        send(&server.address, "/graphql", &headers, &body).expect("an answer").0 == 200
    };
    assert_eq!([old, new].map(is_gateway), [true, false]);

    // Wrong: everything stays, also what is right in it.
    fs::write(&secret, new).expect("written");
    fs::write(&file, "[http]\nmax_body_memory = \"64GB\"\n").expect("written");
    server.signal("-HUP");
    lines(&server, "nothing is changed: the configuration has 1 problem");
    assert_eq!([old, new].map(is_gateway), [true, false]);

    let right = "[http]\nmax_body_memory = \"32MiB\"\nrate_per_second = 1\nrate_burst = 5\n";
    fs::write(&file, right).expect("written");
    server.signal("-HUP");
    lines(&server, r#"[\"http.rate_per_second\", \"http.rate_burst\", \"gateway.secrets\"]"#);
    lines(&server, r#""at_restart":"[\"http.max_body_memory\"]""#);
    assert!(!server.log().contains(new), "no value is logged");
    assert_eq!([old, new].map(is_gateway), [false, true]);
    let asked = [0; 20].map(|_| mutate(&server, "{ __typename }", &[]));
    let refused = asked.iter().filter(|answer| answer["errors"][0]["extensions"]["code"] == "RATE_LIMITED");
    assert!(refused.count() > 5, "a burst of five, and one a second");
}

/// Two of what Kubernetes sets in every pod beside a service `xp-graph`; which ones are known is tested where
/// they are read (`config::layers`).
#[tokio::test]
async fn service_link_variables_do_not_stop_the_server() {
    let url = db::own_sqlite().await;
    let links = [("XP_GRAPH_SERVICE_HOST", "10.96.0.12"), ("XP_GRAPH_PORT", "tcp://10.96.0.12:80")];
    let server = Server::start(&url, &links);
    assert_eq!(send(&server.address, "/livez", &[], "").expect("an answer").0, 200);
    let output = xp(&url).args(["config", "check"]).env("XP_GRAPH_PROT", "tcp://10.96.0.12:80").output();
    let output = output.expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("unknown key `XP_GRAPH_PROT`"), "{said}");
}

#[tokio::test]
async fn commands_warn_of_risky_settings_without_showing_secrets() {
    let url = db::own_sqlite().await;
    let run = |arguments: &[&str]| {
        let output = xp(&url)
            .args(arguments)
            .env("REDIS_URL", "redis+sentinel://127.0.0.1:1/main?sentinel_password=s3cret")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://ann:s3cret@127.0.0.1:1")
            .env("XP_GATEWAY_INVALIDATION_URL", "http://127.0.0.1:1/?token=s3cret")
            .output()
            .expect("it can be started");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
        assert!(!said.contains("s3cret"), "{said}");
        said
    };
    for arguments in
        [&["config", "check"][..], &["config", "check", "--json"], &["doctor"], &["doctor", "--json"]]
    {
        let said = run(arguments);
        assert!(
            said.contains("http.trusted_proxies is empty") && said.contains("auth.sign_up is on"),
            "{said}"
        );
    }
    let printed = run(&["config", "print"]);
    for shown in [
        "redis+sentinel://127.0.0.1:1/main?sentinel_password=***",
        "http://***@127.0.0.1:1",
        "http://127.0.0.1:1/?token=***",
    ] {
        assert!(printed.contains(shown), "{printed}");
    }
}

/// Ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn development_says_when_it_listens_beyond_this_machine() {
    let url = db::own_sqlite().await;
    for (host, is_said) in [("0.0.0.0", true), ("127.0.0.1", false)] {
        let mut command = xp(&url);
        command.args(["dev", "--port", "0", "--host", host]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("XP_HTTP_METRICS_ADDRESS", "").env("XP_AUTH_SECRET", "");
        let mut process = Ended(command.spawn().expect("it can be started"));
        let (tell, told) = mpsc::channel();
        let out: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(process.0.stdout.take().expect("a pipe")),
            Box::new(process.0.stderr.take().expect("a pipe")),
        ];
        for out in out {
            let tell = tell.clone();
            thread::spawn(move || {
                BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
            });
        }
        let mut said = String::new();
        let is_warning = |line: &str| line.contains("development listens beyond this machine");
        // The warning comes after the banner, and long before the cache is warm.
        loop {
            let line = told.recv_timeout(Duration::from_mins(1)).unwrap_or_else(|_| panic!("{said}"));
            said = said + &line + "\n";
            if is_warning(&line) || line.contains("the cache is warm") {
                break;
            }
        }
        assert_eq!(is_warning(&said), is_said, "{said}");
    }
}
