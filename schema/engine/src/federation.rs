//! The federation: the SDL that a subgraph shows, which part of the graph it serves, what gateways may ask for beyond
//! others, and the traces that they want. Not here: entities by their keys (`graph::query`, `graph::node`).

pub mod gateway;
pub mod sdl;

pub mod trace;
