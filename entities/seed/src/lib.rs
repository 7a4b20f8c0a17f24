//! Demo data: a small world that looks like a year of use, for development, tests and benchmarks. The same size on
//! the same day gives the same rows on both databases. In reading order: `people` (accounts, sessions), `forms`
//! (with `answers`), `submissions`, `tracks` (positions), `activity`; `sink` writes, `random` decides.
//!
//! Not here: the tables and their partitions (`migration`). Invariant: a seed is one transaction into an empty
//! database, so there is never half a world and never demo data between real data.

#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod activity;
mod answers;
mod forms;
mod people;
mod random;
mod sink;
mod submissions;
mod tracks;

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use chrono::{DateTime, Datelike, NaiveTime, TimeDelta};
use entities::{
    Error, Role, Store,
    clock::{self, Time},
    id::UserId,
};
use sea_orm::{ConnectionTrait, DbBackend, Statement};

use sink::{Loader, failed};

/// Microseconds since 1970: what times are while they are made up.
type Micros = i64;

const SECOND: Micros = 1_000_000;
const MINUTE: Micros = 60 * SECOND;
const HOUR: Micros = 60 * MINUTE;
const DAY: Micros = 24 * HOUR;

/// How far back the demo data goes.
const DAYS: i64 = 400;

/// How much data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A few hundred rows.
    S,
    /// 20,000 users, 100,000 sessions, 5,000 forms, 200,000 submissions, 1,000,000 locations, 200,000 activity
    /// entries.
    M,
    /// Five times `M`.
    L,
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "s" | "S" => Ok(Self::S),
            "m" | "M" => Ok(Self::M),
            "l" | "L" => Ok(Self::L),
            _ => Err(Error::Refused(format!("unknown size `{text}`; known: s, m, l"))),
        }
    }
}

/// Rows of each kind.
#[derive(Clone, Copy)]
struct Counts {
    users: usize,
    sessions: usize,
    forms: usize,
    submissions: usize,
    locations: usize,
    activity: usize,
}

impl Size {
    fn counts(self) -> Counts {
        let thousands = |n: usize| Counts {
            users: 20_000 * n,
            sessions: 100_000 * n,
            forms: 5_000 * n,
            submissions: 200_000 * n,
            locations: 1_000_000 * n,
            activity: 200_000 * n,
        };
        match self {
            Self::S => {
                Counts { users: 25, sessions: 60, forms: 10, submissions: 120, locations: 300, activity: 80 }
            }
            Self::M => thousands(1),
            Self::L => thousands(5),
        }
    }
}

/// How far a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The table.
    pub table: &'static str,
    /// Rows written.
    pub done: u64,
    /// Rows planned.
    pub total: u64,
}

/// What was loaded.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Tables in the order of loading, with their rows.
    pub tables: Vec<(&'static str, u64)>,
    /// How long it took, statistics included.
    pub elapsed: Duration,
}

/// An account that every seed has, under the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemoAccount {
    /// Its id.
    pub id: UserId,
    /// Its address.
    pub email: &'static str,
    /// Its name.
    pub display_name: &'static str,
    /// Its role.
    pub role: Role,
}

/// The password that development gives to the demo accounts; production refuses to start where one has it.
pub const DEMO_PASSWORD: &str = "xp-graph-demo";

/// The accounts to sign in as: one of each role. Seeding gives them no password.
pub fn demo_accounts() -> Vec<DemoAccount> {
    people::demo_accounts()
}

/// Whether no table has a row that demo data could get mixed up with.
pub async fn is_empty(store: &Store) -> Result<bool, Error> {
    let sql = "select not (exists (select 1 from users) or exists (select 1 from user_locations) \
               or exists (select 1 from user_activity_logs))";
    ask(store, sql).await
}

/// The first and the last moment that demo data made at `now` may have. On PostgreSQL the partitions of these
/// months have to be there before `run`: `migration::ensure_partitions_between`.
pub fn span(now: Time) -> (Time, Time) {
    let today = now.with_time(NaiveTime::MIN).earliest().unwrap_or(now);
    (today - TimeDelta::days(DAYS), today)
}

/// Fills an empty database with demo data up to today.
pub async fn run(
    store: &Store,
    size: Size,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Summary, Error> {
    run_at(store, size, clock::now(), progress).await
}

/// Fills an empty database with demo data up to the day of `now`: the same rows for the same day.
pub async fn run_at(
    store: &Store,
    size: Size,
    now: Time,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Summary, Error> {
    let start = Instant::now();
    let (first, today) = span(now);
    check(store, first).await?;
    let counts = size.counts();
    let mut loader = Loader::begin(store, progress).await?;

    let people = people::plan(counts, today.timestamp_micros());
    people.load(&mut loader).await?;
    let forms = forms::plan(counts, &people);
    forms.load(&mut loader, &people).await?;
    let submissions = submissions::plan(counts, &people, &forms);
    let filled_in_at = submissions.load(&mut loader, &people, &forms).await?;
    tracks::load(&mut loader, counts, &people, filled_in_at).await?;
    activity::load(&mut loader, counts, &people, &forms, &submissions).await?;

    let tables = loader.commit().await?;
    let names: Vec<&str> = tables.iter().map(|(table, _)| *table).collect();
    let analyze = match store.connection().get_database_backend() {
        DbBackend::Postgres => format!("analyze {}", names.join(", ")),
        _ => "analyze".to_owned(),
    };
    store.connection().execute_unprepared(&analyze).await.map_err(failed)?;
    Ok(Summary { tables, elapsed: start.elapsed() })
}

async fn check(store: &Store, first: Time) -> Result<(), Error> {
    if !is_empty(store).await? {
        return Err(Error::Refused(
            "the database is not empty: demo data is only loaded into a new one".to_owned(),
        ));
    }
    if store.connection().get_database_backend() == DbBackend::Postgres {
        let month = format!("user_locations_{}_{:02}", first.year(), first.month());
        if !ask(store, &format!("select to_regclass('{month}') is not null")).await? {
            let text = format!("the partition `{month}` is missing: make those of `seed::span` first");
            return Err(Error::Refused(text));
        }
    }
    Ok(())
}

async fn ask(store: &Store, sql: &str) -> Result<bool, Error> {
    let statement = Statement::from_string(store.connection().get_database_backend(), sql);
    let row = store.connection().query_one_raw(statement).await.map_err(failed)?;
    row.map_or(Ok(false), |row| row.try_get_by_index(0)).map_err(failed)
}

fn time(at: Micros) -> Time {
    // Everything made up lies within `span`; the far end of the calendar is not reached.
    DateTime::from_timestamp_micros(at).unwrap_or_default()
}
