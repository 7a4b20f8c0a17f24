//! The inspector: the whole read graph, from text to bytes, on both databases. One binary, so that one private
//! PostgreSQL and one seeded world serve every test. `harness` starts them; every other file is a question asked
//! of the graph. Not here: HTTP (the tests of `src`), the plan of each table's index (`migration/tests`).

mod harness;

mod access;
mod bounds;
mod cache;
mod catalogue;
mod cluster;
mod commands;
mod corpus;
mod cost;
mod crashes;
mod cursors;
mod deadlines;
mod disk;
mod docs;
mod documents;
mod durability;
mod examples;
mod failover;
mod failures;
mod federation;
mod forms;
mod growth;
mod idempotency;
mod instances;
mod limits;
mod live;
mod live_queries;
mod lost_connections;
mod matrix;
mod messages;
mod metrics;
mod mutations;
mod on_error;
mod outage;
mod pages;
mod personal_data;
mod plans;
mod poolers;
mod published;
mod readiness;
mod recording;
mod replicas;
mod resuming;
mod retention;
mod serving;
mod sessions;
mod starting;
mod statements;
mod submissions;
mod trace;
mod variable_sets;
mod webhooks;
