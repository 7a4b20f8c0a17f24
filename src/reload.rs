//! What a running server takes over when it is told to read its configuration again (SIGHUP): the filter of
//! the log, rates, what gateways prove themselves by, and the folder of documents. What else has changed is
//! named, since it wants a restart. Not here: how the signal comes (the program), how a configuration is read
//! (`config::layers`).

use std::sync::{Arc, PoisonError};

use crate::{
    App,
    config::layers::{ConfigEntry, Loaded},
    gateway::Gateways,
    telemetry::Telemetry,
};

/// Settings that are taken over.
const RELOADED: [&str; 8] = [
    "telemetry.filter",
    "http.rate_per_second",
    "http.rate_burst",
    "gateway.secrets",
    "gateway.hmac_secrets",
    "gateway.signature_keys",
    "gateway.signature_max_age",
    "gateway.signature_covers_body",
];

/// Which settings have changed, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Those that are in use now.
    pub taken: Vec<&'static str>,
    /// Those that are not before the server starts again.
    pub at_restart: Vec<&'static str>,
}

impl Changed {
    /// Between two configurations.
    pub fn between(before: &Loaded, now: &Loaded) -> Self {
        let mut changed = Self::default();
        for (before, now) in before.entries.iter().zip(&now.entries) {
            if before.text == now.text {
                continue;
            }
            let name = now.key.name;
            if RELOADED.contains(&name) { &mut changed.taken } else { &mut changed.at_restart }.push(name);
        }
        changed
    }
}

/// What a server goes on with: of what it does not take over, the old values.
#[must_use]
pub fn in_use(before: &Loaded, now: &Loaded) -> Loaded {
    let pairs = before.entries.iter().zip(&now.entries);
    let choose = |(before, now): (&ConfigEntry, &ConfigEntry)| {
        if RELOADED.contains(&now.key.name) { now } else { before }.clone()
    };
    Loaded { entries: pairs.map(choose).collect(), ..before.clone() }
}

impl App {
    /// Takes over what has changed in a configuration that was read again, and reads the published documents anew.
    pub async fn reload(&self, now: &Loaded, changed: &Changed, telemetry: &Telemetry) {
        let has = |section: &str| changed.taken.iter().any(|name| name.starts_with(section));
        if has("telemetry.") {
            telemetry.set_filter(&now.config.telemetry.filter);
        }
        if has("http.") {
            self.admission.set_rates(&now.config.http);
        }
        if has("gateway.") {
            let mut gateways = self.gateways.write().unwrap_or_else(PoisonError::into_inner);
            *gateways = Arc::new(Gateways::new(&now.config.gateway).remembering(&gateways));
        }
        self.documents.reload_all(&self.graph).await;
    }
}
