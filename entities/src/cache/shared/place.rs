//! Where in the history of the database what Redis holds was read: kept there, so that a server that starts
//! finds out that the database was restored to an earlier time while no server ran. Servers that run find
//! that out by themselves. Not here: how the database says where it is (`database::history`).

use std::sync::atomic::Ordering;

use super::{SharedCache, Unavailable, WRITE_TIMEOUT};
use crate::database::history::Place;

impl SharedCache {
    /// The point that was noted last, as text.
    pub(in crate::cache) async fn kept_place(&self) -> Result<Option<String>, Unavailable> {
        let mut command = redis::cmd("GET");
        command.arg(&self.place_key);
        self.redis.command("place", WRITE_TIMEOUT, &command).await
    }

    /// From now on nothing is read from Redis, nor stored there, until it is known to be of this database.
    pub(in crate::cache) fn set_unplaced(&self, is_unplaced: bool) {
        self.is_unplaced.store(is_unplaced, Ordering::Release);
    }

    /// Notes that this point was reached.
    pub(in crate::cache) async fn keep_place(&self, place: &Place) -> Result<(), Unavailable> {
        let mut command = redis::cmd("SET");
        command.arg(&self.place_key).arg(place.to_string());
        self.redis.command("place", WRITE_TIMEOUT, &command).await
    }
}
