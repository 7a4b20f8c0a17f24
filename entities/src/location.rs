//! Locations: recorded positions, partitioned by month on device time. Lists walk
//! `user_locations (user_id, timestamp desc, id desc)` or `(session_id, …)` and prune by time; `latest` reads
//! `user_last_locations`, one row a user. Thinning of tracks is in `location/track.rs`. Not here: recording.

use crate::{
    clock::Time,
    id::{LocationId, SessionId, UserId},
    sql::table,
};

/// The newest position of each user, kept beside the history.
pub mod last {
    use super::{LocationId, SessionId, Time, UserId, table};

    table! {
        /// A row of `user_last_locations`.
        "user_last_locations" {
            /// Primary key.
            #[sea_orm(primary_key, auto_increment = false)]
            user_id: UserId,
            /// The position's own id.
            id: LocationId,
            /// On which device.
            session_id: Option<SessionId>,
            /// Device time.
            timestamp: Time,
            /// When the server got it.
            received_at: Time,
            /// Degrees north.
            latitude: f64,
            /// Degrees east.
            longitude: f64,
            /// Metres, 68 %.
            accuracy: Option<f64>,
            /// Metres.
            altitude: Option<f64>,
            /// Metres a second.
            speed: Option<f64>,
            /// Degrees from north.
            heading: Option<f64>,
        }
    }
}

table! {
    /// A row of `user_locations`.
    "user_locations" {
        /// Primary key together with `timestamp`.
        #[sea_orm(primary_key, auto_increment = false)]
        id: LocationId,
        /// Who was there.
        user_id: UserId,
        /// On which device.
        session_id: Option<SessionId>,
        /// Device time; decides the partition.
        timestamp: Time,
        /// When the server got it.
        received_at: Time,
        /// Degrees north, -90 to 90.
        latitude: f64,
        /// Degrees east, -180 to 180.
        longitude: f64,
        /// Metres, 68 %.
        accuracy: Option<f64>,
        /// Metres.
        altitude: Option<f64>,
        /// Metres a second.
        speed: Option<f64>,
        /// Degrees from north, 0 to 360.
        heading: Option<f64>,
    }
}
