//! What is allowed and seldom meant: said at the start of `xp serve`, by `xp doctor` and by `xp config
//! check`. Not here: what is refused (`Config::contradictions`).

use std::net::IpAddr;

use super::{Config, address::MetricsAddress, layers::Problem};

/// An address of the documentation (RFC 5737, RFC 3849): in no network that somebody means.
const STRANGERS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

impl Config {
    /// What an operator should know of these values before strangers use the server.
    pub fn cautions(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut say = |key: &str, variable: &str, why: &str, fix: &str| {
            found.push(Problem {
                what: key.to_owned(),
                place: format!("{variable} or xp.toml"),
                why: why.to_owned(),
                fix: fix.to_owned(),
            });
        };
        let proxies = (&self.http.trusted_proxies, "XP_HTTP_TRUSTED_PROXIES");
        let is_stranger =
            |text: &&str| text.parse::<IpAddr>().is_ok_and(|address| proxies.0.contains(address));
        if proxies.0.is_empty() && is_loopback(&self.http.host) {
            say(
                "http.trusted_proxies is empty, and http.host is reached by this machine only",
                proxies.1,
                "behind a proxy on this machine all clients count as one address: a few wrong passwords of \
                 one of them keep everybody from signing in",
                "list the proxy, as in 127.0.0.1, and have it send X-Forwarded-For",
            );
        } else if proxies.0.is_empty() && self.gateway.can_prove_itself() {
            say(
                "gateways can prove themselves, and http.trusted_proxies is empty",
                proxies.1,
                "it is not known from where people sign in who come through a gateway: their tries are \
                 counted for each account only, and their sessions have no ipAddress",
                "list the gateways' addresses or networks, and have them forward X-Forwarded-For and \
                 User-Agent",
            );
        } else if STRANGERS.iter().any(is_stranger) {
            say(
                "http.trusted_proxies includes every address",
                proxies.1,
                "any client can say that it is somebody else, and is counted for them",
                "list your proxies' networks only",
            );
        }
        if self.auth.sign_up {
            say(
                "auth.sign_up is on",
                "XP_AUTH_SIGN_UP",
                "anybody may make an account, see the names of all others and the open forms, and learn from \
                 signUp's answer whether an e-mail has an account",
                "leave it off where accounts are made by administrators or by `xp user create`",
            );
        }
        if !self.database.replica_urls.is_empty() && !self.cache.enabled.is_on(true) {
            say(
                "database.replica_urls is set, and cache.enabled is off",
                "XP_CACHE_ENABLED",
                "only the cache knows what a standby may be asked for: all reads run on the primary",
                "switch the cache on, or leave the standbys out",
            );
        }
        if self.http.metrics_address == MetricsAddress::Main {
            say(
                "http.metrics_address is main",
                "XP_HTTP_METRICS_ADDRESS",
                "everybody who reaches the main port reads how many people use the server and what it looks \
                 up",
                "leave it out, or keep the path from others in front of the server",
            );
        }
        found
    }
}

/// Is it an address that only this machine reaches?
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use crate::config::{
        Mode,
        layers::{Inputs, load},
    };

    #[test]
    fn each_value_that_is_seldom_meant_is_named() {
        let said = |values: &[(&str, &str)]| -> Vec<String> {
            let mut inputs = Inputs::nothing(Mode::Tool);
            let flag =
                |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned(), "--set".to_owned());
            inputs.flags = values.iter().map(flag).collect();
            load(&inputs).expect("valid").config.cautions().into_iter().map(|caution| caution.what).collect()
        };
        let open = ("http.host", "0.0.0.0");
        assert_eq!(said(&[open]), Vec::<String>::new());
        for (values, wanted) in [
            (&[][..], "http.trusted_proxies is empty"),
            (&[("http.host", "localhost")], "http.trusted_proxies is empty"),
            (&[("http.trusted_proxies", "0.0.0.0/0")], "http.trusted_proxies includes every address"),
            (
                &[open, ("http.trusted_proxies", "10.0.0.0/8, ::/0")],
                "http.trusted_proxies includes every address",
            ),
            (
                &[open, ("gateway.secrets", "0123456789abcdef0123456789abcdef")],
                "gateways can prove themselves, and http.trusted_proxies is empty",
            ),
            (&[open, ("auth.sign_up", "true")], "auth.sign_up is on"),
            (&[open, ("http.metrics_address", "main")], "http.metrics_address is main"),
        ] {
            let said = said(values);
            assert!(said.len() == 1 && said[0].starts_with(wanted), "{values:?}: {said:?}");
        }
        assert!(said(&[("http.trusted_proxies", "127.0.0.1")]).is_empty());
    }
}
