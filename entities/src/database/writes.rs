//! Whether what is written is stored at the moment: what became of the last transaction says so. Of failures
//! only those count that the next write meets as well (no room, no device, no right to write); a lock, a
//! constraint or a lost connection says nothing about it. Not here: who writes when no client does
//! (`cache::instance`), and who asks (`/readyz`).

use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, SQLSTATE_LENGTH, primary_of};

/// Why nothing can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// There is no room.
    Full,
    /// The database takes no writes: a file without the right to write, a standby.
    ReadOnly,
    /// Writing to the disk fails.
    Io,
}

impl WriteFault {
    const ALL: [Self; 3] = [Self::Full, Self::ReadOnly, Self::Io];

    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "disk full",
            Self::ReadOnly => "read-only",
            Self::Io => "disk error",
        }
    }

    /// What an error says of the writes to come, if anything.
    pub(super) fn of(error: &Error) -> Option<Self> {
        if matches!(error, Error::ReadOnly(_)) {
            return Some(Self::ReadOnly);
        }
        let code = error.driver_code()?;
        if code.len() == SQLSTATE_LENGTH {
            return match &*code {
                "53100" => Some(Self::Full),
                "25006" => Some(Self::ReadOnly),
                "58030" => Some(Self::Io),
                _ => None,
            };
        }
        match primary_of(&code)? {
            13 => Some(Self::Full),
            8 => Some(Self::ReadOnly),
            10 | 14 => Some(Self::Io),
            _ => None,
        }
    }
}

/// What became of the last write.
#[derive(Debug, Default)]
pub(crate) struct Writes(AtomicU8);

impl Writes {
    pub(super) fn fault(&self) -> Option<WriteFault> {
        let index = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        WriteFault::ALL.get(usize::from(index)).copied()
    }

    /// A transaction is committed.
    pub(crate) fn stored(&self) {
        if self.0.swap(0, Ordering::Relaxed) != 0 {
            tracing::info!("writes are stored again");
        }
    }

    /// A transaction failed with this error.
    pub(crate) fn failed(&self, error: &Error) {
        let Some(fault) = WriteFault::of(error) else { return };
        if self.0.swap(fault as u8 + 1, Ordering::Relaxed) == 0 {
            tracing::error!(fault = fault.name(), "nothing can be stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{DbErr, RuntimeErr, sqlx};

    use super::*;

    #[test]
    fn what_says_nothing_of_the_next_write_is_no_fault() {
        let writes = Writes::default();
        let lost = || DbErr::Conn(RuntimeErr::SqlxError(sqlx::Error::PoolTimedOut.into()));
        for error in [
            Error::Unavailable(lost()),
            Error::Statement { statement: "a.b", source: DbErr::Custom("x".into()) },
            Error::Refused("x".into()),
        ] {
            writes.failed(&error);
            assert_eq!(writes.fault(), None, "{error:?}");
        }
        for fault in WriteFault::ALL {
            writes.0.store(fault as u8 + 1, Ordering::Relaxed);
            assert_eq!(writes.fault(), Some(fault));
        }
        writes.stored();
        assert_eq!(writes.fault(), None);
    }
}
