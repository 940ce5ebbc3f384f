//! Other people's user agents at the other end: sipp and baresip, where Debian's packages `sip-tester` and `baresip-core` are
//! installed; and two of our own, over every transport.

use crate::sip_peer::{House, LIMIT, listening, trunk};
use offhook_carriers::sip::{
    EndedBy, NewCall, RtpEvent, RtpLine, SipCall, SipEvent, SrtpMode, TlsListening, Transport, Trunk, TrunkId,
};
use offhook_core::Secret;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How loud sound is, at most, when it is only the noise of coding.
const FAINT: i16 = 500;

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The program, if it is installed.
fn program(name: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/bin").join(name);
    if !path.exists() {
        eprintln!("{name} is not installed: not tested");
    }
    path.exists().then_some(path)
}

fn sipp(scenario: &str, port: u16, calls: u32, more: &[&str]) -> Option<Child> {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sipp");
    let mut command = Command::new(program("sipp")?);
    command.args(["-sf", scenarios.join(scenario).to_str().unwrap(), "-i", "127.0.0.1", "-nostdin"]);
    command.args(["-p", &port.to_string(), "-m", &calls.to_string(), "-timeout", "30", "-timeout_error"]);
    command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    Some(command.spawn().unwrap())
}

#[tokio::test]
async fn sipp_s_calls_are_answered_held_resumed_and_hung_up() {
    const CALLS: u32 = 30;
    let mut house = House::with(vec![trunk(|s| (s.max_calls, s.max_cps) = (CALLS, 1_000))]).await;
    let us = house.address.to_string();
    let Some(mut sipp) = sipp("uac_hold.xml", free_port(), CALLS, &["-r", "30", "-s", "+14155550101", &us])
    else {
        return;
    };
    let mut ended = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        let incoming = house.rings().await;
        incoming.ringing();
        let (call, line) = incoming.answer().await.unwrap();
        ended.spawn(async move {
            let end = call.ended().await;
            drop(line);
            end
        });
    }
    while let Some(end) = timeout(LIMIT, ended.join_next()).await.unwrap() {
        let end = end.unwrap();
        assert_eq!((end.by, end.cause), (EndedBy::Them, Some(16)));
    }
    assert!(timeout(LIMIT, sipp.wait()).await.unwrap().unwrap().success());
    assert_eq!(house.agent.calls(), 0);
}

#[tokio::test]
async fn sipp_believes_our_proof() {
    let port = free_port();
    let Some(mut sipp) = sipp("uas_digest.xml", port, 1, &[]) else { return };
    let mut trunk = trunk(|s| (s.port, s.username) = (Some(port), Some("bob".into())));
    trunk.password = Some(Secret::new("zanzibar".into()));
    let house = House::with(vec![trunk]).await;
    let dialling =
        house.agent.dial(&TrunkId("con_sip".into()), NewCall::to("+14155550102".parse().unwrap())).await;
    let (call, _line) = timeout(LIMIT, dialling.unwrap().answered()).await.unwrap().unwrap();
    call.hang_up().await;
    assert!(timeout(LIMIT, sipp.wait()).await.unwrap().unwrap().success());
}

/// A softphone with a tone for a voice, in a folder of its own.
struct Baresip {
    folder: tempfile::TempDir,
    port: u16,
    program: PathBuf,
}

impl Baresip {
    fn new() -> Option<Self> {
        let program = program("baresip")?;
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "module_path /usr/lib/baresip/modules\nmodule g711.so\nmodule aufile.so\nmodule_app account.so\n\
             module_app menu.so\naudio_source aufile,{}\naudio_player aufile,{}\naudio_alert aufile,{}\n\
             sip_listen 127.0.0.1:{port}\nnet_interface 127.0.0.1\n",
            at("tone.wav"),
            at("heard.wav"),
            at("alert.wav")
        );
        std::fs::write(folder.path().join("config"), config).unwrap();
        std::fs::write(folder.path().join("tone.wav"), tone_wav()).unwrap();
        Some(Baresip { folder, port, program })
    }

    fn start(&self, account: &str, more: &[&str]) -> Child {
        std::fs::write(self.folder.path().join("accounts"), account).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-f").arg(self.folder.path()).args(more);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }
}

/// Twenty seconds of 440 Hz, 8 kHz, 16 bits.
fn tone_wav() -> Vec<u8> {
    let samples = (0..160_000_u32)
        .map(|n| (8_000.0 * (f64::from(n) * 440.0 * std::f64::consts::TAU / 8_000.0).sin()) as i16);
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let mut wav = Vec::new();
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + data.len() as u32).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
    wav.extend_from_slice(&(data.len() as u32).to_le_bytes());
    wav.extend_from_slice(&data);
    wav
}

/// Listens until something louder than faint is heard.
async fn hears_sound(line: &mut RtpLine) {
    let heard = async {
        let mut samples = Vec::new();
        loop {
            match line.next().await {
                RtpEvent::Audio => {
                    samples.clear();
                    line.coding().decode(line.audio(), &mut samples);
                    if samples.iter().any(|s| s.unsigned_abs() > FAINT.unsigned_abs()) {
                        return;
                    }
                }
                RtpEvent::Stopped => panic!("the line has stopped"),
                _ => {}
            }
        }
    };
    timeout(LIMIT, heard).await.expect("nothing is heard");
}

