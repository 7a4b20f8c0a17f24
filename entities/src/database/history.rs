//! Has the database gone back in time? After a restore, or a failover to a server that had not got the last transactions,
//! what this process has read may never have happened, and numbers are given out again. PostgreSQL tells by where its log
//! is (timeline and position), and by which database and table it is. Not here: what follows (`revocation`, `cache`).

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
}

impl Place {
    /// Whether this is an earlier point than the other one, or one of another history.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.line != other.line || self.position < other.position
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.line, self.position)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (line, position) = text.rsplit_once(' ').ok_or(())?;
        Ok(Self { line: line.to_owned(), position: position.parse().map_err(|_| ())? })
    }
}

/// The timeline is the first eight digits of the name of a file of the log. A standby has none of its own. Text: these are
/// functions and catalogues of PostgreSQL itself, which the builders do not know.
const WHERE: &str = "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) || '/' || c.tableoid || \
                     '/' || (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()), \
    (pg_current_wal_insert_lsn() - '0/0')::bigint \
    FROM revocation_counter c WHERE NOT pg_is_in_recovery()";

impl History {
    /// Looks, if it is time to; is this an earlier point than the last one, or one of another history? Where it cannot be
    /// told (SQLite; a server that hides its log) it has not.
    pub(crate) async fn has_gone_back(&self, database: &Database) -> bool {
        {
            let mut seen = self.seen();
            if database.pool().is_none() || seen.looked.is_some_and(|at| at.elapsed() < LOOK) {
                return false;
            }
            seen.looked = Some(Instant::now());
        }
        match Self::place(database).await {
            Ok(Some(place)) => self.note(place),
            Ok(None) => false,
            Err(error) => {
                // Most likely the database is away, which is told elsewhere.
                if !matches!(error, Error::Unavailable(_))
                    && !std::mem::replace(&mut self.seen().has_complained, true)
                {
                    tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "the database does not say where its log is"
                    );
                }
                false
            }
        }
    }

    fn note(&self, place: Place) -> bool {
        let mut seen = self.seen();
        let has_gone_back = seen.place.as_ref().is_some_and(|seen| place.is_before(seen));
        seen.place = Some(place);
        has_gone_back
    }

    /// What was seen last.
    pub(crate) fn last(&self) -> Option<Place> {
        self.seen().place.clone()
    }

    async fn place(database: &Database) -> Result<Option<Place>, Error> {
        let mut sql = database.sql();
        sql.push(WHERE);
        let rows = database.fetch("history.look", "revocation_counter", sql, |cells| {
            Ok(Place { line: cells.next()?, position: cells.next()? })
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
        let at = |line: &str, position| Place { line: line.to_owned(), position };
        assert!(!history.note(at("1", 10)), "nothing was known");
        assert!(!history.note(at("1", 10)) && !history.note(at("1", 11)));
        assert!(history.note(at("1", 9)), "restored");
        assert!(!history.note(at("1", 10)), "told once");
        assert!(history.note(at("2", 20)), "a standby took over");
        let place = at("00000001/1/2", 30);
        assert_eq!(place.to_string().parse(), Ok(place));
    }
}
