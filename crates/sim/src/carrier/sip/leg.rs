//! One call over the trunk, either way: its dialog, its media, and the trouble that carriers make in the middle of it
//! (RFC 3261 sections 12 to 15, 3311, 3515, 4028). It keeps to the rules itself and complains where the other side does not.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::super::phone::{Line, NotInTime, Party, Phone, What};
use super::invite::{SipOrder, branch};
use super::message::{Message, Start, Writing, parameter, uri_of};
use super::rtp::{Rtp, RtpReport, RtpTrouble};
use super::sdp::{Direction, Ours, Theirs};
use super::wire::{GIVE_UP, Path, T1, T2};
use super::{ALLOW, Sim, SipCallee, random_hex, with_tag};

/// After a REFER that went well the other side has so long for its BYE.
const REFERRED_BYE_WITHIN: Duration = Duration::from_secs(32);

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LegStatus {
    /// The INVITE is on its way.
    Calling,
    /// The called side rings.
    Ringing,
    /// It was answered.
    Answered,
    /// It is over.
    Over,
}

/// What becomes of a REFER of the customer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferMood {
    /// It is tried, and ends with this status.
    Tries {
        /// 200, 486 and so on.
        outcome: u16,
    },
    /// It is refused at once.
    Refuses {
        /// 603 and so on.
        status: u16,
    },
    /// It is accepted, and nothing is ever heard of it.
    NeverNotifies,
}

impl Default for ReferMood {
    fn default() -> ReferMood {
        ReferMood::Tries { outcome: 200 }
    }
}

pub(super) struct Leg {
    pub(super) call_id: String,
    /// The Request-URI of the INVITE.
    pub(super) uri: String,
    from_customer: bool,
    line: Line,
    rtp: Rtp,
    path: Path,
    writing: Writing,
    dialog: Mutex<Dialog>,
    status: watch::Sender<LegStatus>,
    cancelled: watch::Sender<bool>,
    acknowledged: watch::Sender<bool>,
}

struct Dialog {
    /// The INVITE that began it, ours or theirs.
    invite: Message,
    /// Our side and theirs, with their tags, as From and To have them.
    own: String,
    other: String,
    /// Their Contact: the Request-URI of what we send.
    target: String,
    routes: Vec<String>,
    contact: String,
    sequence: u32,
    description: Ours,
    outcome: Option<u16>,
    reason: Option<String>,
    referred_to: Option<String>,
    offers: u32,
}

/// One call over the trunk as the person at the carrier's end has it. Clones are the same call.
#[derive(Clone)]
pub struct SipLeg {
    pub(super) sim: Arc<Sim>,
    pub(super) leg: Arc<Leg>,
}

impl SipLeg {
    /// The telephone at the carrier's end.
    pub fn phone(&self) -> Phone {
        self.leg.line.phone()
    }

    /// The dialog's Call-ID.
    pub fn call_id(&self) -> &str {
        &self.leg.call_id
    }

    /// The URI that was called.
    pub fn uri(&self) -> &str {
        &self.leg.uri
    }

    /// A header of the INVITE that began it, by its long name.
    pub fn header(&self, name: &str) -> Option<String> {
        self.leg.dialog().invite.header(name).map(str::to_owned)
    }

    /// Where the call stands.
    pub fn status(&self) -> LegStatus {
        *self.leg.status.borrow()
    }

    /// The final status of the INVITE, once it is known.
    pub fn outcome(&self) -> Option<u16> {
        self.leg.dialog().outcome
    }

    /// The `Reason` of the customer's BYE or CANCEL.
    pub fn reason(&self) -> Option<String> {
        self.leg.dialog().reason.clone()
    }

    /// Where the customer's last REFER pointed.
    pub fn referred_to(&self) -> Option<String> {
        self.leg.dialog().referred_to.clone()
    }

    /// How often the customer described its media, the first time included.
    pub fn descriptions(&self) -> u32 {
        self.leg.dialog().offers
    }

