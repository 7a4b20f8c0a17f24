//! The mixed day: its steps, one rate after the other, then further ones that look for the highest rate which
//! meets the plan, and the tables. Each step has the same people, connections and streams. Not here: a step
//! itself (`step`).

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{
    Arguments,
    mix::{Kind, World},
    people, say,
    scrape::Scrape,
    step::{Client, Crowd, Told},
    streams::Streams,
};
use crate::{LogDirectory, client::Connection, cpu, database::Database, overload::quantile, server::Server};

/// What the plan asks for.
const P95_MILLIS: f64 = 50.0;
const ERRORS: f64 = 0.001;
/// Forms that everybody hands in.
const OPEN_FORMS: usize = 20;
/// How long everything is warmed up, at the first rate.
const WARM_UP: Duration = Duration::from_secs(15);
/// Between two steps.
const PAUSE: Duration = Duration::from_secs(2);
/// How close the search goes.
const CLOSE_ENOUGH: u32 = 250;

/// A step and what it cost.
struct Step {
    asked: u32,
    told: Told,
    cache: Scrape,
    statements: i64,
    events: u64,
    /// Processors kept busy: the load runner, the server, PostgreSQL, Redis.
    busy: [Option<f64>; 4],
}

impl Step {
    fn error_part(&self) -> f64 {
        let failures = self.told.failures() as f64;
        failures / (failures + self.told.good() as f64).max(1.0)
    }

    fn meets_the_plan(&self) -> bool {
        self.told.quantiles(&[0.95])[0] < P95_MILLIS && self.error_part() < ERRORS
    }

    fn per_second(&self, count: f64) -> f64 {
        count / self.told.elapsed.as_secs_f64()
    }

    fn row(&self) -> String {
        let quantiles = self.told.quantiles(&[0.5, 0.95, 0.99]);
        let (answers, rows) = (self.cache.answers().percent(), self.cache.rows().percent());
        let busy: Vec<_> =
            self.busy.iter().map(|busy| busy.map_or("–".to_owned(), |busy| format!("{busy:.2}"))).collect();
        format!(
            "| {} | {:.0} | {:.1}, {:.1}, {:.1} | {:.3} % | {:.0} %, {:.1} %, {:.1} % | {:.0} | {:.0} | {:.0} | {} | {} |",
            self.asked,
            self.per_second(self.told.good() as f64),
            quantiles[0],
            quantiles[1],
            quantiles[2],
            self.error_part() * 100.0,
            answers.0,
            rows.0,
            rows.1,
            self.per_second(self.told.rows as f64),
            self.per_second(self.statements as f64),
            self.per_second(self.events as f64),
            busy.join(", "),
            if self.meets_the_plan() { "yes" } else { "no" },
        )
    }

    /// Where the time went, kind by kind, and what failed.
    fn details(&mut self) -> String {
        let mut text =
            "| what | share | answered/s | p50, p95, p99 ms |\n| --- | --- | --- | --- |\n".to_owned();
        let seconds = self.told.elapsed.as_secs_f64();
        for kind in Kind::ALL {
            let mut none = Vec::new();
            let micros = self.told.micros.get_mut(kind).unwrap_or(&mut none);
            let _ = writeln!(
                text,
                "| {} | {:.2} % | {:.1} | {:.1}, {:.1}, {:.1} |",
                kind.describe(),
                f64::from(kind.share()) / 100.0,
                micros.len() as f64 / seconds,
                quantile(micros, 0.5),
                quantile(micros, 0.95),
                quantile(micros, 0.99),
            );
        }
        text.push_str("\n| looked for in the cache | keys/s | found in the process, in it or in Redis |\n| --- | --- | --- |\n");
        for (kind, hits) in self.cache.by_type() {
            let (asked, (local, either)) = (hits.asked / seconds, hits.percent());
            let _ = writeln!(text, "| {kind} | {asked:.0} | {local:.1} %, {either:.1} % |");
        }
        for (why, count) in &self.told.failed {
            let _ = writeln!(text, "failed {count} times: {why}");
        }
        text
    }
}

/// What a step is measured with.
struct Day<'a> {
    arguments: &'a Arguments,
    server: Server,
    metrics: SocketAddr,
    database: Database,
    crowd: Arc<Crowd>,
    clients: Vec<Client>,
    streams: Streams,
    /// The trusted documents are in it.
    _logs: LogDirectory,
}

