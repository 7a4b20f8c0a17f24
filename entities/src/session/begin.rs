//! Sessions begin and go on: signing in makes one, its refresh tokens keep it alive. Which of its tokens was
//! used is decided on the primary with the row locked: the current one is exchanged; one that was exchanged
//! less than ten seconds ago gets the current one (several tabs agree, a lost answer does no harm); one that
//! was exchanged earlier was stolen or has been, and ends the session. Not here: passwords, access tokens,
//! other ends.

use std::net::IpAddr;

use chrono::TimeDelta;
use sea_orm::{
    ActiveValue::Unchanged, QueryOrder as _, QuerySelect as _, QueryTrait, Set, entity::prelude::*,
    sea_query::LockType,
};

use super::{ActiveModel, Column, EndReason, Entity, end, token::RefreshToken};
use crate::{
    activity::{Action, ActivityEntry},
    auth::secret::{Secret, random_text},
    clock::{self, Time},
    database::{role::Role, sql::Hidden},
    error::Error,
    events::ChangeEvent,
    id::{NodeKind, SessionId, UserId},
    store::{Store, transaction::Transaction},
    user,
};

/// A session ends when its tokens are not used for so long.
const IDLE: TimeDelta = TimeDelta::days(14);
/// A session ends after so long in any case.
const ABSOLUTE: TimeDelta = TimeDelta::days(90);
/// Live sessions of one account at most; the least used one makes room.
const MAX_LIVE: usize = 20;
/// How long after its exchange a token still gets the newest one.
const GRACE: TimeDelta = TimeDelta::seconds(10);
/// Exchanges of a session that are remembered at most; more of them within `GRACE` are no use that people make.
const MAX_EXCHANGES: usize = 16;

/// How somebody signs in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Device<'a> {
    /// The session's name.
    pub name: Option<&'a str>,
    /// The address of the sign-in.
    pub address: Option<IpAddr>,
    /// The client's own description of itself.
    pub user_agent: Option<&'a str>,
}

/// What a session gives its client.
#[derive(Clone)]
pub struct Grant {
    /// The session.
    pub session: SessionId,
    /// The account.
    pub user: UserId,
    /// Its role now.
    pub role: Role,
    /// The epoch of its rights now.
    pub epoch: i64,
    /// The next refresh token. A secret.
    pub refresh_token: String,
}

/// Begins a session of an account whose password was just checked. `None` where the account was blocked, or its rights
/// changed, since `epoch` was read. A new `password_hash` replaces the old one, where the old one is outdated.
///
/// # Errors
/// The database's.
pub async fn begin(
    store: &Store,
    secret: &Secret,
    (user, epoch): (UserId, i64),
    password_hash: Option<&str>,
    device: Device<'_>,
) -> Result<Option<Grant>, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let find = user::Entity::find_by_id(user)
        .filter(user::Column::IsActive.into_expr())
        .filter(user::Column::Epoch.eq(epoch))
        .lock_exclusive();
    let found: Option<user::Row> = transaction.one("session.user", find).await?;
    let Some(user::Row { role, .. }) = found else { return Ok(None) };
    if let Some(hash) = password_hash {
        let password_hash = Set(Some(Hidden(hash.to_owned())));
        let account = user::ActiveModel { id: Unchanged(user), password_hash, ..Default::default() };
        transaction.update("user.rehash", account).await?;
    }
    make_room(&mut transaction, user).await?;
    let grant = open(&mut transaction, secret, (user, role, epoch), device).await?;
    let subject = Some((NodeKind::Session, grant.session.0));
    let metadata = serde_json::json!({});
    transaction
        .commit(ActivityEntry { user: Some(user), action: Action::SessionCreate, subject, metadata })
        .await?;
    Ok(Some(grant))
}

/// Stores a new session.
pub(crate) async fn open(
    transaction: &mut Transaction,
    secret: &Secret,
    (user, role, epoch): (UserId, Role, i64),
    device: Device<'_>,
) -> Result<Grant, Error> {
    let (session, salt, now) = (SessionId::new(), random_text(), clock::now());
    let begun = ActiveModel {
        id: Set(session),
        user_id: Set(user),
        is_active: Set(true),
        name: Set(device.name.map(str::to_owned)),
        ip_address: Set(device.address.map(|address| address.to_string())),
        user_agent: Set(device.user_agent.map(str::to_owned)),
        created_at: Set(now),
        last_activity: Set(now),
        expires_at: Set(now + IDLE),
        refresh_salt: Set(Some(Hidden(salt.clone()))),
        refresh_counter: Set(Some(0)),
        refreshed_at: Set(Some(now)),
        ends_at: Set(Some(now + ABSOLUTE)),
        ..Default::default()
    };
    transaction.insert("session.insert", begun).await?;
    let account = user::ActiveModel { id: Unchanged(user), last_login: Set(Some(now)), ..Default::default() };
    transaction.update("user.signed_in", account).await?;
    transaction.changed(ChangeEvent::Session { id: session, user });
    transaction.changed(ChangeEvent::User { id: user });
    let refresh_token = super::token::make(secret, &salt, session, 0);
    Ok(Grant { session, user, role, epoch, refresh_token })
}

