//! Who asks and how they prove it: access tokens, the viewer that a token stands for, credentials, how often
//! they may be tried (`throttle`), and how what is frequent is counted (`rate`). Not here: sessions and
//! accounts as types (`graph`), hashes and keys (`entities::auth`).

pub mod access;
pub(crate) mod active_users;
pub mod rate;
pub(crate) mod throttle;
pub mod token;
pub mod viewer;
