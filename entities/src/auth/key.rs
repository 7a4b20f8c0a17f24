//! The keys of access tokens: EC P-256 pairs, the private half sealed. A key is published before it signs, and stays
//! good after another has taken over, both long enough for every node and every gateway to know. Which one signs is a
//! matter of the time alone, so all nodes agree without talking. Not here: tokens.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;

use crate::{
    auth::{
        revocation::{LONGEST_TOKEN_SECONDS, Revocation},
        secret::Secret,
    },
    clock::{self, Time},
    database::transaction::Transaction,
    error::Error,
    store::Store,
};

/// How long a key is published before it signs: three polls of a gateway that asks once a minute.
const NEXT: TimeDelta = TimeDelta::seconds(180);
/// How long a key stays good after another has taken over: as long as the longest token, and a little.
const RETIRED: TimeDelta = TimeDelta::seconds(LONGEST_TOKEN_SECONDS as i64 + 300);
/// How old a key is when the server makes the next one by itself.
const ROTATION: TimeDelta = TimeDelta::days(7);

const TABLE: &str = "signing_keys";

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
pub async fn load(store: &Store, secret: &Secret) -> Result<Vec<SigningKey>, Error> {
    let now = clock::now();
    let keys = read(store, secret, now).await?;
    match keys.iter().map(|key| key.signs_from).max() {
        Some(newest) if now - newest < ROTATION => return Ok(keys),
        Some(_) => rotate_if(store, secret, Some(ROTATION)).await?,
        None => rotate_if(store, secret, Some(TimeDelta::zero())).await?,
    };
    // A moment later: the first key signs from now on.
    read(store, secret, clock::now()).await
}

/// Makes the next key. Its thumbprint.
///
/// # Errors
/// The database's.
pub async fn rotate(store: &Store, secret: &Secret) -> Result<String, Error> {
    rotate_if(store, secret, None).await.map(Option::unwrap_or_default)
}

/// Drops a key at once: nothing that it has signed is good any more. Another signs from now on. `false`: there is no
/// such key.
///
/// # Errors
/// The database's.
pub async fn revoke(store: &Store, secret: &Secret, kid: &str) -> Result<bool, Error> {
    let (mut transaction, now) = (begin_locked(store).await?, clock::now());
    let mut sql = transaction.sql();
    sql.push("UPDATE signing_keys SET revoked_at = ")
        .bind(now)
        .push(", sealed_key = '' WHERE kid = ")
        .bind(kid);
    sql.push(" AND revoked_at IS NULL");
    if transaction.execute("key.revoke", TABLE, sql).await? == 0 {
        return Ok(false);
    }
    if !rows(&transaction).await?.iter().any(|row| row.signs_from <= now) {
        insert(&transaction, secret, now, now).await?;
    }
    transaction.revoke(Revocation::Keys);
    transaction.commit_unlogged().await?;
    Ok(true)
}

struct Row {
    kid: String,
    public_key: String,
    sealed_key: String,
    signs_from: Time,
}

const SELECT: &str = "SELECT t.kid, t.public_key, t.sealed_key, t.signs_from FROM signing_keys t \
     WHERE t.revoked_at IS NULL ORDER BY t.signs_from DESC, t.kid";

fn read_row(cells: &mut crate::database::sql::Cells<'_>) -> Result<Row, sea_orm::sqlx::Error> {
    Ok(Row {
        kid: cells.next()?,
        public_key: cells.next()?,
        sealed_key: cells.next()?,
        signs_from: cells.next()?,
    })
}

async fn rows(transaction: &Transaction) -> Result<Vec<Row>, Error> {
    let mut sql = transaction.sql();
    sql.push(SELECT);
    transaction.fetch("key.list", TABLE, sql, read_row).await
}

async fn read(store: &Store, secret: &Secret, now: Time) -> Result<Vec<SigningKey>, Error> {
    let mut sql = store.sql();
    sql.push(SELECT);
    let rows = store.fetch("key.list", TABLE, sql, read_row).await?;
    // The newest that has begun signs; those before it retire when their successor begins.
    let (mut keys, mut successor): (Vec<SigningKey>, Option<Time>) = (Vec::new(), None);
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
        let private_key = secret.open(&row.kid, &row.sealed_key).ok_or_else(|| {
            Error::Refused(format!(
                "the key {} of access tokens was sealed with another secret\n  fix:   give this server the secret of \
                 the others (XP_AUTH_SECRET), or drop the key with `xp keys revoke {}`, which signs everybody out",
                row.kid, row.kid
            ))
        })?;
        let Row { kid, public_key, signs_from, .. } = row;
        keys.push(SigningKey { kid, public_key, private_key, signs_from, state });
    }
    Ok(keys)
}

/// Makes a key unless the newest is younger than `older_than`. The first one of all signs at once.
async fn rotate_if(
    store: &Store,
    secret: &Secret,
    older_than: Option<TimeDelta>,
) -> Result<Option<String>, Error> {
    let (mut transaction, now) = (begin_locked(store).await?, clock::now());
    let newest = rows(&transaction).await?.iter().map(|row| row.signs_from).max();
    // Whoever came first while this one waited for the lock has done it.
    if let (Some(newest), Some(age)) = (newest, older_than)
        && (age.is_zero() || now - newest < age)
    {
        return Ok(None);
    }
    let signs_from = if newest.is_some() { now + NEXT } else { now };
    let kid = insert(&transaction, secret, now, signs_from).await?;
    transaction.revoke(Revocation::Keys);
    transaction.commit_unlogged().await?;
    Ok(Some(kid))
}

/// One at a time makes or drops keys, on all nodes together.
async fn begin_locked(store: &Store) -> Result<Transaction, Error> {
    let transaction = Transaction::begin(store).await?;
    let mut sql = transaction.sql();
    sql.push("UPDATE revocation_counter SET seq = seq");
    transaction.execute("key.lock", TABLE, sql).await?;
    Ok(transaction)
}

async fn insert(
    transaction: &Transaction,
    secret: &Secret,
    now: Time,
    signs_from: Time,
) -> Result<String, Error> {
    let (kid, public_key, private_key) = generate();
    let mut sql = transaction.sql();
    sql.push("INSERT INTO signing_keys (kid, public_key, sealed_key, created_at, signs_from) VALUES (");
    sql.bind(kid.as_str()).push(", ").bind(public_key).push(", ").bind(secret.seal(&kid, &private_key));
    sql.push(", ").bind(now).push(", ").bind(signs_from).push(")");
    transaction.execute("key.insert", TABLE, sql).await?;
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