    /// Waits until the call stands there, or further.
    pub async fn until(&self, limit: Duration, wished: LegStatus) -> Result<LegStatus, NotInTime> {
        let mut status = self.leg.status.subscribe();
        let waiting = async { status.wait_for(|status| *status >= wished).await.map(|status| *status) };
        match tokio::time::timeout(limit, waiting).await {
            Ok(Ok(status)) if status == LegStatus::Over && wished != status => Err(NotInTime::CallOver),
            Ok(Ok(status)) => Ok(status),
            Ok(Err(_)) => Err(NotInTime::CallOver),
            Err(_) => Err(NotInTime::Limit),
        }
    }

    /// What came from the customer by RTP.
    pub fn rtp(&self) -> RtpReport {
        self.leg.rtp.report()
    }

    /// Makes trouble with what goes to the customer by RTP.
    pub fn rtp_trouble(&self, trouble: RtpTrouble) {
        self.leg.rtp.trouble(trouble);
    }

    /// Goes on sending as another source.
    pub fn change_ssrc(&self) {
        self.leg.rtp.change_ssrc();
    }

    /// Goes on sending from another port.
    pub async fn change_port(&self) -> io::Result<()> {
        self.leg.rtp.change_port().await
    }

    /// Takes the call back while it is not answered, whatever the customer is about to answer.
    pub fn cancel(&self) {
        self.leg.cancelled.send_replace(true);
    }

    /// Ends the call with a BYE and this `Reason`: the status of the answer, if one came.
    pub async fn bye(&self, reason: Option<&str>) -> Option<u16> {
        let mut bye = self.leg.request("BYE", self.sim.as_ref());
        if let Some(reason) = reason {
            bye = bye.with("Reason", reason);
        }
        let answer = self.sim.ask(&bye, &self.leg.path, self.leg.writing).await.last().await;
        self.leg.end(Party::Caller);
        answer.and_then(|answer| answer.status())
    }

    /// Goes without a BYE, as when the network is gone.
    pub fn vanish(&self) {
        self.leg.rtp.stop();
    }

    /// Puts the customer on hold: the status of the answer.
    pub async fn hold(&self) -> Option<u16> {
        self.leg.reinvite(&self.sim, Some(Direction::Hold)).await
    }

    /// Ends the hold, or refreshes the session where there was none: the status of the answer.
    pub async fn resume(&self) -> Option<u16> {
        self.leg.reinvite(&self.sim, Some(Direction::Both)).await
    }

    /// Asks for an offer with an empty re-INVITE and answers it in the ACK: the status of the answer.
    pub async fn ask_for_offer(&self) -> Option<u16> {
        self.leg.reinvite(&self.sim, None).await
    }

    /// Refreshes the session by UPDATE: the status of the answer.
    pub async fn refresh(&self) -> Option<u16> {
        let update = self.leg.request("UPDATE", &self.sim).with("Session-Expires", "120;refresher=uac");
        self.ask(update).await
    }

    /// Presses a key by INFO: the status of the answer.
    pub async fn press_by_info(&self, key: char) -> Option<u16> {
        let info = self.leg.request("INFO", &self.sim);
        self.ask(info.with_body("application/dtmf-relay", format!("Signal={key}\r\nDuration=160\r\n"))).await
    }

    /// Asks the customer to call somebody else, which it should decline: the status of the answer.
    pub async fn refer(&self, to: &str) -> Option<u16> {
        self.ask(self.leg.request("REFER", &self.sim).with("Refer-To", format!("<{to}>"))).await
    }

    async fn ask(&self, request: Message) -> Option<u16> {
        let answers = self.sim.ask(&request, &self.leg.path, self.leg.writing).await;
        answers.last().await?.status()
    }
}