/// The whole day.
pub(super) async fn run(arguments: &Arguments) -> Result<()> {
    let mut day = Day::begin(arguments).await?;
    say(&format!(
        "{} accounts, {} forms · {} people over {} connections · {} streams · {} s a step\n\n\
         | asked/s | answered/s | p50, p95, p99 ms | errors | found: whole answers; rows in the process; rows in it or in Redis | rows/s | \
         statements/s | events/s | processors: runner, xp, PostgreSQL, Redis | meets the plan |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        day.crowd.world.users.len(),
        day.crowd.world.forms.len(),
        day.crowd.people.len(),
        day.clients.len(),
        arguments.streams,
        arguments.seconds,
    ))?;
    let (mut best, mut worst): (Option<Step>, Option<u32>) = (None, None);
    let mut rates = arguments.rates.clone();
    rates.sort_unstable();
    let mut rates = rates.into_iter();
    let mut searches = arguments.search;
    loop {
        let next = match (rates.next(), worst) {
            // A rate above one that was too much says nothing more, but the plan's table has it.
            (Some(rate), _) => Some(rate),
            (None, _) if searches == 0 => None,
            (None, worst) => {
                searches -= 1;
                between(best.as_ref().map(|step| step.asked), worst)
            }
        };
        let Some(rate) = next else { break };
        let mut step = day.step(rate).await?;
        say(&step.row())?;
        if step.meets_the_plan() && worst.is_none_or(|worst| rate < worst) {
            if best.as_ref().is_none_or(|best| best.asked < rate) {
                best = Some(step);
            }
        } else {
            worst = Some(worst.map_or(rate, |worst| worst.min(rate)));
            for (why, count) in step.told.failed.iter().take(8) {
                say(&format!("  failed {count} times: {why}"))?;
            }
            step.told.micros.clear();
        }
    }
    let open = day.streams.open_still();
    let held = cpu::peak_memory_kib(day.server.process_id)? / 1024;
    match best {
        Some(mut step) => {
            let details = step.details();
            say(&format!(
                "\nThe highest rate that meets p95 < {P95_MILLIS} ms and errors < {} %: {}/s. Of it:\n\n{details}",
                ERRORS * 100.0,
                step.asked,
            ))?;
        }
        None => say("\nNo rate meets the plan.")?,
    }
    say(&format!("{open} streams are open still; {held} MiB held at most."))?;
    day.server.stop().await
}

/// A rate to try next.
fn between(best: Option<u32>, worst: Option<u32>) -> Option<u32> {
    match (best, worst) {
        (Some(best), Some(worst)) => (worst - best > CLOSE_ENOUGH).then(|| best.midpoint(worst)),
        (Some(best), None) => Some(best + best / 4),
        (None, Some(worst)) => (worst > CLOSE_ENOUGH).then_some(worst / 2),
        (None, None) => None,
    }
}

impl<'a> Day<'a> {
    /// Starts the server, signs people in, opens their connections and streams, and warms everything up.
    async fn begin(arguments: &'a Arguments) -> Result<Self> {
        let mut database = Database::connect(&arguments.database_url).await?;
        let logs = LogDirectory::create()?;
        let (server, metrics) = arguments.start("xp", 5_000, &logs).await?;
        let (users, forms) = (database.user_ids().await?, database.form_ids().await?);
        ensure!(!forms.is_empty(), "the database has no forms; run `xp seed --size l` first");
        let who = (arguments.account, arguments.password.as_str());
        let people = people::sign_in(&mut database, server.address, who.0, who.1, arguments.people).await?;
        let mut open_forms = Vec::new();
        let mut connection = Connection::open(server.address).await?;
        for number in 0..OPEN_FORMS {
            let title = format!("Visit {number}");
            open_forms.push(people::make_form(&mut connection, &people[0], &title).await?);
        }
        let followed = database.ids_of(people.iter().map(|person| person.email.clone()).collect()).await?;
        let streams =
            Streams::open(server.address, arguments.streams, &people, &open_forms, &followed).await?;
        let sign_ins = AtomicU32::new(arguments.people);
        let (password, documents) = (arguments.password.clone(), World::documents());
        let world = World { users, forms, open_forms, password, documents };
        let crowd = Arc::new(Crowd { address: server.address, world, people, sign_ins });
        let clients = crowd.connect().await?;
        let first = arguments.rates.iter().copied().min().unwrap_or(1000);
        let (_, clients) = crowd.load(clients, first, WARM_UP, arguments.seed).await?;
        Ok(Self { arguments, server, metrics, database, crowd, clients, streams, _logs: logs })
    }

    async fn step(&mut self, rate: u32) -> Result<Step> {
        tokio::time::sleep(PAUSE).await;
        let before = (Scrape::read(self.metrics).await?, self.database.statements().await?, self.cpu()?);
        let events = self.streams.events();
        let clients = std::mem::take(&mut self.clients);
        let duration = Duration::from_secs(self.arguments.seconds);
        let seed = self.arguments.seed.wrapping_add(rate.into());
        let (told, clients) = self.crowd.load(clients, rate, duration, seed).await?;
        self.clients = clients;
        let after = self.cpu()?;
        let seconds = told.elapsed.as_secs_f64();
        let mut busy = [None; 4];
        for (busy, (after, before)) in busy.iter_mut().zip(after.into_iter().zip(before.2)) {
            *busy =
                after.zip(before).map(|(after, before)| after.saturating_sub(before).as_secs_f64() / seconds);
        }
        Ok(Step {
            asked: rate,
            told,
            cache: Scrape::read(self.metrics).await?.since(&before.0),
            statements: self.database.statements().await? - before.1,
            events: self.streams.events() - events,
            busy,
        })
    }

    fn cpu(&self) -> Result<[Option<Duration>; 4]> {
        Ok([
            Some(cpu::of_self()?),
            Some(cpu::of_process(self.server.process_id)?),
            self.database.postmaster.map(cpu::of_postgres).transpose()?,
            self.arguments.redis_process.map(cpu::of_process).transpose()?,
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_goes_up_until_it_is_too_much_and_then_between() {
        assert_eq!(between(Some(10_000), None), Some(12_500));
        assert_eq!(between(Some(10_000), Some(12_000)), Some(11_000));
        assert_eq!(between(Some(10_000), Some(10_200)), None);
        assert_eq!(between(None, Some(2_000)), Some(1_000));
        assert_eq!(between(None, None), None);
    }
}
