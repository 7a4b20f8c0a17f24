//! Whether the bounds on memory let through what other bounds allow: a request or an answer of the greatest
//! length that has no place in its share would fail however often it is repeated. Not here: how memory is
//! shared (`http::memory`).

use super::{Config, layers::Problem, setting::Bytes};

/// What a request takes besides its body.
const REQUEST: u128 = 8 << 10;
/// What compresses an answer takes besides.
const ENCODER: u128 = 256 << 10;

/// Adds what does not fit.
pub(super) fn contradictions(config: &Config, found: &mut Vec<Problem>) {
    let Config { http, gateway, graph, .. } = config;
    // Callers without a token have five eighths of it all, whatever their share.
    let share = |memory: Bytes, eighths: u128| {
        let memory = memory.0 as u128;
        (memory * u128::from(http.address_share.0) / 100).min(memory * eighths / 8)
    };
    let bodies = [
        ("http.body_limit_anonymous", http.body_limit_anonymous, 5),
        ("http.body_limit_signed_in", http.body_limit_signed_in, 7),
        // Its requests count for the accounts that they are of.
        ("gateway.body_limit", gateway.body_limit, 7),
    ];
    for (key, limit, eighths) in bodies {
        if share(http.max_body_memory, eighths) < limit.0 as u128 + REQUEST {
            found.push(Problem {
                what: format!(
                    "{key} is larger than the share of http.max_body_memory that one caller may take"
                ),
                place: "XP_HTTP_MAX_BODY_MEMORY and XP_HTTP_ADDRESS_SHARE, or xp.toml".into(),
                why: "the largest request that is allowed would always be refused".into(),
                fix: format!("raise http.max_body_memory or http.address_share, or lower {key}"),
            });
        }
    }
    if share(http.max_answer_memory, 5) < graph.max_answer_bytes.0 as u128 + ENCODER {
        found.push(Problem {
            what:
                "graph.max_answer_bytes is larger than the share of http.max_answer_memory that one caller \
                   may take"
                    .into(),
            place: "XP_HTTP_MAX_ANSWER_MEMORY and XP_HTTP_ADDRESS_SHARE, or xp.toml".into(),
            why: "the longest answer that is allowed, and 256 KiB to compress it, must fit in there to be \
                  sent"
                .into(),
            fix: "raise http.max_answer_memory or http.address_share, or lower graph.max_answer_bytes".into(),
        });
    }
    if graph.max_writing_memory.0 / 2 < graph.max_answer_bytes.0 {
        found.push(Problem {
            what: "graph.max_writing_memory is less than twice graph.max_answer_bytes".into(),
            place: "the two values together".into(),
            why: "one account may have half of it, and the longest answer must fit in there".into(),
            fix: "raise graph.max_writing_memory or lower graph.max_answer_bytes".into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        let mut found = Vec::new();
        contradictions(&config, &mut found);
        found.into_iter().map(|problem| problem.what).collect()
    }

    #[test]
    fn the_longest_of_everything_fits() {
        const MIB: usize = 1 << 20;
        assert!(found(|_| {}).is_empty());
        let one =
            |what: &[String], start: &str| assert!(what.len() == 1 && what[0].starts_with(start), "{what:?}");
        one(&found(|config| config.http.max_answer_memory.0 = 64 * MIB), "graph.max_answer_bytes is larger");
        one(&found(|config| config.http.address_share.0 = 16), "graph.max_answer_bytes is larger");
        one(&found(|config| config.gateway.body_limit.0 = 17 * MIB), "gateway.body_limit is larger");
        one(
            &found(|config| config.http.body_limit_signed_in.0 = 17 * MIB),
            "http.body_limit_signed_in is larger",
        );
        one(
            &found(|config| config.http.body_limit_anonymous.0 = 17 * MIB),
            "http.body_limit_anonymous is larger",
        );
        one(
            &found(|config| config.graph.max_writing_memory.0 = 31 * MIB),
            "graph.max_writing_memory is less",
        );
        let all = |config: &mut Config| {
            (config.http.address_share.0, config.http.max_answer_memory.0) = (100, 24 * MIB);
        };
        one(&found(all), "graph.max_answer_bytes is larger");
    }
}
