//! The hall.
pub mod auth;
pub mod config;
pub mod data;