/// Ends the least used sessions, so that one more fits.
async fn make_room(transaction: &mut Transaction, user: UserId) -> Result<(), Error> {
    let live = end::find_live(user).order_by_desc(Column::LastActivity).order_by_desc(Column::Id);
    let live: Vec<SessionId> = transaction.column("session.live", Entity, &live).await?;
    match live.get(MAX_LIVE - 1..) {
        Some(surplus) if !surplus.is_empty() => {
            end::end(transaction, user, surplus, EndReason::Expired).await.map(drop)
        }
        _ => Ok(()),
    }
}

/// What became of a refresh token.
pub enum Refreshed {
    /// It was exchanged.
    Granted(Grant),
    /// It was exchanged just before: the newest one.
    Repeated(Grant),
    /// It was good once: its session has ended, perhaps just now because of it.
    Ended,
    /// It never was.
    Unknown,
}

/// Which token of its session was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Current,
    /// One that was exchanged just before.
    JustReplaced,
    /// One that was exchanged too long ago.
    Stale,
}

fn use_of(given: i64, current: i64, exchanges: &Exchanges, now: Time) -> Use {
    // A counter beyond the current one is genuine too: the database was set back to before it was given out.
    if given >= current {
        return Use::Current;
    }
    // How many tokens stand between the given one and the current one.
    let back = current.checked_sub(given).and_then(|back| usize::try_from(back - 1).ok());
    let exchanged_at = back.and_then(|back| exchanges.0.get(back));
    if exchanged_at.is_some_and(|at| now - *at <= GRACE) { Use::JustReplaced } else { Use::Stale }
}

/// When the tokens before the current one were exchanged, the newest first.
struct Exchanges(Vec<Time>);

impl Exchanges {
    /// Reads what is stored: the counter of the current token and the moments, in microseconds since 1970. A
    /// program that does not know this column moves only the counter and the last moment on.
    fn read(stored: Option<&str>, counter: i64, refreshed_at: Time) -> Self {
        let earlier = stored.and_then(|stored| {
            let (of, moments) = stored.split_once(':')?;
            (of.parse() == Ok(counter)).then_some(moments)
        });
        let moments = earlier.into_iter().flat_map(|moments| moments.split(',').skip(1));
        let moments = moments.map_while(|moment| Time::from_timestamp_micros(moment.parse().ok()?));
        Self(std::iter::once(refreshed_at).chain(moments).collect())
    }

    /// As it is stored after one more exchange, which makes the token of this counter the current one.
    fn after_one_more(&self, counter: i64, now: Time) -> String {
        let recent = self.0.iter().copied().filter(|at| now - *at <= GRACE);
        let moments = std::iter::once(now).chain(recent).take(MAX_EXCHANGES);
        let moments: Vec<String> = moments.map(|at| at.timestamp_micros().to_string()).collect();
        format!("{counter}:{}", moments.join(","))
    }
}

/// A session and its account, as far as its tokens depend on them.
struct Standing {
    user: UserId,
    role: Role,
    epoch: i64,
    is_live: bool,
    salt: String,
    counter: i64,
    exchanges: Exchanges,
    ends_at: Time,
}

/// The session that a refresh token names. Whether it is one of that session's is seen when it is exchanged.
pub fn named_by(token: &str) -> Option<SessionId> {
    RefreshToken::parse(token).map(|token| token.session)
}

/// Exchanges a refresh token.
///
/// # Errors
/// The database's.
pub async fn refresh(store: &Store, secret: &Secret, token: &str) -> Result<Refreshed, Error> {
    let Some(given) = RefreshToken::parse(token) else { return Ok(Refreshed::Unknown) };
    let (mut transaction, now) = (Transaction::begin(store).await?, clock::now());
    let Some(standing) = standing(&transaction, given.session, now).await? else {
        return Ok(Refreshed::Unknown);
    };
    if !given.is_genuine(secret, &standing.salt) {
        return Ok(Refreshed::Unknown);
    }
    if !standing.is_live {
        return Ok(Refreshed::Ended);
    }
    let Standing { user, role, epoch, .. } = standing;
    let grant = |counter| {
        let refresh_token = super::token::make(secret, &standing.salt, given.session, counter);
        Grant { session: given.session, user, role, epoch, refresh_token }
    };
    let entry = |action, metadata| {
        let subject = Some((NodeKind::Session, given.session.0));
        ActivityEntry { user: Some(user), action, subject, metadata }
    };
    match use_of(given.counter, standing.counter, &standing.exchanges, now) {
        Use::JustReplaced => Ok(Refreshed::Repeated(grant(standing.counter))),
        Use::Current => {
            let counter = given.counter + 1;
            let refreshed = ActiveModel {
                id: Unchanged(given.session),
                refresh_counter: Set(Some(counter)),
                refreshed_at: Set(Some(now)),
                exchanges: Set(Some(standing.exchanges.after_one_more(counter, now))),
                last_activity: Set(now),
                expires_at: Set((now + IDLE).min(standing.ends_at)),
                ..Default::default()
            };
            transaction.update("session.refresh", refreshed).await?;
            transaction.changed(ChangeEvent::Session { id: given.session, user });
            transaction.commit(entry(Action::SessionRefresh, serde_json::json!({}))).await?;
            Ok(Refreshed::Granted(grant(counter)))
        }
        Use::Stale => {
            tracing::warn!(session = %given.session, "a refresh token was used again: its session ends");
            end::end(&mut transaction, user, &[given.session], EndReason::TokenReuse).await?;
            let metadata = serde_json::json!({ "reason": EndReason::TokenReuse.as_str() });
            transaction.commit(entry(Action::SessionEnd, metadata)).await?;
            Ok(Refreshed::Ended)
        }
    }
}

