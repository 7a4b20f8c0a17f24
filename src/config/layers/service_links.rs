//! Variables that Kubernetes sets in every pod for each service of the namespace ("service links"). A service
//! whose name begins with `xp` gets variables that begin with `XP_`, as ours do. They are told by name and
//! value together, so that a misspelt key is still noticed.
//! <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>

use std::net::{IpAddr, SocketAddr};

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Is it one of them? For a service `xp-graph` with the port 80 these are `XP_GRAPH_SERVICE_HOST` (an address),
/// `XP_GRAPH_SERVICE_PORT` and `XP_GRAPH_SERVICE_PORT_<NAME>` (a port), `XP_GRAPH_PORT` and `XP_GRAPH_PORT_80_TCP`
/// (`tcp://address:80`), and that last name with `_PROTO` (`tcp`), `_PORT` (`80`) and `_ADDR` (an address).
pub(super) fn is_service_link(variable: &str, value: &str) -> bool {
    let is_named = |service: &str| !service.is_empty();
    if let Some(service) = variable.strip_suffix("_SERVICE_HOST") {
        return is_named(service) && is_address(value);
    }
    if let Some((service, port_name)) = variable.rsplit_once("_SERVICE_PORT") {
        let is_complete = port_name.is_empty() || port_name.len() > 1 && port_name.starts_with('_');
        return is_named(service) && is_complete && is_port(value);
    }
    if let Some((service, port)) = variable.rsplit_once("_PORT_").filter(|(_, port)| port.contains('_')) {
        return is_named(service) && is_of_port(port, value);
    }
    variable.strip_suffix("_PORT").is_some_and(|service| match service.rsplit_once("_PORT_") {
        // …_PORT_80_TCP_PORT
        Some((service, port)) if is_named(service) && is_of_port(&format!("{port}_PORT"), value) => true,
        _ => is_named(service) && is_link(value).is_some(),
    })
}

/// What is said of one port: `80_TCP`, `80_TCP_PROTO`, `80_TCP_PORT`, `80_TCP_ADDR`.
fn is_of_port(name: &str, value: &str) -> bool {
    let mut parts = name.split('_');
    let (Some(number), Some(protocol), what, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    if !is_port(number) || !PROTOCOLS.contains(&protocol) {
        return false;
    }
    match what {
        None => is_link(value).is_some_and(|(scheme, port)| {
            scheme.eq_ignore_ascii_case(protocol) && port.to_string() == number
        }),
        Some("PROTO") => value.eq_ignore_ascii_case(protocol),
        Some("PORT") => value == number,
        Some("ADDR") => is_address(value),
        Some(_) => false,
    }
}

/// `tcp://10.0.0.1:80`: its protocol and port.
fn is_link(value: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = value.split_once("://")?;
    let address: SocketAddr = rest.parse().ok()?;
    PROTOCOLS.iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some((scheme, address.port()))
}

fn is_address(value: &str) -> bool {
    value.parse::<IpAddr>().is_ok()
}

fn is_port(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit()) && value.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn service_links_are_recognized_by_name_and_value() {
        for (variable, value) in [
            ("XP_GRAPH_SERVICE_HOST", "10.96.0.12"),
            ("XP_GRAPH_SERVICE_HOST", "fd00::12"),
            ("XP_GRAPH_SERVICE_PORT", "80"),
            ("XP_GRAPH_SERVICE_PORT_HTTP", "80"),
            ("XP_GRAPH_SERVICE_PORT_HTTP_METRICS", "9464"),
            ("XP_GRAPH_PORT", "tcp://10.96.0.12:80"),
            ("XP_GRAPH_PORT", "udp://[fd00::12]:53"),
            ("XP_GRAPH_PORT_80_TCP", "tcp://10.96.0.12:80"),
            ("XP_GRAPH_PORT_80_TCP_PROTO", "tcp"),
            ("XP_GRAPH_PORT_80_TCP_PORT", "80"),
            ("XP_GRAPH_PORT_80_TCP_ADDR", "10.96.0.12"),
            ("XP_GRAPH_PORT_53_UDP", "udp://10.96.0.12:53"),
            ("XP_SERVICE_HOST", "10.96.0.12"),
            ("XP_PORT", "tcp://10.96.0.12:80"),
            ("XP_PORT_80_TCP_PORT", "80"),
            ("XP_HTTP_PORT", "tcp://10.96.0.12:8080"),
            ("XP_MY_PORT_AUTHORITY_PORT_80_TCP_ADDR", "10.96.0.12"),
        ] {
            assert!(is_service_link(variable, value), "{variable}={value}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_still_a_mistake() {
        for (variable, value) in [
            ("XP_HTTP_PORT", "8080"),
            ("XP_GRAPH_PORT", "80"),
            ("XP_GRAPH_PORT", "http://10.96.0.12:80"),
            ("XP_GRAPH_PORT", "tcp://host:80"),
            ("XP_GRAPH_SERVICE_HOST", "graph.example.com"),
            ("XP_GRAPH_SERVICE_PORT", "many"),
            ("XP_GRAPH_SERVICE_PORT", "0"),
            ("XP_GRAPH_SERVICE_PORTS", "80"),
            ("XP_GRAPH_SERVICE_PORT_", "80"),
            ("XP_GRAPH_SERVICE_NAME", "xp"),
            ("XP_GRAPH_PORT_80_TCP", "tcp://10.96.0.12:81"),
            ("XP_GRAPH_PORT_80_TCP_PROTO", "udp"),
            ("XP_GRAPH_PORT_80_TCP_PORT", "81"),
            ("XP_GRAPH_PORT_80_TCP_HOST", "10.96.0.12"),
            ("XP_GRAPH_PORT_80_TPC_ADDR", "10.96.0.12"),
            ("XP_HTTP_HOST", "10.96.0.12"),
            ("XP_AUTH_SIGNUP", "true"),
        ] {
            assert!(!is_service_link(variable, value), "{variable}={value}");
        }
    }

    #[test]
    fn no_key_of_ours_has_such_a_name() {
        let values = ["10.0.0.1", "80", "tcp://10.0.0.1:80", "tcp"];
        for key in KEYS {
            assert!(
                values.iter().all(|value| !is_service_link(&key.env(), value) || key.env() == "PORT"),
                "{}",
                key.env()
            );
        }
    }
}
