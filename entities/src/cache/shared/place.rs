//! Where in the history of the database what Redis holds was read: kept there, so that a server that starts finds out that the
//! database was restored to an earlier time while no server ran. Servers that run find that out by themselves. Not here: how
//! the database says where it is (`database::history`).

use super::{SharedCache, Unavailable, WRITE_TIMEOUT};
use crate::database::history::Place;

impl SharedCache {
    /// Whether what Redis holds may have been read from a later point than this one, or from another history.
    pub(in crate::cache) async fn is_from_elsewhere(&self, place: &Place) -> Result<bool, Unavailable> {
        let mut command = redis::cmd("GET");
        command.arg(&self.place_key);
        let kept: Option<String> = self.redis.command("place", WRITE_TIMEOUT, &command).await?;
        Ok(kept.is_some_and(|kept| kept.parse().map_or(true, |kept: Place| place.is_before(&kept))))
    }

    /// Notes that this point was reached.
    pub(in crate::cache) async fn keep_place(&self, place: &Place) -> Result<(), Unavailable> {
        let mut command = redis::cmd("SET");
        command.arg(&self.place_key).arg(place.to_string());
        self.redis.command("place", WRITE_TIMEOUT, &command).await
    }
}
