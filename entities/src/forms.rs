//! The rules of forms, without a database: what a definition may say, its logic, patterns and telephone numbers, and
//! what answers go through before they are stored (`pipeline`). Not here: forms and submissions as rows (`form`,
//! `submission`).

pub mod compiled;
pub mod definition;
mod json_schema;
pub mod logic;
pub mod pattern;
pub mod phone;
pub mod pipeline;
pub mod problem;

mod canonical;
#[cfg(test)]
mod tests;
mod tidy;
pub(crate) mod work;
