//! What the store does besides reading and writing: it notices a database that went back in time. Not here: the cache's
//! promises (`cache::tests`), reads and writes themselves (the domains, and the tests of the server).

use sea_orm::Set;

use super::*;
use crate::{
    auth::revocation::{self, Revocation, counter},
    id::SessionId,
    store::transaction::Transaction,
};

async fn store() -> Store {
    let config = DatabaseOptions::at("sqlite::memory:");
    let store = Store::connect(&config, &mut Registry::default()).await.expect("a database in memory opens");
    migration::up(store.connection()).await.expect("the steps run");
    store
}

/// Each server finds it by itself: told to the others too, each of them would close its streams once per server.
#[tokio::test]
async fn a_database_rollback_is_published_locally_only() {
    let store = store().await;
    let mut transaction = Transaction::begin(&store).await.expect("a turn");
    transaction.revoke(Revocation::Session(SessionId::new()));
    transaction.commit_unlogged().await.expect("committed");
    assert!(!store.catch_up_revocations().await.expect("read"), "nothing but a new row");
    let (mut here, mut to_others) = (store.events().subscribe(), store.events().subscribe_own());
    let (gone, back) = (revocation::Entity::delete_many(), counter::ActiveModel { seq: Set(0) });
    let back = counter::Entity::update_many().set(back);
    store.rows("revocation.back", revocation::Entity, &gone, |_| Ok(())).await.expect("gone back");
    store.rows("revocation.back", revocation::Entity, &back, |_| Ok(())).await.expect("gone back");
    assert!(store.catch_up_revocations().await.expect("read"), "it went back");
    assert_eq!(*here.try_recv().expect("told"), [ChangeEvent::Lagged]);
    assert!(to_others.try_recv().is_err(), "not announced");
}
