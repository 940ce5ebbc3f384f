//! The simulated SIP carrier over real sockets: two of them talk to each other, and a plain socket registers.

use std::time::Duration;

use offhook_sim::carrier::What;
use offhook_sim::carrier::sip::{
    Algorithm, Carrier, LegStatus, ReferMood, RegistrarSettings, RtpTrouble, SipCallee, SipLeg, SipOrder,
    SipSettings, SipSim, SipWriting,
};
use tokio::net::UdpSocket;

use crate::customer::{LIMIT, tone};

const DID: &str = "+14155550101";
const CALLER: &str = "+14155550199";

/// A carrier, and another one that stands for the customer.
struct Pair {
    carrier: SipSim,
    customer: SipSim,
}

impl Pair {
    async fn open(tcp: bool) -> Pair {
        let open = async || {
            let settings = SipSettings { tcp, ..SipSettings::default() };
            SipSim::start("127.0.0.1:0".parse().unwrap(), settings).await.unwrap()
        };
        let pair = Pair { carrier: open().await, customer: open().await };
        pair.carrier.customer_at(pair.customer.address());
        pair.customer.callee(SipCallee::Answers { after_ms: 1 });
        pair
    }

    /// A call that stands, from both ends.
    async fn talk(&self, order: SipOrder) -> (SipLeg, SipLeg) {
        let nth = self.customer.legs().len();
        let leg = self.carrier.call(order).await.unwrap();
        leg.until(LIMIT, LegStatus::Answered).await.unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let other = self.customer.legs().remove(nth);
        other.until(LIMIT, LegStatus::Answered).await.unwrap();
        (leg, other)
    }

    fn agrees(&self) {
        assert_eq!((self.carrier.complaints(), self.customer.complaints()), (vec![], vec![]), "{self:?}");
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let messages = self.carrier.messages();
        messages.iter().try_for_each(|message| writeln!(to, "--- sent: {}\n{}", message.sent, message.text))
    }
}

async fn hears(leg: &SipLeg, fits: impl Fn(&What) -> bool) {
    let heard = leg.phone().until_event(LIMIT, fits).await;
    heard.unwrap_or_else(|error| panic!("{error}: {:?} {:?}", leg.phone().history(), leg.rtp()));
}

#[tokio::test]
async fn both_carriers_calls_stand_and_are_heard_over_udp_and_tcp() {
    for (carrier, tcp) in
        [(Carrier::Twilio, false), (Carrier::Twilio, true), (Carrier::Telnyx, false), (Carrier::Telnyx, true)]
    {
        let pair = Pair::open(tcp).await;
        let order =
            SipOrder { carrier, diverted_from: Some("+14155550133".into()), ..SipOrder::new(DID, CALLER) };
        let (leg, other) = pair.talk(order).await;
        assert!(other.uri().starts_with("sip:+14155550101@"), "{}", other.uri());
        assert!(other.header("Diversion").unwrap().starts_with("<sip:+14155550133@"));
        leg.phone().say(&tone(200));
        hears(&other, |what| *what == What::AgentStarted).await;
        other.phone().say(&tone(200));
        hears(&leg, |what| *what == What::AgentStarted).await;
        leg.phone().press("4#");
        hears(&other, |what| *what == What::DigitHeard { digit: '4' }).await;
        hears(&other, |what| *what == What::DigitHeard { digit: '#' }).await;
        if tcp {
            assert_eq!(leg.bye(Some("Q.850;cause=16;text=\"Normal call clearing\"")).await, Some(200));
            other.until(LIMIT, LegStatus::Over).await.unwrap();
            assert!(other.reason().unwrap().starts_with("Q.850;cause=16"));
        } else {
            other.phone().hang_up();
            leg.until(LIMIT, LegStatus::Over).await.unwrap();
        }
        assert_eq!((leg.rtp().broken_timestamps, other.rtp().keys.as_str()), (0, "4#"));
        pair.agrees();
    }
}

