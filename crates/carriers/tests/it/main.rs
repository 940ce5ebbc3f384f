//! The REST client against a small HTTP server that answers what each test tells it to.

mod contract;
mod rest;
mod stand_in;
mod telnyx_media;
mod telnyx_webhook;
mod twilio_account;
mod twilio_check;
mod twilio_contract;
mod twilio_numbers;
mod twilio_trunk;