async fn standing(
    transaction: &Transaction,
    session: SessionId,
    now: Time,
) -> Result<Option<Standing>, Error> {
    let mut find = Entity::find_by_id(session)
        .filter(Column::RefreshSalt.is_not_null())
        .inner_join(user::Entity)
        .select_only()
        .columns([Column::UserId, Column::IsActive, Column::ExpiresAt, Column::EndsAt])
        .columns([Column::RefreshSalt, Column::RefreshCounter, Column::RefreshedAt, Column::Exchanges])
        .columns([user::Column::Role, user::Column::Epoch, user::Column::IsActive]);
    // The account is not locked.
    QueryTrait::query(&mut find).lock_with_tables(LockType::Update, [Entity]);
    let found = transaction.rows("session.standing", Entity, &find, |cells| {
        let (user, is_active) = (cells.next()?, cells.next::<bool>()?);
        let (expires_at, ends_at) = (cells.next::<Time>()?, cells.next::<Time>()?);
        let (salt, counter, refreshed_at) = (cells.next()?, cells.next()?, cells.next()?);
        let exchanges = Exchanges::read(cells.next::<Option<String>>()?.as_deref(), counter, refreshed_at);
        let (role, epoch, is_unblocked) = (cells.next()?, cells.next()?, cells.next::<bool>()?);
        let is_live = is_active && is_unblocked && now < expires_at && now < ends_at;
        Ok(Standing { user, role, epoch, is_live, salt, counter, exchanges, ends_at })
    });
    Ok(found.await?.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchanges of the tokens before the current one, so many seconds ago, the newest first.
    fn exchanged<const N: usize>(now: Time, seconds_ago: [i64; N]) -> Exchanges {
        Exchanges(seconds_ago.map(|seconds| now - TimeDelta::seconds(seconds)).to_vec())
    }

    #[test]
    fn each_token_has_its_own_ten_seconds() {
        let now = clock::now();
        let used = |given, exchanges: &Exchanges| use_of(given, 5, exchanges, now);
        let burst = exchanged(now, [1, 9, 10, 11]);
        assert_eq!(used(5, &burst), Use::Current);
        assert_eq!(used(6, &burst), Use::Current, "the database was set back");
        for given in [4, 3, 2] {
            assert_eq!(used(given, &burst), Use::JustReplaced, "{given}");
        }
        for given in [1, 0, -1, i64::MIN] {
            assert_eq!(used(given, &burst), Use::Stale, "{given}");
        }
        let late = Exchanges(vec![now - GRACE - TimeDelta::microseconds(1)]);
        assert_eq!(used(4, &late), Use::Stale);
        assert_eq!(
            used(3, &exchanged(now, [0])),
            Use::Stale,
            "a day old, though its successor was just exchanged"
        );
    }

    #[test]
    fn exchanges_are_stored_as_long_as_they_matter() {
        let now = Time::from_timestamp_micros(100_000_000).expect("a time");
        let stored = exchanged(now, [2, 10, 11]).after_one_more(7, now);
        assert_eq!(stored, "7:100000000,98000000,90000000");
        let read = |stored, counter| Exchanges::read(stored, counter, now).0;
        assert_eq!(read(Some(&*stored), 7), exchanged(now, [0, 2, 10]).0);
        assert_eq!(read(Some(&*stored), 8), [now], "another program has moved on since");
        for nothing in [None, Some(""), Some("7"), Some("7:"), Some("x:1,2"), Some("7:1,x")] {
            assert_eq!(read(nothing, 7), [now], "{nothing:?}");
        }
        let many = Exchanges(vec![now; 100]).after_one_more(7, now);
        assert_eq!(many.split(',').count(), MAX_EXCHANGES);
    }
}