#[tokio::test]
async fn an_invite_may_hide_its_number_its_caller_and_its_headers() {
    let pair = Pair::open(false).await;
    let (leg, other) = pair
        .talk(SipOrder {
            request_user: Some("trunk7".into()),
            anonymous: true,
            writing: Some(SipWriting { compact: true, folded: true }),
            ..SipOrder::new(DID, CALLER)
        })
        .await;
    assert!(other.uri().starts_with("sip:trunk7@"));
    assert!(other.header("To").unwrap().contains(DID));
    assert!(other.header("From").unwrap().contains("anonymous@anonymous.invalid"));
    assert_eq!(other.header("Privacy").as_deref(), Some("id"));
    let sent = pair.carrier.messages()[0].text.clone();
    assert!(sent.contains("\r\nf: ") && sent.contains("\r\n ;"), "{sent}");
    leg.bye(None).await;
    pair.agrees();
}

#[tokio::test]
async fn a_late_offer_is_answered_in_the_ack() {
    let pair = Pair::open(false).await;
    let (leg, other) = pair.talk(SipOrder { late_offer: true, ..SipOrder::new(DID, CALLER) }).await;
    leg.phone().say(&tone(200));
    hears(&other, |what| *what == What::AgentStarted).await;
    assert_eq!((leg.descriptions(), other.descriptions()), (1, 1));
    pair.agrees();
}

#[tokio::test]
async fn a_call_is_held_resumed_asked_and_refreshed() {
    let pair = Pair::open(false).await;
    let (leg, other) = pair.talk(SipOrder::new(DID, CALLER)).await;
    assert_eq!(leg.hold().await, Some(200));
    assert_eq!(leg.resume().await, Some(200));
    assert_eq!(leg.ask_for_offer().await, Some(200));
    assert_eq!(leg.refresh().await, Some(200));
    assert_eq!(leg.press_by_info('5').await, Some(200));
    hears(&other, |what| *what == What::DigitHeard { digit: '5' }).await;
    other.phone().say(&tone(200));
    hears(&leg, |what| *what == What::AgentStarted).await;
    pair.agrees();
}

#[tokio::test]
async fn a_call_is_taken_back_while_it_rings() {
    let pair = Pair::open(false).await;
    pair.customer.callee(SipCallee::NoAnswer);
    let leg = pair.carrier.call(SipOrder::new(DID, CALLER)).await.unwrap();
    leg.until(LIMIT, LegStatus::Ringing).await.unwrap();
    leg.cancel();
    leg.until(LIMIT, LegStatus::Over).await.unwrap();
    assert_eq!(leg.outcome(), Some(487));
    pair.agrees();
}

#[tokio::test]
async fn refusals_arrive_with_their_headers() {
    let pair = Pair::open(false).await;
    for status in [403, 404, 480, 486, 488, 503, 603] {
        let headers = vec![("Retry-After".to_owned(), "7".to_owned())];
        pair.customer.callee(SipCallee::Refuses { status, reason: "No".into(), headers });
        let leg = pair.carrier.call(SipOrder::new(DID, CALLER)).await.unwrap();
        leg.until(LIMIT, LegStatus::Over).await.unwrap();
        assert_eq!(leg.outcome(), Some(status));
    }
    let last = pair.carrier.messages().into_iter().rev().find(|message| !message.sent).unwrap();
    assert!(last.text.contains("Retry-After: 7"), "{}", last.text);
    pair.agrees();
}

