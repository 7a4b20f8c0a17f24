//! What signs people in: passwords and their hashes, the keys of access tokens, what is revoked before its time. Not
//! here: sessions and accounts as rows (`session`, `user`), access tokens themselves (the graph makes and reads them).

pub mod key;
pub mod password;
pub mod revocation;
pub mod secret;
