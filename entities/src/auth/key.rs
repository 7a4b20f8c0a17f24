//! The keys of access tokens: EC P-256 pairs, the private half sealed. A key is published before it signs,
//! and stays good after another has taken over, both long enough for every instance and every gateway to
//! know. Which one signs is a matter of the time alone, so all instances agree without talking. Not here:
//! tokens.

use std::sync::Arc;

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use sea_orm::{QueryOrder as _, Set, entity::prelude::*};

use crate::{
    auth::{
        revocation::{self, LONGEST_TOKEN_SECONDS, Revocation, Revocations, counter},
        secret::Secret,
    },
    clock::{self, Time},
    database::{
        Database,
        sql::{Hidden, record},
        transaction::SqlTransaction,
    },
    error::Error,
};

/// How long a key is published before it signs: three polls of a gateway that asks once a minute.
const NEXT: TimeDelta = TimeDelta::seconds(180);
/// How long a key stays good after another has taken over: as long as the longest token, and a little.
const RETIRED: TimeDelta = TimeDelta::seconds(LONGEST_TOKEN_SECONDS as i64 + 300);
/// How old a key is when the server makes the next one by itself.
const ROTATION: TimeDelta = TimeDelta::days(7);

record! {
    /// A row of `signing_keys`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "signing_keys")]
    pub struct Model {
        /// Primary key: its RFC 7638 thumbprint.
        #[sea_orm(primary_key, auto_increment = false)]
        pub kid: String,
        /// The public half as a JSON Web Key (RFC 7517).
        pub public_key: String,
        /// The private half, sealed; empty once revoked.
        pub sealed_key: Hidden,
        /// When it was made.
        pub created_at: Time,
        /// When it begins to sign.
        pub signs_from: Time,
        /// When it was revoked.
        pub revoked_at: Option<Time>,
    }
}

/// A key belongs to nothing.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Published, does not sign yet.
    Next,
    /// Signs.
    Active,
    /// Signs no more; what it has signed is still good.
    Retired,
}

impl State {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }
}

/// What is known of a key without its private half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDescription {
    /// Its RFC 7638 thumbprint.
    pub kid: String,
    /// When it begins to sign.
    pub signs_from: Time,
    /// Where it is in its life.
    pub state: State,
    /// Its private half was sealed with this secret.
    pub is_readable: bool,
}

/// A key that is good.
#[derive(Clone)]
pub struct SigningKey {
    /// Its RFC 7638 thumbprint.
    pub kid: String,
    /// The public half as a JSON Web Key (RFC 7517).
    pub public_key: String,
    /// The private half, PKCS#8; never shown, never logged.
    pub private_key: Vec<u8>,
    /// When it begins to sign.
    pub signs_from: Time,
    /// Where it is in its life.
    pub state: State,
}

/// The good keys, the one that signs last first; the first key of an empty database is made on the way.
///
/// # Errors
/// The database's; `Refused` when a key was sealed by another secret.
pub async fn load(
    database: &Database,
    revocations: &Arc<Revocations>,
    secret: &Secret,
) -> Result<Vec<SigningKey>, Error> {
    let now = clock::now();
    let keys = read(database, secret, now).await?;
    match keys.iter().map(|key| key.signs_from).max() {
        Some(newest) if now - newest < ROTATION => return Ok(keys),
        Some(_) => rotate_if(database, revocations, secret, Some(ROTATION)).await?,
        None => rotate_if(database, revocations, secret, Some(TimeDelta::zero())).await?,
    };
    // A moment later: the first key signs from now on.
    read(database, secret, clock::now()).await
}

/// Makes the next key. Its thumbprint.
///
/// # Errors
/// The database's.
pub async fn rotate(
    database: &Database,
    revocations: &Arc<Revocations>,
    secret: &Secret,
) -> Result<String, Error> {
    rotate_if(database, revocations, secret, None).await.map(Option::unwrap_or_default)
}

/// Drops a key at once: nothing that it has signed is good any more. Another signs from now on. `false`: there is no
/// such key.
///
/// # Errors
/// The database's.
pub async fn revoke(
    database: &Database,
    revocations: &Arc<Revocations>,
    secret: &Secret,
    kid: &str,
) -> Result<bool, Error> {
    let (transaction, now) = (begin_locked(database).await?, clock::now());
    let revoked = ActiveModel {
        revoked_at: Set(Some(now)),
        sealed_key: Set(Hidden(String::new())),
        ..Default::default()
    };
    let update =
        Entity::update_many().set(revoked).filter(Column::Kid.eq(kid)).filter(Column::RevokedAt.is_null());
    if transaction.write("key.revoke", Entity, &update).await? == 0 {
        return Ok(false);
    }
    if !transaction.all::<Model>("key.list", find()).await?.iter().any(|row| row.signs_from <= now) {
        insert(&transaction, secret, now, now).await?;
    }
    revocation::commit(transaction, revocations, vec![Revocation::Keys]).await?;
    Ok(true)
}