#[tokio::test]
async fn rtp_trouble_arrives_as_it_was_made() {
    let pair = Pair::open(false).await;
    let (leg, other) = pair.talk(SipOrder::new(DID, CALLER)).await;
    let until = async |condition: &dyn Fn() -> bool| {
        leg.phone()
            .until(LIMIT, |_| condition())
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}", other.rtp()));
    };
    leg.rtp_trouble(RtpTrouble { lose_every: 5, ..RtpTrouble::default() });
    until(&|| other.rtp().missing >= 2).await;
    leg.rtp_trouble(RtpTrouble { swap_every: 5, repeat_every: 7, ..RtpTrouble::default() });
    until(&|| other.rtp().late >= 2).await;
    leg.rtp_trouble(RtpTrouble { lost_ends: 3, jitter_ms: 30, ..RtpTrouble::default() });
    leg.phone().press("7");
    until(&|| other.rtp().keys == "7").await;
    leg.rtp_trouble(RtpTrouble { extra_ends: 3, ..RtpTrouble::default() });
    leg.phone().press("8");
    until(&|| other.rtp().keys == "78").await;
    leg.change_ssrc();
    leg.change_port().await.unwrap();
    until(&|| other.rtp().ssrcs.len() == 2 && other.rtp().from.len() == 2).await;
}

#[tokio::test]
async fn a_refer_is_tried_refused_or_forgotten() {
    let pair = Pair::open(false).await;
    let (leg, other) = pair.talk(SipOrder::new(DID, CALLER)).await;
    let notified = |pair: &Pair| {
        let told = |message: &&offhook_sim::carrier::sip::Traced| message.text.starts_with("NOTIFY");
        pair.customer.messages().iter().filter(told).count()
    };
    for (mood, status, notifies) in [
        (ReferMood::Refuses { status: 603 }, 603, 0),
        (ReferMood::NeverNotifies, 202, 0),
        (ReferMood::Tries { outcome: 486 }, 202, 2),
    ] {
        pair.customer.refers(mood);
        assert_eq!(leg.refer("sip:+14155550102@carrier.example").await, Some(status));
        pair.customer.until(LIMIT, |_| notified(&pair) == notifies).await.unwrap();
    }
    assert_eq!(other.referred_to().as_deref(), Some("sip:+14155550102@carrier.example"));
    assert_eq!(leg.status(), LegStatus::Answered);
    pair.agrees();
}

#[tokio::test]
async fn options_are_answered_or_not() {
    let pair = Pair::open(false).await;
    assert_eq!(pair.carrier.options(LIMIT).await.unwrap(), Some(200));
    pair.customer.ignore_options(true);
    assert_eq!(pair.carrier.options(Duration::from_millis(50)).await.unwrap(), None);
}

/// A device that registers with one socket.
struct Device {
    socket: UdpSocket,
    sequence: u32,
}

impl Device {
    async fn register(&mut self, sim: &SipSim, expires: u32, credentials: &str) -> Option<String> {
        self.sequence += 1;
        let own = self.socket.local_addr().unwrap();
        let text = format!(
            "REGISTER sip:sip.example SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{0};rport\r\nMax-Forwards: 70\r\nFrom: <sip:ada@sip.example>;tag=1\r\nTo: <sip:ada@sip.example>\r\nCall-ID: reg\r\nCSeq: {0} REGISTER\r\nContact: <sip:ada@{own}>\r\nExpires: {expires}\r\n{credentials}Content-Length: 0\r\n\r\n",
            self.sequence
        );
        self.socket.send_to(text.as_bytes(), sim.address()).await.unwrap();
        let mut answer = vec![0; 4_096];
        let received = tokio::time::timeout(Duration::from_millis(500), self.socket.recv(&mut answer)).await;
        Some(String::from_utf8_lossy(&answer[..received.ok()?.unwrap()]).into_owned())
    }
}

fn credentials(challenge: &str, password: &str) -> String {
    use md5::{Digest, Md5};
    let hash = |text: String| Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let nonce = challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    let secret = hash(format!("ada:sip.example:{password}"));
    let request = hash("REGISTER:sip:sip.example".into());
    let response = hash(format!("{secret}:{nonce}:00000001:c:auth:{request}"));
    format!(
        "Authorization: Digest username=\"ada\", realm=\"sip.example\", nonce=\"{nonce}\", uri=\"sip:sip.example\", qop=auth, nc=00000001, cnonce=\"c\", response=\"{response}\"\r\n"
    )
}