/// Places a call into the customer's trunk.
pub(super) async fn call(sim: &Arc<Sim>, order: SipOrder) -> io::Result<SipLeg> {
    let registered = order.registered.as_ref().and_then(|user| {
        let state = sim.lock();
        let contact = state.registrar.registered.get(user)?.contact.clone();
        Some((contact, state.registered_by.get(user)?.clone()))
    });
    let transport = sim.transport();
    let (uri, host, path) = match registered {
        Some((contact, path)) => (contact, sim.address.to_string(), path),
        None => {
            let customer = sim.customer()?;
            let user = order.request_user.as_deref().unwrap_or(&order.to);
            let uri = format!("sip:{user}@{customer};transport={transport}");
            (uri, customer.to_string(), sim.path_to(customer).await?)
        }
    };
    let invite = order.invite(sim.address, &uri, &host, transport, &random_hex());
    let line = Line::place();
    let rtp = Rtp::open(sim.address.ip(), line.clone()).await?;
    let rich = order.carrier == super::Carrier::Telnyx;
    let description = Ours { media: rtp.local(), version: 1, direction: Direction::Both, rich };
    let header = |name| invite.header(name).unwrap_or_default().to_owned();
    let dialog = Dialog {
        own: header("From"),
        other: header("To"),
        target: uri.clone(),
        routes: Vec::new(),
        contact: header("Contact"),
        sequence: 1,
        description,
        outcome: None,
        reason: None,
        referred_to: None,
        offers: 0,
        invite,
    };
    let leg = Arc::new(Leg::new(uri, false, line, rtp, path, order.writing(), dialog));
    sim.lock().legs.push(leg.clone());
    tokio::spawn(leg.clone().conduct(sim.clone(), order));
    Ok(SipLeg { sim: sim.clone(), leg })
}

/// Takes a call of the customer's.
pub(super) async fn receive(sim: &Arc<Sim>, invite: Message, path: Path, callee: SipCallee) {
    let line = Line::place();
    let Ok(rtp) = Rtp::open(sim.address.ip(), line.clone()).await else {
        return sim.plain_answer(&invite, 500, "No Port Left", &path).await;
    };
    let Start::Request { uri, .. } = &invite.start else { return };
    let header = |name| invite.header(name).unwrap_or_default().to_owned();
    let description = Ours { media: rtp.local(), version: 1, direction: Direction::Both, rich: false };
    let mut routes = invite.values("Record-Route");
    routes.retain(|route| !route.is_empty());
    let dialog = Dialog {
        own: format!("{};tag={}", header("To"), random_hex()),
        other: header("From"),
        target: uri_of(&header("Contact")).to_owned(),
        routes,
        contact: format!("<sip:{};transport={}>", sim.address, sim.transport()),
        sequence: 1,
        description,
        outcome: None,
        reason: None,
        referred_to: None,
        offers: 0,
        invite: invite.clone(),
    };
    let leg = Arc::new(Leg::new(uri.clone(), true, line, rtp, path, Writing::default(), dialog));
    sim.lock().legs.push(leg.clone());
    sim.changed.send_replace(());
    leg.be_called(sim.clone(), invite, callee).await;
}

impl Leg {
    fn new(
        uri: String,
        from_customer: bool,
        line: Line,
        rtp: Rtp,
        path: Path,
        writing: Writing,
        dialog: Dialog,
    ) -> Leg {
        Leg {
            call_id: dialog.invite.header("Call-ID").unwrap_or_default().to_owned(),
            uri,
            from_customer,
            line,
            rtp,
            path,
            writing,
            dialog: Mutex::new(dialog),
            status: watch::Sender::new(LegStatus::Calling),
            cancelled: watch::Sender::new(false),
            acknowledged: watch::Sender::new(false),
        }
    }

    pub(super) fn is_from_customer(&self) -> bool {
        self.from_customer
    }

    fn dialog(&self) -> MutexGuard<'_, Dialog> {
        self.dialog.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn move_to(&self, status: LegStatus) {
        self.status.send_if_modified(|known| {
            let further = status > *known;
            *known = status.max(*known);
            further
        });
    }

    pub(super) fn end(&self, by: Party) {
        self.rtp.stop();
        self.line.end(by);
        self.move_to(LegStatus::Over);
    }

    /// A request of ours within the dialog.
    fn request(&self, method: &str, sim: &Sim) -> Message {
        let mut dialog = self.dialog();
        dialog.sequence += 1;
        self.request_as(&dialog, method, dialog.sequence, sim)
    }

    fn request_as(&self, dialog: &Dialog, method: &str, sequence: u32, sim: &Sim) -> Message {
        let transport = sim.transport().to_uppercase();
        let via = format!("SIP/2.0/{transport} {};branch={}", sim.address, branch());
        let mut request = Message::request(method, &dialog.target).with("Via", via);
        for route in &dialog.routes {
            request = request.with("Route", route.clone());
        }
        request
            .with("Max-Forwards", "70")
            .with("From", dialog.own.clone())
            .with("To", dialog.other.clone())
            .with("Call-ID", self.call_id.clone())
            .with("CSeq", format!("{sequence} {method}"))
            .with("Contact", dialog.contact.clone())
    }

