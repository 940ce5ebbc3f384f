//! Session descriptions as phones write them.

use super::*;
use proptest::prelude::*;

const TWILIO: &str = "v=0\r\no=root 1185513325 1185513325 IN IP4 172.18.12.34\r\ns=Twilio Media Gateway\r\n\
    c=IN IP4 168.86.150.20\r\nt=0 0\r\nm=audio 18234 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\n\
    a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n\
    a=maxptime:20\r\na=sendrecv\r\n";
const TELNYX: &str = "v=0\r\no=Telnyx 1 1 IN IP4 192.76.120.31\r\ns=Telnyx\r\nc=IN IP4 192.76.120.31\r\nt=0 0\r\n\
    m=audio 20000 RTP/AVP 0 8 9 18 102 101 103\r\na=rtpmap:102 opus/48000/2\r\na=fmtp:102 useinbandfec=1\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=rtpmap:103 telephone-event/48000\r\na=rtcp:20005 IN IP4 192.76.120.32\r\n\
    a=ptime:20\r\n";
const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

fn local() -> Local {
    Local::new([203, 0, 113, 5].into(), 10_000, 4_000, Master::new([9; 30]))
}

fn wishes(codecs: &[Codec], srtp: SrtpPolicy) -> MediaWishes {
    MediaWishes { codecs: codecs.to_vec(), srtp, ..MediaWishes::default() }
}

fn answer(offer: &str, wishes: &MediaWishes) -> Result<(String, Stream), NotAnswerable> {
    Offer::parse(offer.as_bytes()).unwrap().answer(&mut local(), wishes)
}

/// An offer of one audio line with these lines below it.
fn audio(line: &str, below: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio {line}\r\n{below}"
    )
}

