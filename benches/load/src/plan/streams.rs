//! The live streams that are open beside the day: half of them follow a form's submissions, half somebody's
//! positions. Only how many events come is counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{mix, people::Person, socket::Socket};
use crate::overload::connect;

/// The first loopback address of streams.
const FROM: u32 = 5000;
/// Streams from one address.
const OF_ADDRESS: u32 = 100;

/// A form's submissions.
pub(super) const SUBMISSIONS: &str =
    "subscription($id: ID!) { submissionChanged(formId: $id) { id createdAt user { id displayName } } }";
const POSITIONS: &str =
    "subscription($ids: [ID!]) { locationUpdated(userIds: $ids) { id timestamp latitude longitude } }";

/// Open streams; dropping them ends them.
pub(super) struct Streams {
    running: JoinSet<()>,
    events: Arc<AtomicU64>,
}

impl Streams {
    /// Opens them, those who may see everything in turn.
    pub(super) async fn open(
        address: SocketAddr,
        count: u32,
        people: &[Person],
        forms: &[Uuid],
        followed: &[Uuid],
    ) -> Result<Self> {
        let managers = mix::managers(people);
        let (mut running, events) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
        for number in 0..count {
            let at = number as usize;
            let token = managers[at % managers.len()].tokens().access;
            let stream = connect(address, FROM + number / OF_ADDRESS).await?;
            let mut socket = Socket::open(stream, Some(&token)).await?;
            if number % 2 == 0 {
                socket.subscribe(SUBMISSIONS, &json!({ "id": forms[at / 2 % forms.len()] })).await?;
            } else {
                socket.subscribe(POSITIONS, &json!({ "ids": [followed[at / 2 % followed.len()]] })).await?;
            }
            let events = Arc::clone(&events);
            running.spawn(async move {
                while socket.text().await.is_ok_and(|text| text.contains("\"next\"")) {
                    events.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(Self { running, events })
    }

    /// Events so far.
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Streams that are still open.
    pub(super) fn open_still(&mut self) -> usize {
        while self.running.try_join_next().is_some() {}
        self.running.len()
    }
}
