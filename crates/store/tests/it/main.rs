//! Every test of the store runs on SQLite and on PostgreSQL: `scripts/with-postgres cargo test -p offhook-store`.

#[macro_use]
mod database;

mod agents;
mod apply;
mod calls;
mod connections;
mod failures;
mod isolation;
mod leases;
mod legs;
mod log;
mod numbers;
mod operations;
mod organizations;
mod pages;
