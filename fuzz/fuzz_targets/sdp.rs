//! Session descriptions of any content, as offers and as answers to ours.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offhook_carriers::sip::sdp::{Codec, Dtmf, Local, MediaWishes, Offer, SrtpPolicy, offer};
use offhook_carriers::sip::srtp::Master;

fuzz_target!(|data: &[u8]| {
    let local = || Local::new([192, 0, 2, 1].into(), 10_000, 4_000, Master::new([9; 30]));
    for srtp in [SrtpPolicy::Off, SrtpPolicy::Optional, SrtpPolicy::Required] {
        let codecs = vec![Codec::Opus, Codec::Pcma, Codec::Pcmu];
        let wishes = MediaWishes { codecs, srtp, dtmf: Dtmf::Rfc4733 };
        if let Ok(asked) = Offer::parse(data)
            && let Ok((answer, stream)) = asked.answer(&mut local(), &wishes)
        {
            assert_eq!(stream.srtp.is_some(), answer.contains("RTP/SAVP"));
            assert!(Offer::parse(answer.as_bytes()).is_ok(), "we cannot read what we wrote");
        }
        let (_, offered) = offer(&mut local(), &wishes);
        if let Ok(stream) = offered.accept(data) {
            assert_eq!(stream.srtp.is_some(), srtp == SrtpPolicy::Required);
        }
    }
});