async fn stops(line: &mut RtpLine) {
    let stopped = async { while line.next().await != RtpEvent::Stopped {} };
    timeout(LIMIT, stopped).await.expect("the line does not stop");
}

#[tokio::test]
async fn baresip_calls_and_is_heard() {
    let Some(phone) = Baresip::new() else { return };
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let dial = format!("/dial sip:+14155550101@{}", house.address);
    let account = format!("<sip:ada@{};transport=udp>;regint=0\n", house.address);
    let _running = phone.start(&account, &["-e", &dial, "-t", "3"]);
    let incoming = house.rings().await;
    assert_eq!(incoming.called.as_ref().unwrap().as_str(), "+14155550101");
    let (call, mut line) = incoming.answer().await.unwrap();
    hears_sound(&mut line).await;
    // It leaves after its three seconds.
    stops(&mut line).await;
    assert_eq!(timeout(LIMIT, call.ended()).await.unwrap().by, EndedBy::Them);
}

#[tokio::test]
async fn baresip_is_called_and_hung_up_on() {
    let Some(phone) = Baresip::new() else { return };
    let port = phone.port;
    let house = House::with(vec![trunk(|s| s.port = Some(port))]).await;
    let account = format!("<sip:+14155550102@127.0.0.1:{port};transport=udp>;regint=0;answermode=auto\n");
    let _running = phone.start(&account, &["-t", "20"]);
    let connected = async {
        loop {
            // It needs a moment to listen.
            let call = NewCall {
                ring_timeout: Duration::from_secs(2),
                ..NewCall::to("+14155550102".parse().unwrap())
            };
            let dialling = house.agent.dial(&TrunkId("con_sip".into()), call).await.unwrap();
            if let Ok(answered) = dialling.answered().await {
                return answered;
            }
        }
    };
    let (call, mut line) = timeout(LIMIT, connected).await.expect("baresip does not answer");
    hears_sound(&mut line).await;
    call.hang_up().await;
    stops(&mut line).await;
}

/// One of our own that listens for everything, with a certificate of its own making.
async fn callee(srtp: SrtpMode) -> House {
    let mut listening = listening();
    listening.tcp = Some("127.0.0.1:0".parse().unwrap());
    listening.tls = Some(TlsListening {
        address: "127.0.0.1:0".parse().unwrap(),
        certificate_chain: include_str!("sip_tls/cert.pem").into(),
        private_key: Secret::new(include_str!("sip_tls/key.pem").into()),
    });
    House::listening(listening, vec![trunk(|s| (s.srtp, s.transport) = (srtp, Transport::Tls))]).await
}

async fn listens(address: SocketAddr) {
    let connected = async { while tokio::net::TcpStream::connect(address).await.is_err() {} };
    timeout(LIMIT, connected).await.expect("nobody listens");
}

async fn call_between(caller: &House, callee: &mut House) -> ((SipCall, RtpLine), (SipCall, RtpLine)) {
    let dialling =
        caller.agent.dial(&TrunkId("con_sip".into()), NewCall::to("+14155550101".parse().unwrap())).await;
    let answering = async { callee.rings().await.answer().await.unwrap() };
    let (ours, theirs) =
        tokio::join!(timeout(LIMIT, dialling.unwrap().answered()), timeout(LIMIT, answering));
    (ours.unwrap().unwrap(), theirs.unwrap())
}

#[tokio::test]
async fn calls_run_over_streams_and_encrypted_ones() {
    for (transport, srtp) in [
        (Transport::Tcp, SrtpMode::Off),
        (Transport::Tls, SrtpMode::Off),
        (Transport::Tls, SrtpMode::Required),
    ] {
        let mut callee = callee(srtp).await;
        let (_, tcp, tls) = callee.agent.listening();
        let address = if transport == Transport::Tcp { tcp } else { tls }.unwrap();
        listens(address).await;
        let caller = House::with(vec![trunk(|s| {
            (s.port, s.transport, s.srtp) = (Some(address.port()), transport, srtp);
            s.ca_certificate = Some(include_str!("sip_tls/ca.pem").into());
        })])
        .await;
        for caller_hangs_up in [true, false] {
            let ((ours, _a), (theirs, _b)) = call_between(&caller, &mut callee).await;
            let (first, second) = if caller_hangs_up { (ours, theirs) } else { (theirs, ours) };
            first.hang_up().await;
            let end = timeout(LIMIT, second.ended()).await.unwrap();
            assert_eq!((end.by, end.cause), (EndedBy::Them, Some(16)), "{transport:?} {caller_hangs_up}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_called() {
    let callee = callee(SrtpMode::Off).await;
    let address = callee.agent.listening().2.unwrap();
    listens(address).await;
    let at = |name: &str| Trunk {
        id: TrunkId(name.into()),
        ..trunk(|s| {
            (s.port, s.transport) = (Some(address.port()), Transport::Tls);
            s.domain = "localhost".into();
        })
    };
    let caller = House::with(vec![at("con_sip")]).await;
    let dialling =
        caller.agent.dial(&TrunkId("con_sip".into()), NewCall::to("+14155550101".parse().unwrap())).await;
    assert!(timeout(LIMIT, dialling.unwrap().answered()).await.unwrap().is_err());
    let mut callee = callee;
    while let Ok(event) = callee.events.try_recv() {
        assert!(!matches!(event, SipEvent::Rings(_)));
    }
}
