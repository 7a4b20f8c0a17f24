//! What the hall needs of the rooms below that have not moved in yet: migrations, seeds, demo accounts. Each function
//! is one line once `migration` and `entities::seed` are there; nothing else in the hall changes.
// STUB: replace the bodies by `migration::up(store.connection())` and so on.

use entities::{Store, id::UserId, user::Role};
use uuid::Uuid;

/// One migration and whether it was applied.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// How much demo data to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A few hundred rows.
    S,
    /// What the benchmarks use.
    M,
    /// Ten times that.
    L,
}

/// How far seeding is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The table that is being filled.
    pub table: &'static str,
    /// Rows written.
    pub done: u64,
    /// Rows to write.
    pub total: u64,
}

/// An account of the demo data.
#[derive(Clone, Debug)]
pub struct DemoAccount {
    /// Its email address.
    pub email: String,
    /// Its role.
    pub role: Role,
    /// Its id.
    pub id: UserId,
}

/// Something below failed; the text is safe to show.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// Applies all pending migrations.
#[expect(clippy::unused_async, reason = "the real one works on the database")]
pub async fn up(_store: &Store) -> Result<(), Failure> {
    Ok(())
}

/// Takes back the last migrations.
#[expect(clippy::unused_async, reason = "the real one works on the database")]
pub async fn down(_store: &Store, _steps: u32) -> Result<(), Failure> {
    Ok(())
}

/// All migrations in order, with whether they were applied.
#[expect(clippy::unused_async, reason = "the real one works on the database")]
pub async fn status(_store: &Store) -> Result<Vec<Step>, Failure> {
    Ok(Vec::new())
}

/// Whether there is no account yet.
#[expect(clippy::unused_async, reason = "the real one works on the database")]
pub async fn is_empty(_store: &Store) -> Result<bool, Failure> {
    Ok(false)
}

/// Fills the database with demo data.
#[expect(clippy::unused_async, reason = "the real one works on the database")]
pub async fn seed(_store: &Store, _size: Size, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<(), Failure> {
    progress(Progress { table: "users", done: 0, total: 0 });
    Ok(())
}

/// The accounts that seeding makes first, one of each role at least.
pub fn demo_accounts() -> Vec<DemoAccount> {
    let account = |name: &str, role, number: u128| DemoAccount {
        email: format!("{name}@example.com"),
        role,
        id: UserId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number)),
    };
    vec![account("admin", Role::Admin, 1), account("collector", Role::Collector, 2)]
}
