//! INVITEs as carriers send them into a trunk: what Twilio's and Telnyx's look like, with their traps.
//! It builds text; who sends it and what is answered is not its concern.

use std::net::SocketAddr;

use super::message::{Message, Writing};
use super::random_hex;

/// Whose INVITE it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carrier {
    /// Twilio Elastic SIP Trunking: two Vias, inner addresses in the lower one and in Contact, a Record-Route.
    #[default]
    Twilio,
    /// Telnyx: compact headers, a display name, `Privacy: none`, more codecs.
    Telnyx,
}

/// A call to place into the customer's trunk.
#[derive(Clone, Debug)]
pub struct SipOrder {
    /// The called number, with or without its plus.
    pub to: String,
    /// The calling number.
    pub from: String,
    /// Whose INVITE it is.
    pub carrier: Carrier,
    /// Written otherwise than the carrier does.
    pub writing: Option<Writing>,
    /// What stands in the Request-URI instead of the number, which then is in To alone.
    pub request_user: Option<String>,
    /// The number that forwarded the call here.
    pub diverted_from: Option<String>,
    /// Whether the caller withholds the number.
    pub anonymous: bool,
    /// Whether the INVITE has no offer: the customer offers, the ACK answers.
    pub late_offer: bool,
    /// Whether the ACK to the answer never comes.
    pub withhold_ack: bool,
    /// Whether the carrier asks for a session timer of so many seconds.
    pub session_expires_s: Option<u32>,
    /// The user whose registered contact is called, instead of the trunk's address.
    pub registered: Option<String>,
    /// More headers.
    pub headers: Vec<(String, String)>,
}

impl SipOrder {
    /// A plain call.
    pub fn new(to: impl Into<String>, from: impl Into<String>) -> SipOrder {
        SipOrder {
            to: to.into(),
            from: from.into(),
            carrier: Carrier::default(),
            writing: None,
            request_user: None,
            diverted_from: None,
            anonymous: false,
            late_offer: false,
            withhold_ack: false,
            session_expires_s: None,
            registered: None,
            headers: Vec::new(),
        }
    }

    pub(super) fn writing(&self) -> Writing {
        let usual = Writing { compact: self.carrier == Carrier::Telnyx, folded: false };
        self.writing.unwrap_or(usual)
    }

    /// The dialog's end on the carrier's side.
    pub(super) fn contact(&self, own: SocketAddr, transport: &str) -> String {
        match self.carrier {
            Carrier::Twilio => format!("<sip:{}@172.18.0.5:5060;transport={transport}>", self.from),
            Carrier::Telnyx => format!("<sip:mod_sofia@{own};transport={transport}>"),
        }
    }

    /// The INVITE without its offer. The customer is reached at `uri_host`.
    pub(super) fn invite(
        &self,
        own: SocketAddr,
        uri: &str,
        uri_host: &str,
        transport: &str,
        tag: &str,
    ) -> Message {
        let host = match self.carrier {
            Carrier::Twilio => "twiliotrunk.pstn.twilio.com".to_owned(),
            Carrier::Telnyx => own.ip().to_string(),
        };
        let name = if self.carrier == Carrier::Telnyx { "\"L, Ada\" " } else { "" };
        let caller = format!("{name}<sip:{}@{host}>", self.from);
        let from = match self.anonymous {
            true => format!("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag={tag}"),
            false => format!("{caller};tag={tag}"),
        };
        let via = format!("SIP/2.0/{} {own};branch={}", transport.to_uppercase(), branch());
        let mut invite = Message::request("INVITE", uri)
            .with("Via", if self.carrier == Carrier::Twilio { via.clone() } else { format!("{via};rport") });
        if self.carrier == Carrier::Twilio {
            let inner = "SIP/2.0/UDP 172.18.0.5:5060;rport=5060;received=172.18.0.5;branch=";
            invite = invite.with("Via", format!("{inner}{}", branch()));
        }
        invite = invite
            .with("Record-Route", format!("<sip:{own};transport={transport};lr>"))
            .with("Max-Forwards", "64")
            .with("From", from)
            .with("To", format!("<sip:{}@{uri_host}>", self.to))
            .with("Call-ID", format!("{}@0.0.0.0", random_hex()))
            .with("CSeq", "1 INVITE")
            .with("Contact", self.contact(own, transport))
            .with("P-Asserted-Identity", caller)
            .with("Privacy", if self.anonymous { "id" } else { "none" });
        if let Some(diverted) = &self.diverted_from {
            invite = invite.with("Diversion", format!("<sip:{diverted}@twilio.com>;reason=unconditional"));
        }
        invite = match self.carrier {
            Carrier::Twilio => invite
                .with("Min-SE", "120")
                .with("Allow", "INVITE,ACK,CANCEL,OPTIONS,BYE,REFER,NOTIFY")
                .with("User-Agent", "Twilio Gateway")
                .with("X-Twilio-AccountSid", "AC00000000000000000000000000000001")
                .with("X-Twilio-CallSid", format!("CA{}", random_hex()))
                .with("Supported", "timer"),
            Carrier::Telnyx => invite
                .with("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, UPDATE, REFER, NOTIFY")
                .with("Supported", "timer, path")
                .with("Allow-Events", "talk, hold, conference, refer")
                .with("X-Telnyx-Session-ID", random_hex()),
        };
        if let Some(seconds) = self.session_expires_s {
            invite = invite.with("Session-Expires", format!("{seconds};refresher=uac"));
        }
        self.headers.iter().fold(invite, |invite, (name, value)| invite.with(name, value))
    }
}

/// A new transaction's name, with the cookie of RFC 3261.
pub(super) fn branch() -> String {
    format!("z9hG4bK{}", random_hex())
}
