//! One step of the day: so many requests a second for so long, each at a time that is fixed beforehand (an open loop).
//! Latency counts from that time, so that a server which keeps others waiting is not measured by fewer requests. Not
//! here: which steps there are (`day`).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};

use super::{
    mix::{self, Kind, World},
    people::{Person, connection_of_sign_in},
};
use crate::{
    client::Connection,
    overload::{Schedule, connect, quantile},
};

/// Connections that each person has.
const OF_EACH: u32 = 4;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What all steps share.
pub(super) struct Crowd {
    pub(super) address: SocketAddr,
    pub(super) world: World,
    pub(super) people: Vec<Person>,
    /// Sign-ins so far; each comes from another address.
    pub(super) sign_ins: AtomicU32,
}

/// An open connection and whose it is.
pub(super) struct Client {
    person: usize,
    connection: Connection,
}

/// What came of a step.
#[derive(Default)]
pub(super) struct Told {
    /// From the time that a request was meant for to the end of its answer, by kind; good answers only.
    pub(super) micros: BTreeMap<Kind, Vec<u32>>,
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) rows: u64,
    pub(super) elapsed: Duration,
}

impl Told {
    pub(super) fn good(&self) -> usize {
        self.micros.values().map(Vec::len).sum()
    }

    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Milliseconds of these parts of all requests, failed ones left out.
    pub(super) fn quantiles(&self, parts: &[f64]) -> Vec<f64> {
        let mut all: Vec<u32> = self.micros.values().flatten().copied().collect();
        parts.iter().map(|part| quantile(&mut all, *part)).collect()
    }

    fn fail(&mut self, kind: Kind, why: &str) {
        *self.failed.entry(format!("{kind:?}: {why}")).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        for (kind, micros) in other.micros {
            self.micros.entry(kind).or_default().extend(micros);
        }
        for (why, count) in other.failed {
            *self.failed.entry(why).or_default() += count;
        }
        self.rows += other.rows;
    }
}

impl Crowd {
    /// The connections of all people, each person from an address of their own.
    pub(super) async fn connect(&self) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for number in 0..self.people.len() as u32 * OF_EACH {
            let person = number as usize % self.people.len();
            clients.push(Client { person, connection: self.open(person).await? });
        }
        Ok(clients)
    }

    async fn open(&self, person: usize) -> Result<Connection> {
        Connection::over(connect(self.address, 2 + person as u32).await?)
    }

    /// Sends so many requests a second; gives the connections back.
    pub(super) async fn load(
        self: &Arc<Self>,
        clients: Vec<Client>,
        per_second: u32,
        duration: Duration,
        seed: u64,
    ) -> Result<(Told, Vec<Client>)> {
        let schedule = Schedule::new(per_second.into(), duration, u64::MAX);
        let mut running = JoinSet::new();
        for (number, client) in clients.into_iter().enumerate() {
            let (crowd, schedule) = (Arc::clone(self), Arc::clone(&schedule));
            let random = fastrand::Rng::with_seed(seed ^ ((number as u64) << 32));
            running.spawn(async move { crowd.drive(client, &schedule, random).await });
        }
        let (mut told, mut clients) = (Told::default(), Vec::new());
        while let Some(ended) = running.join_next().await {
            let (of_one, client) = ended??;
            told.add(of_one);
            clients.push(client);
        }
        told.elapsed = schedule.begin.elapsed();
        Ok((told, clients))
    }

    async fn drive(
        &self,
        mut client: Client,
        schedule: &Schedule,
        mut random: fastrand::Rng,
    ) -> Result<(Told, Client)> {
        let mut told = Told::default();
        while let Some(due) = schedule.draw() {
            let kind = World::draw_kind(&mut random);
            sleep_until(due.into()).await;
            let answered = timeout(ANSWER_WITHIN, self.ask(kind, &mut client, &mut random)).await;
            match answered {
                Ok(Ok(Ok(rows))) => {
                    let micros = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
                    told.micros.entry(kind).or_default().push(micros);
                    told.rows += rows;
                }
                Ok(Ok(Err(refusal))) => told.fail(kind, &refusal),
                broken => {
                    told.fail(
                        kind,
                        if broken.is_err() { "no answer in time" } else { "the connection broke" },
                    );
                    client.connection = self.open(client.person).await?;
                }
            }
        }
        Ok((told, client))
    }

    /// The rows of a good answer, or what was answered instead.
    async fn ask(
        &self,
        kind: Kind,
        client: &mut Client,
        random: &mut fastrand::Rng,
    ) -> Result<Result<u64, String>> {
        let person = &self.people[client.person];
        let request = self.world.request(kind, person, random);
        let mut own;
        let connection = if kind == Kind::SignIn {
            own = connection_of_sign_in(self.address, self.sign_ins.fetch_add(1, Ordering::Relaxed)).await?;
            &mut own
        } else {
            &mut client.connection
        };
        let answer = connection.exchange(&request).await?;
        if !mix::is_good(kind, &answer) {
            return Ok(Err(format!("{} {}", answer.status, code_of(answer.body))));
        }
        if matches!(kind, Kind::Refresh | Kind::SignIn) {
            person.keep(answer.body)?;
        }
        Ok(Ok(mix::rows(answer.body)))
    }
}

/// The code of the first error in an answer.
fn code_of(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let code = text.split_once("\"code\":\"").and_then(|(_, rest)| rest.split('"').next());
    code.map_or_else(|| text.chars().take(80).collect(), str::to_owned)
}
