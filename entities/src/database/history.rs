//! Has the database gone back in time? After a restore, or a failover to a server that had not got the last
//! transactions, what this process has read may never have happened, and numbers are given out again.
//! PostgreSQL tells by where its log is (timeline and position), and by which database and table it is. Not
//! here: what follows (`revocation`, `cache`).

use std::{
    fmt,
    str::FromStr,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{database::Database, error::Error};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// What was seen last.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    looked: Option<Instant>,
    place: Option<Place>,
    /// It has gone back, and nobody has drawn the conclusions yet.
    has_gone_back: bool,
    /// Looking is not allowed here, and that was said.
    has_complained: bool,
}

/// A point in the history of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Timeline, database and table: of another one nothing is known.
    line: String,
    /// Bytes of the log so far.
    position: i64,
    /// When its server was started.
    since: String,
}

impl Place {
    /// Whether this is an earlier point than the other one, or one of another history.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.line != other.line || self.position < other.position
    }

    /// Whether a database that was there then may have been restored since, while nobody looked: every
    /// restore of its files starts a server anew.
    pub(crate) fn may_be_restored_since(&self, then: &Self) -> bool {
        self.is_before(then) || self.since != then.since
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.line, self.position, self.since)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, ' ');
        let mut part = || parts.next().ok_or(());
        let (line, position, since) =
            (part()?.to_owned(), part()?.parse().map_err(|_| ())?, part()?.to_owned());
        Ok(Self { line, position, since })
    }
}

/// The timeline is the first eight digits of the name of a file of the log. A standby has none of its own.
/// Text: these are functions and catalogues of PostgreSQL itself, which the builders do not know.
const WHERE: &str = "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) || '/' || c.tableoid || \
                     '/' || (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()), \
    (pg_current_wal_insert_lsn() - '0/0')::bigint, extract(epoch FROM pg_postmaster_start_time())::text \
    FROM revocation_counter c WHERE NOT pg_is_in_recovery()";

impl History {
    /// Looks, if it is time to; is this an earlier point than the last one, or one of another history? Where
    /// it cannot be told (SQLite; a server that hides its log) it has not.
    pub(crate) async fn has_gone_back(&self, database: &Database) -> bool {
        {
            let mut seen = self.seen();
            if database.pool().is_none() || seen.looked.is_some_and(|at| at.elapsed() < LOOK) {
                return seen.has_gone_back;
            }
            seen.looked = Some(Instant::now());
        }
        match Self::place(database).await {
            Ok(Some(place)) => self.note(place),
            Ok(None) => self.seen().has_gone_back,
            Err(error) => {
                self.seen().looked = None;
                // Most likely the database is away, which is told elsewhere.
                if !matches!(error, Error::Unavailable(_))
                    && !std::mem::replace(&mut self.seen().has_complained, true)
                {
                    tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "the database does not say where its log is"
                    );
                }
                self.seen().has_gone_back
            }
        }
    }

    fn note(&self, place: Place) -> bool {
        let mut seen = self.seen();
        seen.has_gone_back |= seen.place.as_ref().is_some_and(|seen| place.is_before(seen));
        seen.place = Some(place);
        seen.has_gone_back
    }

    /// The conclusions are drawn.
    pub(crate) fn acknowledge(&self) {
        self.seen().has_gone_back = false;
    }

    /// What was seen last.
    pub(crate) fn last(&self) -> Option<Place> {
        self.seen().place.clone()
    }

    /// Where it is now.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn place(database: &Database) -> Result<Option<Place>, Error> {
        let mut sql = database.sql();
        sql.push(WHERE);
        let rows = database.fetch("history.look", "revocation_counter", sql, |cells| {
            Ok(Place { line: cells.next()?, position: cells.next()?, since: cells.next()? })
        });
        Ok(rows.await?.into_iter().next())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().expect("no panic happens under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_timeline_or_earlier_position_is_noticed() {
        let history = History::default();
        let at = |line: &str, position| Place { line: line.to_owned(), position, since: "1".to_owned() };
        assert!(!history.note(at("1", 10)), "nothing was known");
        assert!(!history.note(at("1", 10)) && !history.note(at("1", 11)));
        assert!(history.note(at("1", 9)), "restored");
        assert!(history.note(at("1", 10)), "told until somebody has done what follows");
        history.acknowledge();
        assert!(!history.note(at("1", 11)));
        assert!(history.note(at("2", 20)), "a standby took over");
        let place = at("00000001/1/2", 30);
        assert_eq!(place.to_string().parse().as_ref(), Ok(&place));
        let restarted = Place { since: "2".to_owned(), ..place.clone() };
        assert!(restarted.may_be_restored_since(&place) && !restarted.is_before(&place));
    }
}
