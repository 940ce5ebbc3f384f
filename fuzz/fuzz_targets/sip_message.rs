//! Datagrams of any content at the SIP port, from an address that may speak.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offhook_carriers::sip::{Trunk, TrunkId, TrunkSettings, fuzz};
use offhook_core::Secret;
use std::sync::LazyLock;

static TRUNK: LazyLock<Trunk> = LazyLock::new(|| {
    let mut settings = TrunkSettings::at("sip.example.com");
    settings.country = Some("US".into());
    settings.username = Some("bob".into());
    Trunk { id: TrunkId("con_fuzz".into()), settings, password: Some(Secret::new("secret".into())) }
});

fuzz_target!(|data: &[u8]| fuzz::datagram(data, &TRUNK));