/// The good keys, the one that signs last first.
fn find() -> Select<Entity> {
    Entity::find()
        .filter(Column::RevokedAt.is_null())
        .order_by_desc(Column::SignsFrom)
        .order_by_asc(Column::Kid)
}

/// Those of these keys that count, the one that signs last first, each with where it is in its life.
fn in_their_lives(rows: Vec<Model>, now: Time) -> Vec<(Model, State)> {
    // The newest that has begun signs; those before it retire when their successor begins.
    let (mut keys, mut successor): (Vec<(Model, State)>, Option<Time>) = (Vec::new(), None);
    for row in rows {
        let state = match successor {
            _ if row.signs_from > now => State::Next,
            None => State::Active,
            Some(since) if now - since < RETIRED => State::Retired,
            Some(_) => break,
        };
        if state != State::Next {
            successor = Some(row.signs_from);
        }
        keys.push((row, state));
    }
    keys
}

/// The good keys, the one that signs last first, also those that were sealed with another secret.
///
/// # Errors
/// The database's.
pub async fn list(database: &Database, secret: &Secret) -> Result<Vec<KeyDescription>, Error> {
    let rows: Vec<Model> = database.all("key.list", find()).await?;
    let described = in_their_lives(rows, clock::now()).into_iter().map(|(row, state)| {
        let is_readable = secret.open(&row.kid, &row.sealed_key.0).is_some();
        KeyDescription { kid: row.kid, signs_from: row.signs_from, state, is_readable }
    });
    Ok(described.collect())
}

async fn read(database: &Database, secret: &Secret, now: Time) -> Result<Vec<SigningKey>, Error> {
    let rows: Vec<Model> = database.all("key.list", find()).await?;
    let keys = in_their_lives(rows, now).into_iter().map(|(row, state)| {
        let private_key = secret.open(&row.kid, &row.sealed_key.0).ok_or_else(|| {
            Error::Refused(format!(
                "the key {} of access tokens was sealed with another secret\n  fix:   give this server the \
                 secret of the others (XP_AUTH_SECRET), or drop the key with `xp keys revoke {}`, which \
                 signs everybody out",
                row.kid, row.kid
            ))
        })?;
        let Model { kid, public_key, signs_from, .. } = row;
        Ok(SigningKey { kid, public_key, private_key, signs_from, state })
    });
    keys.collect()
}

/// Makes a key unless the newest is younger than `older_than`. The first one of all signs at once.
async fn rotate_if(
    database: &Database,
    revocations: &Arc<Revocations>,
    secret: &Secret,
    older_than: Option<TimeDelta>,
) -> Result<Option<String>, Error> {
    let (transaction, now) = (begin_locked(database).await?, clock::now());
    let keys: Vec<Model> = transaction.all("key.list", find()).await?;
    let newest = keys.iter().map(|key| key.signs_from).max();
    // Whoever came first while this one waited for the lock has done it.
    if let (Some(newest), Some(age)) = (newest, older_than)
        && (age.is_zero() || now - newest < age)
    {
        return Ok(None);
    }
    let signs_from = if newest.is_some() { now + NEXT } else { now };
    let kid = insert(&transaction, secret, now, signs_from).await?;
    revocation::commit(transaction, revocations, vec![Revocation::Keys]).await?;
    Ok(Some(kid))
}

/// One at a time makes or drops keys, on all instances together.
async fn begin_locked(database: &Database) -> Result<SqlTransaction, Error> {
    let transaction = SqlTransaction::begin(database).await?;
    let unchanged =
        counter::Entity::update_many().col_expr(counter::Column::Seq, counter::Column::Seq.into_expr());
    transaction.write("key.lock", counter::Entity, &unchanged).await?;
    Ok(transaction)
}

async fn insert(
    transaction: &SqlTransaction,
    secret: &Secret,
    now: Time,
    signs_from: Time,
) -> Result<String, Error> {
    let (kid, public_key, private_key) = generate();
    let key = ActiveModel {
        kid: Set(kid.clone()),
        public_key: Set(public_key),
        sealed_key: Set(Hidden(secret.seal(&kid, &private_key))),
        created_at: Set(now),
        signs_from: Set(signs_from),
        ..Default::default()
    };
    transaction.insert("key.insert", key).await?;
    Ok(kid)
}

/// Thumbprint, public JWK and private PKCS#8 of a new pair.
fn generate() -> (String, String, Vec<u8>) {
    let pair =
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("the system gives random numbers");
    let private_key = pair.to_pkcs8v1().expect("a pair that was just made can be written").as_ref().to_vec();
    // Uncompressed: one byte of form, then x and y.
    let point = pair.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
    // The required members in the order of their names, without spaces (RFC 7638, §3).
    let required = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, required.as_bytes()));
    let public_key = format!(
        r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","kid":"{kid}","use":"sig","alg":"ES256"}}"#
    );
    (kid, public_key, private_key)
}
