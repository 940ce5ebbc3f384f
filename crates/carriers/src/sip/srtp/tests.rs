//! Vectors of RFC 3711 and RFC 7714.

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn array<const N: usize>(hex: &str) -> [u8; N] {
    bytes(hex).try_into().unwrap()
}

/// RFC 3711 B.3.
const MASTER: &str = "E1F97A0D3E018BE0D64FA32C06DE4139 0EC675AD498AFEEBB6960B3AABE6";

fn master() -> Master {
    Master::new(array(MASTER))
}

#[test]
fn session_keys_are_those_of_rfc_3711_b_3() {
    let master = array(MASTER);
    assert_eq!(derive(&master, 0)[..16], bytes("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(derive(&master, 1)[..], bytes("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    assert_eq!(derive(&master, 2)[..14], bytes("30CBBC08863D8C85D49DB34A9AE1"));
}

#[test]
fn the_key_stream_is_that_of_rfc_3711_b_2() {
    let aes = Aes128::new(&array("2B7E151628AED2A6ABF7158809CF4F3C").into());
    let mut stream = [0; 48];
    counter_mode(&aes, &array("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"), 0, 0, &mut stream);
    let expected =
        "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(stream[..], bytes(expected));
}

/// RFC 7714 16.1: session key and salt are given, nothing is derived.
#[test]
fn gcm_packets_are_those_of_rfc_7714_16_1() {
    let suite = Suite::AeadAes128Gcm;
    let key = array("000102030405060708090a0b0c0d0e0f");
    let keys = || Keys::new(suite, Labels::Rtp, key, &[0; 20], &bytes("517569642070726f2071756f"));
    let header = "8040f17b 8041f8d3 5501a0b2";
    let plain = bytes(&format!(
        "{header} 47616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573"
    ));
    let sealed = bytes(&format!(
        "{header} f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833 899d7f27beb16a9152cf765ee4390cce"
    ));
    let mut packet = plain.clone();
    Sealing { rtp: keys(), ..Sealing::new(suite, &master()) }.rtp(&mut packet, 12);
    assert_eq!(packet, sealed);
    Opening { rtp: keys(), ..Opening::new(suite, &master()) }.rtp(&mut packet, 12).unwrap();
    assert_eq!(packet, plain);
}

fn packet(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 160, 0xCA, 0xFE, 0xBA, 0xBE];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet.extend((0..160).map(|i| i as u8));
    packet
}

fn report(n: u8) -> Vec<u8> {
    vec![0x80, 201, 0, 1, 0xCA, 0xFE, 0xBA, 0xBE, n, n, n, n]
}

fn pair(suite: Suite) -> (Sealing, Opening) {
    (Sealing::new(suite, &master()), Opening::new(suite, &master()))
}

#[test]
fn a_packet_is_the_one_that_other_implementations_make() {
    let (mut sealing, _) = pair(Suite::AesCm128HmacSha1_80);
    let mut packet = bytes("800f1234decafbadcafebabe");
    packet.extend([0xAB; 16]);
    sealing.rtp(&mut packet, 12);
    let expected = "800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb";
    assert_eq!(packet, bytes(expected));
}

#[test]
fn what_is_sealed_is_opened_across_the_end_of_sequence_numbers() {
    for suite in Suite::ALL {
        let (mut sealing, mut opening) = pair(suite);
        for step in 0..7_000_u32 {
            let plain = packet((step * 10 + 65_000) as u16);
            let mut sealed = plain.clone();
            sealing.rtp(&mut sealed, 12);
            if step % 977 < 3 || (50..60).contains(&step) {
                assert_ne!(sealed[12..28], plain[12..28], "{suite:?}");
                opening.rtp(&mut sealed, 12).unwrap_or_else(|e| panic!("{suite:?} at {step}: {e}"));
                assert_eq!(sealed, plain, "{suite:?} at {step}");
            }
        }
        assert_eq!(sealing.rollover, 2);
    }
}

#[test]
fn reports_are_opened_with_and_without_encryption() {
    for suite in Suite::ALL {
        let (mut sealing, mut opening) = pair(suite);
        for n in 1..100 {
            let mut sealed = report(n);
            sealing.rtcp(&mut sealed);
            assert_ne!(sealed[8..12], report(n)[8..12]);
            opening.rtcp(&mut sealed).unwrap();
            assert_eq!(sealed, report(n));
        }
    }
    let (_, mut opening) = pair(Suite::AesCm128HmacSha1_80);
    let mut plain = report(9);
    plain.extend([0, 0, 0, 200]);
    let Keys::Cm { mac, .. } = Keys::derive(Suite::AesCm128HmacSha1_80, &master(), Labels::Rtcp) else {
        unreachable!("it is the suite with a MAC")
    };
    let tag = mac.chain_update(&plain).finalize().into_bytes();
    plain.extend(&tag[..10]);
    opening.rtcp(&mut plain).unwrap();
    assert_eq!(plain, report(9));
}

#[test]
fn nothing_is_opened_twice_or_changed_or_with_another_key() {
    for suite in Suite::ALL {
        let (mut sealing, mut opening) = pair(suite);
        let sealed: Vec<_> = (100..300)
            .map(|sequence| {
                let mut packet = packet(sequence);
                sealing.rtp(&mut packet, 12);
                packet
            })
            .collect();
        let mut open = |packet: &[u8]| opening.rtp(&mut packet.to_vec(), 12);
        assert_eq!(open(&sealed[150]), Ok(()));
        for bit in 0..sealed[151].len() * 8 {
            let mut changed = sealed[151].clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&changed).is_err(), "{suite:?}: bit {bit}");
        }
        assert_eq!(open(&sealed[149]), Ok(()), "a little late is not too late");
        assert_eq!(open(&sealed[150]), Err(SrtpError::Replayed));
        assert_eq!(open(&sealed[149]), Err(SrtpError::Replayed));
        assert_eq!(open(&sealed[0]), Err(SrtpError::Replayed), "older than the window");
        assert_eq!(open(&sealed[151]), Ok(()), "what was forged in its name did not use it up");
        assert_eq!(open(&sealed[152][..13]), Err(SrtpError::TooShort));
        let mut other = Opening::new(suite, &Master::new([7; 30]));
        assert_eq!(other.rtp(&mut sealed[160].clone(), 12), Err(SrtpError::NotAuthentic));
        let mut report = report(1);
        sealing.rtcp(&mut report);
        assert_eq!(other.rtcp(&mut report.clone()), Err(SrtpError::NotAuthentic));
        assert_eq!(opening.rtcp(&mut report.clone()), Ok(()));
        assert_eq!(opening.rtcp(&mut report), Err(SrtpError::Replayed));
    }
}

#[test]
fn a_key_is_as_long_as_its_suite_says_and_is_not_shown() {
    for suite in Suite::ALL {
        let text = master().write(suite);
        let read = Master::read(suite, &text).unwrap();
        assert_eq!(read.write(suite), text);
        assert_eq!(Master::read(suite, text.trim_end_matches('=')), Some(read));
        assert_eq!(Master::read(suite, &text[..text.len() - 4]), None);
        assert_eq!(Suite::read(suite.name()), Some(suite));
    }
    assert_eq!(format!("{:?}", master()), "Master([secret])");
}

proptest::proptest! {
    #[test]
    fn garbage_is_refused(mut garbage in proptest::collection::vec(0_u8.., 0..80), header in 0_usize..90) {
        for suite in Suite::ALL {
            let (_, mut opening) = pair(suite);
            proptest::prop_assert!(opening.rtp(&mut garbage.clone(), header).is_err());
            proptest::prop_assert!(opening.rtcp(&mut garbage).is_err());
        }
    }
}
