//! The simulators over real sockets, against small servers written here.

mod carrier;
mod carrier_numbers;
mod carrier_people;
mod carrier_sip;
mod customer;
mod provider;
mod telnyx;
mod telnyx_customer;
mod telnyx_numbers;
mod world;
