//! The figures and how they are shown: a table for people, JSON for machines.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{check::Shape, database::StatementSource, measure::Outcome, server::BASELINE};

/// A whole run.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) slices: u32,
    pub(crate) slice_seconds: f64,
    pub(crate) seed: u64,
    pub(crate) users: usize,
    pub(crate) statements_from: StatementSource,
    /// The one-minute load average before the run: what else the machine was doing.
    pub(crate) load_average_before: f64,
    pub(crate) runs: Vec<Run>,
    pub(crate) peak_memory: Vec<PeakMemory>,
}

/// One workload at one concurrency.
#[derive(Serialize)]
pub(crate) struct Run {
    pub(crate) workload: String,
    pub(crate) connections: usize,
    pub(crate) answer_bytes: usize,
    pub(crate) answer_values: usize,
    /// In the order of the servers: `xp` first.
    pub(crate) servers: Vec<Figures>,
}

/// What one server did in one run.
#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) server: String,
    pub(crate) requests: usize,
    pub(crate) errors: u64,
    pub(crate) requests_per_second: f64,
    /// Of each slice: how far they are apart is how far the mean is to be trusted.
    pub(crate) slice_rates: Vec<f64>,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) server_cpu_micros: f64,
    pub(crate) postgres_cpu_micros: Option<f64>,
    pub(crate) statements: f64,
    pub(crate) runner_cpu_micros: f64,
}

/// The most memory a server held in the whole run.
#[derive(Serialize)]
pub(crate) struct PeakMemory {
    pub(crate) server: String,
    pub(crate) mib: f64,
}

impl Figures {
    pub(crate) fn of(server: String, mut outcome: Outcome) -> Self {
        outcome.latencies_micros.sort_unstable();
        let requests = outcome.latencies_micros.len();
        let per_request = |time: std::time::Duration| time.as_secs_f64() * 1e6 / requests as f64;
        let quantile = |share: f64| {
            let at = (share * requests as f64).ceil() as usize;
            let micros = outcome.latencies_micros[at.clamp(1, requests) - 1];
            f64::from(micros) / 1000.0
        };
        Self {
            server,
            requests,
            errors: outcome.errors,
            requests_per_second: requests as f64 / outcome.elapsed.as_secs_f64(),
            p50_ms: quantile(0.50),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            server_cpu_micros: per_request(outcome.server_cpu),
            postgres_cpu_micros: outcome.postgres_cpu.map(per_request),
            statements: outcome.statements as f64 / requests as f64,
            runner_cpu_micros: per_request(outcome.runner_cpu),
            slice_rates: outcome.slice_rates,
        }
    }

    /// The rows of the table.
    fn rows(&self) -> [(&'static str, Option<f64>, usize); 9] {
        [
            ("req/s", Some(self.requests_per_second), 0),
            ("p50 ms", Some(self.p50_ms), 2),
            ("p95 ms", Some(self.p95_ms), 2),
            ("p99 ms", Some(self.p99_ms), 2),
            ("server CPU µs/req", Some(self.server_cpu_micros), 0),
            ("PostgreSQL CPU µs/req", self.postgres_cpu_micros, 0),
            ("statements/req", Some(self.statements), 2),
            ("errors", Some(self.errors as f64), 0),
            ("(runner CPU µs/req)", Some(self.runner_cpu_micros), 0),
        ]
    }
}

impl Run {
    pub(crate) fn new(workload: &str, connections: usize, shape: &Shape, servers: Vec<Figures>) -> Self {
        let (answer_bytes, answer_values) = (shape.bytes, shape.values);
        Self { workload: workload.to_owned(), connections, answer_bytes, answer_values, servers }
    }

    /// One table: what each server did, and how that stands to the one they are held against.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{} · c = {} · answer {} bytes, {} values\n{:24}",
            self.workload, self.connections, self.answer_bytes, self.answer_values, ""
        );
        for figures in &self.servers {
            let _ = write!(text, "{:>12}", figures.server);
        }
        let held_against = self.held_against();
        let others = || (0..self.servers.len()).filter(|at| *at != held_against);
        for other in others() {
            let title = format!("{}/{}", self.servers[other].server, self.servers[held_against].server);
            let _ = write!(text, "{title:>18}");
        }
        text.push('\n');
        let columns: Vec<_> = self.servers.iter().map(Figures::rows).collect();
        for (at, (name, _, digits)) in columns[0].iter().enumerate() {
            let _ = write!(text, "  {name:22}");
            for column in &columns {
                let cell = column[at].1.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"));
                let _ = write!(text, "{cell:>12}");
            }
            for other in others() {
                let pair = columns[other][at].1.zip(columns[held_against][at].1);
                let ratio = pair.filter(|(_, right)| *right > 0.0).map(|(left, right)| left / right);
                let _ = write!(text, "{:>18}", ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default());
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for figures in &self.servers {
            let rates: Vec<String> = figures.slice_rates.iter().map(|rate| format!("{rate:.0}")).collect();
            let _ = writeln!(text, "  {} slices: {} req/s", figures.server, rates.join(" "));
        }
        text
    }

    /// The baseline, or where there is none the first server.
    fn held_against(&self) -> usize {
        self.servers.iter().position(|figures| figures.server == BASELINE).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn quantiles_are_taken_from_the_sorted_latencies() {
        let figures = Figures::of(
            "xp".to_owned(),
            Outcome {
                elapsed: Duration::from_secs(2),
                latencies_micros: (1..=100).rev().map(|ms| ms * 1000).collect(),
                server_cpu: Duration::from_millis(10),
                statements: 400,
                ..Outcome::default()
            },
        );
        let quantiles = [figures.p50_ms, figures.p95_ms, figures.p99_ms].map(|ms| ms as u32);
        assert_eq!(quantiles, [50, 95, 99]);
        let others = [figures.requests_per_second, figures.server_cpu_micros, figures.statements];
        assert_eq!(others.map(|value| value as u32), [50, 100, 4]);
    }
}