    // A call into the customer's trunk

    async fn conduct(self: Arc<Leg>, sim: Arc<Sim>, order: SipOrder) {
        let mut invite = self.dialog().invite.clone();
        if !order.late_offer {
            invite = invite.with_body("application/sdp", self.dialog().description.text());
        }
        let mut answers = sim.ask(&invite, &self.path, self.writing).await;
        let mut cancelled = self.cancelled.subscribe();
        let (mut taken_back, mut said_bye) = (false, false);
        loop {
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(answer) => self.answered(&sim, &order, &invite, &answer).await,
                    None if self.status_is(LegStatus::Answered) => {}
                    None => self.end(Party::Carrier),
                },
                // An answer that crossed the CANCEL is ended like any other.
                () = self.line.caller_hangs_up(), if !said_bye && self.status_is(LegStatus::Answered) => {
                    said_bye = true;
                    SipLeg { sim: sim.clone(), leg: self.clone() }.bye(None).await;
                }
                () = self.line.caller_hangs_up(), if !taken_back && *self.status.borrow() < LegStatus::Answered => {
                    taken_back = true;
                    self.cancelled.send_replace(true);
                }
                _ = cancelled.changed() => self.take_back(&sim, &invite).await,
                () = self.over() => break,
            }
            sim.changed.send_replace(());
        }
        sim.changed.send_replace(());
    }

    fn status_is(&self, status: LegStatus) -> bool {
        *self.status.borrow() == status
    }

    async fn over(&self) {
        // The sender lives in `self`, so that this cannot fail.
        let _ = self.status.subscribe().wait_for(|status| *status == LegStatus::Over).await;
    }

    /// CANCEL has the branch and the number of the INVITE.
    async fn take_back(&self, sim: &Arc<Sim>, invite: &Message) {
        let header = |name: &str| invite.header(name).unwrap_or_default().to_owned();
        let cancel = Message::request("CANCEL", &self.uri)
            .with("Via", header("Via"))
            .with("Max-Forwards", "70")
            .with("From", header("From"))
            .with("To", header("To"))
            .with("Call-ID", header("Call-ID"))
            .with("CSeq", "1 CANCEL");
        let answers = sim.ask(&cancel, &self.path, self.writing).await;
        let sim = sim.clone();
        tokio::spawn(async move {
            if answers.last().await.and_then(|answer| answer.status()).is_none() {
                sim.complain("CANCEL was not answered".into());
            }
        });
    }

    async fn answered(&self, sim: &Arc<Sim>, order: &SipOrder, invite: &Message, answer: &Message) {
        for complaint in complaints(invite, answer) {
            sim.complain(complaint);
        }
        match answer.status().unwrap_or_default() {
            100 => {}
            101..200 => self.move_to(LegStatus::Ringing),
            200..300 => self.accepted(sim, order, answer).await,
            status => {
                let header = |name: &str| invite.header(name).unwrap_or_default().to_owned();
                let ack = Message::request("ACK", &self.uri)
                    .with("Via", header("Via"))
                    .with("Max-Forwards", "70")
                    .with("From", header("From"))
                    .with("To", answer.header("To").unwrap_or_default())
                    .with("Call-ID", header("Call-ID"))
                    .with("CSeq", "1 ACK");
                sim.send(&ack.write(self.writing), &self.path).await;
                self.dialog().outcome = Some(status);
                self.end(Party::Agent);
            }
        }
    }

    /// The first 200 connects, and every one is acknowledged.
    async fn accepted(&self, sim: &Arc<Sim>, order: &SipOrder, answer: &Message) {
        let first = self.dialog().outcome.is_none();
        {
            let mut dialog = self.dialog();
            dialog.outcome = answer.status();
            dialog.other = answer.header("To").unwrap_or_default().to_owned();
            dialog.target = uri_of(answer.header("Contact").unwrap_or_default()).to_owned();
            dialog.routes = answer.values("Record-Route").into_iter().rev().collect();
            // The carrier's own proxy stands at the top: what we send has passed it.
            let own = sim.address.to_string();
            dialog.routes.retain(|route| !route.contains(&own));
        }
        if order.withhold_ack {
            return;
        }
        let (mut ack, description) = {
            let dialog = self.dialog();
            (self.request_as(&dialog, "ACK", 1, sim), dialog.description)
        };
        if order.late_offer {
            ack = ack.with_body("application/sdp", Ours { rich: false, ..description }.text());
        }
        sim.send(&ack.write(self.writing), &self.path).await;
        if first && self.described(sim, &answer.body) {
            self.line.answer();
            self.move_to(LegStatus::Answered);
        }
    }

    /// Sends media where a description says; false where it says nothing that can be used.
    fn described(&self, sim: &Sim, description: &str) -> bool {
        let theirs = match Theirs::parse(description) {
            Ok(theirs) => theirs,
            Err(malformed) => {
                sim.complain(malformed.to_string());
                return false;
            }
        };
        let held = theirs.deaf;
        self.dialog().offers += 1;
        self.rtp.connect(theirs.media, theirs.keys, held);
        true
    }

    /// A re-INVITE: with an offer of ours, or without one, which asks for theirs.
    async fn reinvite(&self, sim: &Arc<Sim>, direction: Option<Direction>) -> Option<u16> {
        let mut invite = self.request("INVITE", sim).with("Allow", ALLOW).with("Supported", "timer");
        let description = {
            let mut dialog = self.dialog();
            dialog.description.version += 1;
            dialog.description.direction = direction.unwrap_or(Direction::Both);
            Ours { rich: false, ..dialog.description }
        };
        if direction.is_some() {
            invite = invite.with_body("application/sdp", description.text());
        }
        let answer = sim.ask(&invite, &self.path, self.writing).await.last().await?;
        for complaint in complaints(&invite, &answer) {
            sim.complain(complaint);
        }
        let status = answer.status()?;
        let sequence = invite.sequence().map_or(0, |(number, _)| number);
        let mut ack = self.request_as(&self.dialog(), "ACK", sequence, sim);
        if status >= 300 {
            // Of a refusal the ACK belongs to the INVITE's own transaction.
            ack.set("Via", invite.header("Via").unwrap_or_default());
        } else {
            if direction.is_none() {
                ack = ack.with_body("application/sdp", description.text());
            }
            self.described(sim, &answer.body);
            let ignored = Theirs::parse(&answer.body).is_ok_and(|theirs| !theirs.mute);
            if direction == Some(Direction::Hold) && ignored {
                sim.complain("the answer to a hold wants to send".into());
            }
        }
        sim.send(&ack.write(self.writing), &self.path).await;
        Some(status)
    }

    // A call of the customer's

    async fn be_called(self: Arc<Leg>, sim: Arc<Sim>, invite: Message, callee: SipCallee) {
        self.say(&sim, &invite, Message::answer(&invite, 100, "Trying")).await;
        let after_ms = match callee {
            SipCallee::Refuses { status, reason, headers } => {
                let refusal = Message::answer(&invite, status, &reason);
                let refusal =
                    headers.iter().fold(refusal, |refusal, (name, value)| refusal.with(name, value));
                return self.refuse(&sim, &invite, refusal).await;
            }
            SipCallee::Answers { after_ms } => Some(after_ms),
            SipCallee::NoAnswer | SipCallee::Silence => None,
        };
        self.move_to(LegStatus::Ringing);
        self.say(&sim, &invite, Message::answer(&invite, 180, "Ringing")).await;
        let ringing = async {
            match after_ms {
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = becomes_true(&self.cancelled) => {
                self.refuse(&sim, &invite, Message::answer(&invite, 487, "Request Terminated")).await;
            }
            () = ringing => self.clone().pick_up(sim, invite).await,
        }
    }

    async fn refuse(&self, sim: &Arc<Sim>, invite: &Message, refusal: Message) {
        self.dialog().outcome = refusal.status();
        self.say(sim, invite, refusal).await;
        self.end(Party::Caller);
        sim.changed.send_replace(());
    }

    async fn say(&self, sim: &Arc<Sim>, invite: &Message, mut answer: Message) {
        if answer.status() != Some(100) {
            let own = self.dialog().own.clone();
            answer.set("To", own);
        }
        sim.answer(invite, &answer, &self.path).await;
    }

    /// 200 until it is acknowledged, or until nobody seems to be there any more.
    async fn pick_up(self: Arc<Leg>, sim: Arc<Sim>, invite: Message) {
        let (description, contact) = {
            let dialog = self.dialog();
            (dialog.description, dialog.contact.clone())
        };
        let answer = Message::answer(&invite, 200, "OK")
            .with("Contact", contact)
            .with("Allow", ALLOW)
            .with_body("application/sdp", description.text());
        self.dialog().outcome = Some(200);
        if !invite.body.is_empty() && !self.described(&sim, &invite.body) {
            return self.refuse(&sim, &invite, Message::answer(&invite, 488, "Not Acceptable Here")).await;
        }
        let repeating = async {
            let mut wait = T1;
            loop {
                self.say(&sim, &invite, answer.clone()).await;
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(T2);
            }
        };
        let acked = async {
            tokio::select! {
                () = becomes_true(&self.acknowledged) => {}
                () = repeating => {}
            }
        };
        if tokio::time::timeout(GIVE_UP, acked).await.is_err() {
            sim.complain("200 was not acknowledged".into());
            SipLeg { sim, leg: self }.bye(None).await;
            return;
        }
        self.line.answer();
        self.move_to(LegStatus::Answered);
        sim.changed.send_replace(());
        let leg = self.clone();
        tokio::select! {
            () = self.line.caller_hangs_up() => {
                SipLeg { sim, leg }.bye(None).await;
            }
            () = self.over() => {}
        }
    }

    pub(super) fn cancelled(&self) {
        self.cancelled.send_replace(true);
    }

    pub(super) fn acknowledged(&self, sim: &Sim, ack: &Message) {
        let early = self.dialog().outcome.is_some_and(|status| status == 200) && self.from_customer;
        if early && !ack.body.is_empty() {
            self.described(sim, &ack.body);
        }
        self.acknowledged.send_replace(true);
    }

    /// A request of the customer's within the dialog.
    pub(super) async fn requested(self: Arc<Leg>, sim: &Arc<Sim>, request: Message, path: &Path) {
        if self.status_is(LegStatus::Over) {
            return sim.plain_answer(&request, 481, "Call/Transaction Does Not Exist", path).await;
        }
        if let Some(complaint) = self.misdirected(&request) {
            sim.complain(complaint);
        }
        match request.method().unwrap_or_default() {
            "BYE" => {
                self.dialog().reason = request.header("Reason").map(str::to_owned);
                sim.plain_answer(&request, 200, "OK", path).await;
                self.end(Party::Agent);
                sim.changed.send_replace(());
            }
            method @ ("INVITE" | "UPDATE") => {
                let usable = request.body.is_empty() || self.described(sim, &request.body);
                let held = Theirs::parse(&request.body).is_ok_and(|theirs| theirs.deaf);
                let (description, contact) = {
                    let dialog = self.dialog();
                    let direction = if held { Direction::Held } else { Direction::Both };
                    (Ours { rich: false, direction, ..dialog.description }, dialog.contact.clone())
                };
                let mut answer = match usable {
                    true => Message::answer(&request, 200, "OK").with("Contact", contact),
                    false => Message::answer(&request, 488, "Not Acceptable Here"),
                };
                for timer in request.headers("Session-Expires") {
                    answer = answer.with("Session-Expires", timer).with("Require", "timer");
                }
                if usable && (method == "INVITE" || !request.body.is_empty()) {
                    answer = answer.with_body("application/sdp", description.text());
                }
                sim.answer(&request, &answer, path).await;
            }
            "INFO" => {
                let key = request.body.lines().find_map(|line| line.trim().strip_prefix("Signal="));
                if let Some(digit) = key.and_then(|key| key.trim().chars().next()) {
                    self.line.note(What::DigitHeard { digit });
                }
                sim.plain_answer(&request, 200, "OK", path).await;
            }
            "REFER" => self.referred(sim, &request, path).await,
            "NOTIFY" => sim.plain_answer(&request, 200, "OK", path).await,
            _ => sim.plain_answer(&request, 405, "Method Not Allowed", path).await,
        }
    }

    /// A request must be addressed to our Contact and, where we were on the route, come over it.
    fn misdirected(&self, request: &Message) -> Option<String> {
        let dialog = self.dialog();
        let Start::Request { method, uri } = &request.start else { return None };
        let own_tag = parameter(dialog.own.rsplit_once('>').map_or("", |(_, rest)| rest), "tag");
        if request.tag("To") != own_tag {
            return Some(format!("{method} has a To tag that is not ours"));
        }
        if uri != uri_of(&dialog.contact) {
            return Some(format!("{method} is addressed to {uri}, not to our Contact {}", dialog.contact));
        }
        let recorded = dialog.invite.values("Record-Route");
        let routes = request.values("Route");
        let missing = !self.from_customer && !recorded.is_empty() && routes.is_empty();
        missing.then(|| format!("{method} does not follow our Record-Route"))
    }

    async fn referred(self: Arc<Leg>, sim: &Arc<Sim>, request: &Message, path: &Path) {
        let Some(to) = request.header("Refer-To") else {
            return sim.plain_answer(request, 400, "No Refer-To", path).await;
        };
        self.dialog().referred_to = Some(uri_of(to).to_owned());
        let mood = sim.lock().refer;
        let outcome = match mood {
            ReferMood::Refuses { status } => {
                return sim.plain_answer(request, status, "Declined", path).await;
            }
            ReferMood::Tries { outcome } => Some(outcome),
            ReferMood::NeverNotifies => None,
        };
        let mut accepted =
            Message::answer(request, 202, "Accepted").with("Contact", self.dialog().contact.clone());
        with_tag(&mut accepted, &random_hex());
        sim.answer(request, &accepted, path).await;
        let Some(outcome) = outcome else { return };
        for (status, state) in [(100, "active;expires=60"), (outcome, "terminated;reason=noresource")] {
            let notify = self
                .request("NOTIFY", sim)
                .with("Event", "refer")
                .with("Subscription-State", state)
                .with_body("message/sipfrag", format!("SIP/2.0 {status} Outcome\r\n"));
            let answered = sim.ask(&notify, &self.path, self.writing).await.last().await;
            if answered.and_then(|answer| answer.status()) != Some(200) {
                sim.complain("NOTIFY was not answered with 200".into());
            }
        }
        if (200..300).contains(&outcome)
            && tokio::time::timeout(REFERRED_BYE_WITHIN, self.over()).await.is_err()
        {
            SipLeg { sim: sim.clone(), leg: self }.bye(None).await;
        }
    }
}

