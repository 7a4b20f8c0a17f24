use super::*;

/// Finds these addresses for every name.
fn finding(addresses: &[&str]) -> Lookup {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Arc::new(move |_, port| {
        let found = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
        async move { Ok(found) }.boxed()
    })
}

fn on_the_internet() -> TargetRules {
    TargetRules::default().looking_up(finding(&["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]))
}

#[tokio::test]
async fn public_addresses_are_called_by_https_only() {
    let rules = on_the_internet();
    for (given, normal) in [
        ("https://example.com", "https://example.com/"),
        ("https://EXAMPLE.com/hooks?a=1&b=2", "https://example.com/hooks?a=1&b=2"),
        ("https://example.com:8443/a b".replace(' ', "%20").as_str(), "https://example.com:8443/a%20b"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://134744072/", "https://8.8.8.8/"),
        ("https://[2606:4700:4700::1111]/", "https://[2606:4700:4700::1111]/"),
        ("https://[64:ff9b::808:808]/", "https://[64:ff9b::808:808]/"),
    ] {
        assert_eq!(rules.check(given).await.as_deref(), Ok(normal), "{given}");
    }
    let long = format!("https://example.com/{}", "a".repeat(MAX_URL_BYTES));
    for (given, why) in [
        ("", TargetError::Malformed),
        ("example.com/hooks", TargetError::Malformed),
        ("https://", TargetError::Malformed),
        ("https://exa mple.com/", TargetError::Malformed),
        (" https://example.com/", TargetError::Malformed),
        ("https://example.com/\n", TargetError::Malformed),
        ("https:\\\\example.com", TargetError::Malformed),
        ("https://example.com:0/", TargetError::Malformed),
        ("https://example.com:65536/", TargetError::Malformed),
        ("https://[::1", TargetError::Malformed),
        ("http://example.com/", TargetError::Scheme),
        ("ftp://example.com/", TargetError::Scheme),
        ("file:///etc/passwd", TargetError::Scheme),
        ("gopher://127.0.0.1:6379/_x", TargetError::Scheme),
        ("javascript:alert(1)", TargetError::Scheme),
        ("https://ann@example.com/", TargetError::Userinfo),
        ("https://ann:secret@example.com/", TargetError::Userinfo),
        ("https://:secret@example.com/", TargetError::Userinfo),
        ("https://example.com/#part", TargetError::Fragment),
        (&long, TargetError::TooLong),
    ] {
        assert_eq!(rules.check(given).await, Err(why), "{given}");
    }
}

/// Every network that is not public, by its first and its last address, and in other spellings.
const NOT_PUBLIC_HOSTS: [&str; 62] = [
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.0",
    "169.254.169.254",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.0",
    "192.168.255.255",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.255",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "127.0.0.1.",
    "[::]",
    "[::1]",
    "[::7f00:1]",
    "[::8.8.8.8]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::808:808]",
    "[100::1]",
    "[2001::1]",
    "[2001:0:7f00:1::]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[2001:20::1]",
    "[2001:db8::1]",
    "[2002:7f00:1::]",
    "[2002:808:808::]",
    "[3fff::1]",
    "[3fff:fff::1]",
    "[5f00::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
];

#[tokio::test]
async fn networks_that_are_not_public_are_refused() {
    let rules = on_the_internet();
    for host in NOT_PUBLIC_HOSTS {
        for url in [format!("https://{host}/hooks"), format!("https://{host}:8443")] {
            assert_eq!(rules.check(&url).await, Err(TargetError::Forbidden), "{url}");
        }
    }
    // The neighbours of what is refused.
    for host in [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "168.63.129.15",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "[2001:200::1]",
        "[2003::1]",
        "[3ffe::1]",
        "[::ffff:8.8.8.8]",
    ] {
        let url = format!("https://{host}/");
        assert!(rules.check(&url).await.is_ok(), "{url}");
    }
}

/// When a webhook is made, and again when it is called.
#[tokio::test]
async fn names_that_lead_to_networks_that_are_not_public_are_refused() {
    for found in [
        &["127.0.0.1"][..],
        &["10.1.2.3"],
        &["169.254.169.254"],
        &["::1"],
        &["fd00::1"],
        &["::ffff:192.168.1.1"],
        &["93.184.215.14", "10.1.2.3"],
        &["2606:2800:21f:cb07:6820:80da:af6b:8b2c", "fe80::1"],
    ] {
        let rules = TargetRules::default().looking_up(finding(found));
        for url in ["https://rebind.example/hooks", "https://localhost/", "https://metadata.google.internal/"]
        {
            assert_eq!(rules.check(url).await, Err(TargetError::Forbidden), "{found:?}: {url}");
        }
        let connecting = rules.resolve("https", "rebind.example", 443).await;
        assert!(matches!(connecting, Err(ResolveError::Target(TargetError::Forbidden))), "{found:?}");
    }
    // What is not found now may be found later, and is judged then.
    let unknown: Lookup = Arc::new(|_, _| async { Err(io::ErrorKind::NotFound.into()) }.boxed());
    let rules = TargetRules::default().looking_up(unknown);
    assert!(rules.check("https://not-yet.example/").await.is_ok());
    let connecting = rules.resolve("https", "not-yet.example", 443).await;
    assert!(matches!(connecting, Err(ResolveError::Lookup(_))));
}

#[tokio::test]
async fn networks_that_operators_name_are_called_also_without_tls() {
    let networks = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network"));
    let rules = TargetRules::new(networks.to_vec()).looking_up(finding(&["127.0.0.1", "::1"]));
    for url in
        ["http://127.0.0.1:8080/", "https://127.0.0.1/", "http://[::1]:1/", "http://localhost:3000/hooks"]
    {
        assert!(rules.check(url).await.is_ok(), "{url}");
    }
    assert_eq!(rules.check("https://10.0.0.1/").await, Err(TargetError::Forbidden));
    assert_eq!(rules.check("http://8.8.8.8/").await, Err(TargetError::Scheme), "public addresses need TLS");
    assert!(rules.check("https://8.8.8.8/").await.is_ok());
}