#[tokio::test]
async fn a_registrar_challenges_grants_less_and_has_its_moods() {
    let registrar = RegistrarSettings {
        users: [("ada".to_owned(), "secret".to_owned())].into(),
        algorithm: Algorithm::Md5,
        grants_s: 60,
        least_s: 30,
        ..RegistrarSettings::default()
    };
    let settings = SipSettings { registrar, ..SipSettings::default() };
    let sim = SipSim::start("127.0.0.1:0".parse().unwrap(), settings).await.unwrap();
    let mut device = Device { socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(), sequence: 0 };
    let challenge = device.register(&sim, 600, "").await.unwrap();
    assert!(challenge.starts_with("SIP/2.0 401 "), "{challenge}");
    let right = credentials(&challenge, "secret");
    for (expires, credentials, status) in [
        (600, credentials(&challenge, "wrong"), "401"),
        (600, right.clone(), "200"),
        (10, right.clone(), "423"),
    ] {
        let answer = device.register(&sim, expires, &credentials).await.unwrap();
        assert!(answer.starts_with(&format!("SIP/2.0 {status} ")), "{answer}");
    }
    let registration = sim.registration("ada").unwrap();
    assert_eq!((registration.expires_s, registration.times), (60, 1));

    sim.registrar(|settings| settings.forgets_challenges = true);
    let stale = device.register(&sim, 60, &right).await.unwrap();
    assert!(stale.contains("stale=true"), "{stale}");
    assert!(
        device.register(&sim, 0, &credentials(&stale, "secret")).await.unwrap().starts_with("SIP/2.0 200 ")
    );
    assert_eq!(sim.registration("ada"), None);
    sim.registrar(|settings| settings.is_lost = true);
    assert_eq!(device.register(&sim, 60, "").await, None);
    sim.registrar(|settings| settings.is_lost = false);
    assert!(device.register(&sim, 60, &credentials(&stale, "secret")).await.unwrap().contains(";expires=60"));
    let order = SipOrder { registered: Some("ada".into()), ..SipOrder::new(DID, CALLER) };
    let leg = sim.call(order).await.unwrap();
    let mut invite = vec![0; 4_096];
    let length = tokio::time::timeout(LIMIT, device.socket.recv(&mut invite)).await.unwrap().unwrap();
    let invite = String::from_utf8_lossy(&invite[..length]).into_owned();
    assert!(invite.starts_with("INVITE sip:ada@127.0.0.1:") && invite.contains(DID), "{invite}");
    assert_eq!(leg.status(), LegStatus::Calling);
}

#[tokio::test]
async fn an_answer_that_crosses_the_cancel_is_ended_by_a_bye() {
    let pair = Pair::open(false).await;
    let (leg, other) = pair.talk(SipOrder::new(DID, CALLER)).await;
    leg.cancel();
    let cancelled = |message: &offhook_sim::carrier::sip::Traced| message.text.contains("CSeq: 1 CANCEL");
    pair.carrier
        .until(LIMIT, |sim| sim.messages().iter().filter(|one| cancelled(one)).count() == 2)
        .await
        .unwrap();
    assert_eq!((leg.status(), other.status()), (LegStatus::Answered, LegStatus::Answered));
    leg.phone().hang_up();
    other.until(LIMIT, LegStatus::Over).await.unwrap();
    pair.agrees();
}

#[tokio::test]
async fn a_challenged_call_without_credentials_goes_no_further() {
    let settings = SipSettings { challenges_calls: true, ..SipSettings::default() };
    let customer = SipSim::start("127.0.0.1:0".parse().unwrap(), settings).await.unwrap();
    let settings = SipSettings { customer: Some(customer.address()), ..SipSettings::default() };
    let carrier = SipSim::start("127.0.0.1:0".parse().unwrap(), settings).await.unwrap();
    let leg = carrier.call(SipOrder::new(DID, CALLER)).await.unwrap();
    leg.until(LIMIT, LegStatus::Over).await.unwrap();
    assert_eq!((leg.outcome(), customer.legs().len()), (Some(407), 0));
}