#[test]
fn twilio_is_answered_with_one_codec_and_events() {
    let (text, stream) = answer(TWILIO, &MediaWishes::default()).unwrap();
    assert_eq!(
        text,
        "v=0\r\no=- 1000 1000 IN IP4 203.0.113.5\r\ns=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\n\
         m=audio 10000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    );
    let numbers = Numbers { audio: 0, event: Some(101) };
    let expected = Stream {
        codec: Codec::Pcmu,
        send: numbers,
        receive: numbers,
        remote: "168.86.150.20:18234".parse().unwrap(),
        remote_rtcp: "168.86.150.20:18235".parse().unwrap(),
        rtcp_mux: false,
        srtp: None,
        direction: Direction::Both,
        ptime_ms: 20,
        dtmf: Dtmf::Rfc4733,
    };
    assert_eq!(stream, expected, "what stands in o= is not where media go");
}

#[test]
fn our_order_of_codecs_decides_and_numbers_are_theirs() {
    let (text, stream) = answer(TELNYX, &wishes(&[Codec::Opus, Codec::Pcma], SrtpPolicy::Off)).unwrap();
    assert_eq!((stream.codec, stream.send.audio, stream.send.event), (Codec::Opus, 102, Some(103)));
    assert!(text.contains("m=audio 10000 RTP/AVP 102 103\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:102 opus/48000/2\r\na=fmtp:102 useinbandfec=1\r\n"), "{text}");
    assert_eq!(stream.remote_rtcp, "192.76.120.32:20005".parse().unwrap());
    let (_, stream) = answer(TELNYX, &wishes(&[Codec::Pcma, Codec::Opus], SrtpPolicy::Off)).unwrap();
    assert_eq!((stream.codec, stream.send.audio, stream.send.event), (Codec::Pcma, 8, Some(101)));
}

#[test]
fn events_are_left_out_where_keys_travel_otherwise_or_have_another_clock() {
    for dtmf in [Dtmf::Info, Dtmf::Inband] {
        let (text, stream) = answer(TWILIO, &MediaWishes { dtmf, ..MediaWishes::default() }).unwrap();
        assert_eq!((stream.send.event, stream.dtmf), (None, dtmf));
        assert!(!text.contains(EVENT));
    }
    let offer = audio("4000 RTP/AVP 0 101", "a=rtpmap:101 telephone-event/48000\r\n");
    assert_eq!(answer(&offer, &MediaWishes::default()).unwrap().1.send.event, None);
}

#[test]
fn every_line_is_answered_in_its_place() {
    let offer = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
        m=video 4002 RTP/AVP 31 34\r\nm=audio 0 RTP/AVP 0\r\nm=audio 4000 RTP/AVP 8\r\nm=image 4004 udptl t38\r\n\
        m=audio 4006 RTP/AVP 0\r\n";
    let (text, stream) = answer(offer, &MediaWishes::default()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        lines,
        [
            "m=video 0 RTP/AVP 31",
            "m=audio 0 RTP/AVP 0",
            "m=audio 10000 RTP/AVP 8",
            "m=image 0 udptl t38",
            "m=audio 0 RTP/AVP 0"
        ]
    );
    assert_eq!(stream.remote.port(), 4000);
}

#[test]
fn hold_in_all_its_forms_stops_our_sending() {
    let held = |below: &str| {
        let (text, stream) = answer(&audio("4000 RTP/AVP 0", below), &MediaWishes::default()).unwrap();
        (text.lines().last().unwrap().to_owned(), stream.direction.sends())
    };
    assert_eq!(held(""), ("a=sendrecv".into(), true));
    assert_eq!(held("a=sendonly\r\n"), ("a=recvonly".into(), false));
    assert_eq!(held("a=inactive\r\n"), ("a=inactive".into(), false));
    assert_eq!(held("a=recvonly\r\n"), ("a=sendonly".into(), true));
    assert_eq!(held("c=IN IP4 0.0.0.0\r\n"), ("a=recvonly".into(), false));
    let (text, stream) =
        answer(&audio("4000 RTP/AVP 0", "").replace("t=0 0", "t=0 0\r\na=sendonly"), &MediaWishes::default())
            .unwrap();
    assert!(text.ends_with("a=recvonly\r\n") && !stream.direction.sends(), "said once for all lines");
}

#[test]
fn the_version_rises_only_when_something_changed() {
    let mut local = local();
    let mut version = |offer: &str| {
        let (text, _) =
            Offer::parse(offer.as_bytes()).unwrap().answer(&mut local, &MediaWishes::default()).unwrap();
        text.lines().nth(1).unwrap().to_owned()
    };
    let first = version(TWILIO);
    assert_eq!(version(TWILIO), first);
    let hold = TWILIO.replace("sendrecv", "sendonly");
    assert_eq!(version(&hold), first.replace(" 1000 IN", " 1001 IN"));
    assert_eq!(version(&hold), first.replace(" 1000 IN", " 1001 IN"));
    assert_eq!(version(TWILIO), first.replace(" 1000 IN", " 1002 IN"));
}

#[test]
fn srtp_follows_the_policy() {
    use NotAnswerable::*;
    let crypto = format!(
        "a=crypto:1 AEAD_AES_256_GCM inline:AAAA\r\na=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4\r\n\
         a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTP\r\n\
         a=crypto:4 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^31\r\na=crypto:5 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n"
    );
    let secure = audio("4000 RTP/SAVP 0", &crypto);
    let plain = audio("4000 RTP/AVP 0", "");
    let unusable = audio("4000 RTP/SAVP 0", "a=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:AAAA\r\n");
    let dtls = audio("4000 UDP/TLS/RTP/SAVP 0", "");
    let why = |offer: &str, policy| answer(offer, &wishes(&[Codec::Pcmu], policy)).map(|_| ()).unwrap_err();
    assert_eq!(why(&secure, SrtpPolicy::Off), SrtpNotAllowed);
    assert_eq!(why(&plain, SrtpPolicy::Required), SrtpRequired);
    assert_eq!(why(&unusable, SrtpPolicy::Required), SrtpNotAllowed);
    assert_eq!(why(&dtls, SrtpPolicy::Optional), NoAudio);
    for policy in [SrtpPolicy::Optional, SrtpPolicy::Required] {
        let (text, stream) = answer(&secure, &wishes(&[Codec::Pcmu], policy)).unwrap();
        let keys = stream.srtp.unwrap();
        assert_eq!((keys.suite, keys.theirs.write(keys.suite)), (Suite::AesCm128HmacSha1_32, KEY.to_owned()));
        let ours = Master::new([9; 30]).write(keys.suite);
        assert!(text.contains("m=audio 10000 RTP/SAVP 0\r\n"), "{text}");
        let line = format!("a=crypto:4 AES_CM_128_HMAC_SHA1_32 inline:{ours}\r\n");
        assert!(text.contains(&line) && text.matches("a=crypto").count() == 1, "{text}");
    }
    assert!(answer(&plain, &wishes(&[Codec::Pcmu], SrtpPolicy::Optional)).unwrap().1.srtp.is_none());
    let both = format!("{plain}m=audio 4002 RTP/SAVP 0\r\n{crypto}");
    let (text, stream) = answer(&both, &wishes(&[Codec::Pcmu], SrtpPolicy::Optional)).unwrap();
    assert!(stream.srtp.is_some() && text.contains("m=audio 0 RTP/AVP 0"), "{text}");
}

#[test]
fn rtcp_shares_the_port_only_where_that_is_offered() {
    let (text, stream) =
        answer(&audio("4000 RTP/AVP 0", "a=rtcp-mux\r\na=rtcp:9\r\n"), &MediaWishes::default()).unwrap();
    assert!(stream.rtcp_mux && stream.remote_rtcp == stream.remote && text.ends_with("a=rtcp-mux\r\n"));
    assert!(!answer(TWILIO, &MediaWishes::default()).unwrap().0.contains("rtcp"));
}

#[test]
fn short_packets_are_sent_to_those_who_take_no_longer_ones() {
    let ptime =
        |below: &str| answer(&audio("4000 RTP/AVP 0", below), &MediaWishes::default()).unwrap().1.ptime_ms;
    assert_eq!(ptime("a=ptime:30\r\n"), 20);
    assert_eq!(ptime("a=maxptime:60\r\n"), 20);
    assert_eq!(ptime("a=maxptime:10\r\n"), 10);
}

#[test]
fn an_address_must_be_one_that_we_can_send_to() {
    let six = |text: &str| {
        let mut local = Local::new("2001:db8::5".parse().unwrap(), 10_000, 4_000, Master::new([9; 30]));
        Offer::parse(text.as_bytes()).unwrap().answer(&mut local, &MediaWishes::default())
    };
    let offer = audio("4000 RTP/AVP 0", "").replace("c=IN IP4 192.0.2.1", "c=IN IP6 2001:db8::9");
    let (text, stream) = six(&offer).unwrap();
    assert!(
        text.contains("o=- 1000 1000 IN IP6 2001:db8::5\r\n") && text.contains("c=IN IP6 2001:db8::5\r\n")
    );
    assert_eq!(stream.remote, "[2001:db8::9]:4000".parse().unwrap());
    let wishes = MediaWishes::default();
    assert_eq!(answer(&offer, &wishes).unwrap_err(), NotAnswerable::NoAddress);
    for address in ["IP4 media.example", "IP4 224.2.1.1/127", "IP4 2001:db8::9", "IP5 192.0.2.1"] {
        let offer = TWILIO.replace("IP4 168.86.150.20", address);
        assert_eq!(answer(&offer, &wishes).unwrap_err(), NotAnswerable::NoAddress, "{address}");
    }
}

#[test]
fn an_offer_without_our_codecs_says_so() {
    let wishes = MediaWishes::default();
    assert_eq!(answer(&audio("4000 RTP/AVP 9 18", ""), &wishes).unwrap_err(), NotAnswerable::NoCommonCodec);
    assert_eq!(answer("v=0\r\ns=-\r\n", &wishes).unwrap_err(), NotAnswerable::NoAudio);
}

#[test]
fn what_is_no_description_is_refused() {
    use SdpError::*;
    let cases = [
        ("", NotSdp),
        ("INVITE sip:x SIP/2.0", NotALine),
        ("v=1\r\n", NotSdp),
        ("o=x\r\n", NotSdp),
        ("v=0\r\nm=audio\r\n", BadMedia),
        ("v=0\r\nm=audio x RTP/AVP 0\r\n", BadMedia),
        ("v=0\r\nm=audio 99999 RTP/AVP 0\r\n", BadMedia),
        ("v=0\r\nm=audio 4000 RTP/AVP\r\n", BadMedia),
        ("v=0\r\nhello\r\n", NotALine),
    ];
    for (text, error) in cases {
        assert_eq!(Offer::parse(text.as_bytes()).unwrap_err(), error, "{text:?}");
    }
    let long = format!("v=0\r\ns={}\r\n", "x".repeat(MAX_SDP_BYTES));
    assert_eq!(Offer::parse(long.as_bytes()).unwrap_err(), TooLong);
    let many = format!("v=0\r\n{}", "m=audio 4 RTP/AVP 0\r\n".repeat(17));
    assert_eq!(Offer::parse(many.as_bytes()).unwrap_err(), TooManyMedia);
}

#[test]
fn our_offer_and_a_good_answer_agree() {
    let all = [Codec::Pcmu, Codec::Pcma, Codec::Opus];
    let (text, offered) = offer(&mut local(), &wishes(&all, SrtpPolicy::Required));
    assert!(text.contains("m=audio 10000 RTP/SAVP 0 8 111 101 110\r\n"), "{text}");
    let mut theirs = Local::new([192, 0, 2, 7].into(), 4_000, 8_000, Master::new([5; 30]));
    let (answer, seen) = Offer::parse(text.as_bytes())
        .unwrap()
        .answer(&mut theirs, &wishes(&[Codec::Opus], SrtpPolicy::Optional))
        .unwrap();
    let stream = offered.accept(answer.as_bytes()).unwrap();
    assert_eq!((stream.codec, stream.send, stream.receive), (Codec::Opus, seen.receive, seen.send));
    assert_eq!(stream.remote, "192.0.2.7:4000".parse().unwrap());
    let (ours, theirs) = (stream.srtp.unwrap(), seen.srtp.unwrap());
    assert_eq!((ours.suite, ours.ours), (theirs.suite, theirs.theirs));

    let (_, offered) = offer(&mut local(), &MediaWishes::default());
    let other = audio("4000 RTP/AVP 96 97", "a=rtpmap:96 PCMA/8000\r\na=rtpmap:97 telephone-event/8000\r\n");
    let stream = offered.accept(other.as_bytes()).unwrap();
    assert_eq!(stream.send, Numbers { audio: 96, event: Some(97) }, "each says what it wants to receive");
    assert_eq!(stream.receive, Numbers { audio: 8, event: Some(101) });
}

#[test]
fn an_answer_may_not_agree_to_what_was_not_offered() {
    use NotAnswerable::*;
    let answered = |wishes: &MediaWishes, answer: &str| {
        let (_, offered) = offer(&mut local(), wishes);
        offered.accept(answer.as_bytes()).unwrap_err()
    };
    let plain = MediaWishes::default();
    let secure = wishes(&[Codec::Pcmu], SrtpPolicy::Required);
    let sealed = |tag: u8| {
        audio("4000 RTP/SAVP 0", &format!("a=crypto:{tag} AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n"))
    };
    assert_eq!(answered(&plain, &audio("0 RTP/AVP 0", "")), SdpError::NotOurs(NoAudio));
    assert_eq!(answered(&plain, &audio("4000 RTP/AVP 9", "")), SdpError::NotOurs(NoCommonCodec));
    assert_eq!(answered(&plain, &sealed(1)), SdpError::NotOurs(SrtpNotAllowed));
    assert_eq!(answered(&secure, &audio("4000 RTP/AVP 0", "")), SdpError::NotOurs(SrtpRequired));
    assert_eq!(answered(&secure, &sealed(2)), SdpError::NotOurs(SrtpNotAllowed), "the tag of another suite");
    assert_eq!(answered(&plain, "v=0\r\n"), SdpError::NotOurs(NoAudio));
}

#[test]
fn keys_are_not_shown() {
    let mut local = local();
    let (_, offered) = offer(&mut local, &wishes(&[Codec::Pcmu], SrtpPolicy::Required));
    let key = Master::new([9; 30]).write(Suite::AesCm128HmacSha1_80);
    assert!(!format!("{local:?}{offered:?}").contains(&key));
}

fn any_line() -> impl Strategy<Value = String> {
    let value = "[ -~]{0,40}";
    prop_oneof![
        4 => ("[vosctma]", value).prop_map(|(kind, value)| format!("{kind}={value}")),
        2 => prop::sample::select(TWILIO.lines().chain(TELNYX.lines()).collect::<Vec<_>>()).prop_map(str::to_owned),
        1 => (any::<u16>(), value).prop_map(|(port, rest)| format!("m=audio {port} RTP/SAVP 0 {rest}")),
        1 => value.prop_map(|value| format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{value}")),
        1 => "\\PC{0,30}",
    ]
}

proptest! {
    #[test]
    fn anything_is_read_or_refused(lines in prop::collection::vec(any_line(), 0..30)) {
        let text = format!("v=0\r\n{}", lines.join("\r\n"));
        if let Ok(offer) = Offer::parse(text.as_bytes()) {
            let all = [Codec::Opus, Codec::Pcmu, Codec::Pcma];
            for policy in [SrtpPolicy::Off, SrtpPolicy::Optional, SrtpPolicy::Required] {
                if let Ok((answer, _)) = offer.answer(&mut local(), &wishes(&all, policy)) {
                    let ours = Offer::parse(answer.as_bytes()).unwrap();
                    prop_assert_eq!(ours.text.media.len(), offer.text.media.len());
                    let used = ours.text.media.iter().filter(|media| media.port != 0).count();
                    prop_assert_eq!(used, 1);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Offer::parse(&bytes);
    }
}
