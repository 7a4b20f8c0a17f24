//! The inspector: the whole read graph, from text to bytes, on both databases. One binary, so that one private
//! PostgreSQL and one seeded world serve every test. `harness` starts them; every other file is a question asked
//! of the graph. Not here: HTTP (the hall's own tests), the plan of each table's index (`migration/tests`).

mod harness;

mod access;
mod bounds;
mod cache;
mod catalogue;
mod commands;
mod corpus;
mod cursors;
mod deadlines;
mod disk;
mod docs;
mod documents;
mod durability;
mod examples;
mod federation;
mod figures;
mod forms;
mod instances;
mod killed;
mod limits;
mod live;
mod matrix;
mod messages;
mod mutations;
mod nodes;
mod outage;
mod pages;
mod plans;
mod prices;
mod published;
mod readiness;
mod recording;
mod serving;
mod sessions;
mod statements;
mod submissions;
mod trace;
mod vanished;
