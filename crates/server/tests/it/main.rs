//! The API as its users meet it: the real router on SQLite, and on PostgreSQL where `OFFHOOK_TEST_POSTGRES` names a server
//! (`scripts/with-postgres cargo test -p offhook-server`).

#[macro_use]
mod house;

mod agents;
mod calls;
mod connections;
mod doctor;
mod document;
mod driver;
mod keys;
mod live;
mod logs;
mod node;
mod numbers;
mod phone_numbers;
mod problems;
mod recorder;
mod roles;
mod serve;
mod twilio_account;
mod workspace;
