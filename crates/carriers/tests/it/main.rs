//! The REST client against a small HTTP server that answers what each test tells it to.

mod contract;
mod rest;
mod stand_in;