async fn becomes_true(flag: &watch::Sender<bool>) {
    // The sender lives with whoever waits, so that this cannot fail.
    let _ = flag.subscribe().wait_for(|flag| *flag).await;
}

/// What is wrong with an answer, by RFC 3261 sections 8.2.6 and 13.3.
fn complaints(request: &Message, answer: &Message) -> Vec<String> {
    let status = answer.status().unwrap_or_default();
    let mut wrong = Vec::new();
    // A `received` and a value for `rport` may be added to the topmost Via.
    let bare = |message: &Message| -> Vec<String> {
        let values = message.values("Via").into_iter().enumerate();
        values
            .map(
                |(index, via)| {
                    if index == 0 { via.split(';').next().unwrap_or_default().to_owned() } else { via }
                },
            )
            .collect()
    };
    if bare(request) != bare(answer) || request.branch() != answer.branch() {
        wrong.push(format!("{status} does not repeat every Via"));
    }
    // Folds and the room around parameters may change.
    let tight = |value: Option<&str>| value.map(|value| value.replace(char::is_whitespace, ""));
    for name in ["From", "Call-ID", "CSeq"] {
        if tight(request.header(name)) != tight(answer.header(name)) {
            wrong.push(format!("{status} does not repeat {name}: {:?}", answer.header(name)));
        }
    }
    if status > 100 && answer.tag("To").is_none() {
        wrong.push(format!("{status} has no To tag"));
    }
    if (200..300).contains(&status) && request.method() == Some("INVITE") {
        if answer.header("Contact").is_none() {
            wrong.push(format!("{status} has no Contact"));
        }
        if request.tag("To").is_none() && request.values("Record-Route") != answer.values("Record-Route") {
            wrong.push(format!("{status} does not repeat Record-Route"));
        }
        if !request.body.is_empty() {
            match Theirs::parse(&answer.body) {
                Ok(theirs) => wrong.extend(theirs.complaint()),
                Err(malformed) => wrong.push(malformed.to_string()),
            }
        }
    }
    wrong
}
