//! Commands to Telnyx calls ("Call Control"): answer, stream, press, put through, hang up, and calls of our own.
//! A command is only accepted here; what it does arrives by webhook. Each carries a `command_id`: the same one within 60 s is ignored.

use super::rest::{MAX_PAGE_SIZE, MAX_PAGES, Telnyx};
use crate::http::Harm;
use crate::{Area, CarrierError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use offhook_core::{E164, Language, Pii};
use offhook_media::coding::Coding;
use offhook_media::g711::Law;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;
use url::Url;

/// The most characters that are spoken at once.
pub const MAX_SPOKEN_CHARS: usize = 3_000;
/// How long a call of ours may last, in seconds.
pub const TIME_LIMIT_S: RangeInclusive<u32> = 30..=14_400;
/// The most keys that are pressed with one command.
pub const MAX_KEYS: usize = 128;

/// The socket that a call's audio goes to and comes from, and how it is coded both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamTo {
    /// Where Telnyx connects to; the call's ticket is in it.
    pub url: Url,
    /// How audio is to be coded. What comes says at its start how it is coded really.
    pub coding: Coding,
}

/// Why we do not take a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The caller hears that we do not want to.
    Declined,
    /// The caller hears that we are engaged.
    Busy,
}

/// Another phone that a call is put through to.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Whom to ring: a number or `sip:…`.
    pub to: Pii<String>,
    /// Who is seen to ring: a number of the account; without it the number that was called.
    pub from: Option<Pii<E164>>,
    /// Seconds to let it ring; Telnyx's default is 30.
    pub ring_timeout_s: Option<u16>,
    /// What webhooks of the other phone's leg shall bring back.
    pub target_state: Option<String>,
}

/// A call to be made.
#[derive(Clone, Debug)]
pub struct NewCall {
    /// The id of our call control application, the `connection_id` of a number's routing.
    pub application: String,
    /// Whom to ring: a number or `sip:…`.
    pub to: Pii<String>,
    /// Who is seen to ring: a number of the account.
    pub from: Pii<String>,
    /// The socket for its audio, opened when somebody picks up.
    pub stream: Option<StreamTo>,
    /// What its webhooks shall bring back.
    pub client_state: Option<String>,
    /// The call that it belongs to: both are of one session then.
    pub link_to: Option<String>,
    /// The other phone shows who rings in that call, not [`NewCall::from`].
    pub shows_linked_caller: bool,
    /// Keys to press once somebody picks up.
    pub keys: Option<Pii<String>>,
    /// Seconds to let it ring; Telnyx's default is 30.
    pub ring_timeout_s: Option<u16>,
    /// Seconds after which the call is cut, within [`TIME_LIMIT_S`].
    pub time_limit_s: Option<u32>,
}

/// A leg that was made for a call of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLeg {
    /// The id that commands are given to.
    pub carrier_call: String,
    /// The same for every leg that belongs together.
    pub session: String,
}

impl Telnyx {
    /// Answers a call that rings.
    ///
    /// G.711 audio begins with it. L16 does not, since `answer` cannot ask for its rate: when `call.answered` comes without a stream,
    /// give [`Telnyx::start_stream`].
    pub async fn answer(
        &self,
        carrier_call: &str,
        to: &StreamTo,
        client_state: Option<&str>,
        command_id: &str,
    ) -> Result<(), CarrierError> {
        let mut fields = match to.coding {
            Coding::G711(_) => stream_fields(to)?,
            Coding::Linear { .. } => Map::new(),
        };
        fields.remove(RATE);
        put_state(&mut fields, "client_state", client_state);
        self.act(carrier_call, "answer", fields, command_id).await
    }

    /// Opens a socket for a call's audio: the first, or another one in the place of one that broke. A call has one at a time.
    pub async fn start_stream(
        &self,
        carrier_call: &str,
        to: &StreamTo,
        command_id: &str,
    ) -> Result<(), CarrierError> {
        self.act(carrier_call, "streaming_start", stream_fields(to)?, command_id).await
    }

    /// Closes the socket for a call's audio; the call stays up.
    pub async fn stop_stream(&self, carrier_call: &str, command_id: &str) -> Result<(), CarrierError> {
        self.act(carrier_call, "streaming_stop", Map::new(), command_id).await
    }

    /// Ends a call at whatever point it is; that it is over already is no error.
    pub async fn hang_up(&self, carrier_call: &str, command_id: &str) -> Result<(), CarrierError> {
        match self.act(carrier_call, "hangup", Map::new(), command_id).await {
            Err(CarrierError::CallOver) => Ok(()),
            outcome => outcome,
        }
    }

    /// Does not take a call that rings; that it is over already is no error.
    pub async fn reject(
        &self,
        carrier_call: &str,
        why: Rejection,
        command_id: &str,
    ) -> Result<(), CarrierError> {
        let cause = match why {
            Rejection::Declined => "CALL_REJECTED",
            Rejection::Busy => "USER_BUSY",
        };
        let fields = Map::from_iter([("cause".into(), cause.into())]);
        match self.act(carrier_call, "reject", fields, command_id).await {
            Err(CarrierError::CallOver) => Ok(()),
            outcome => outcome,
        }
    }

    /// Rings another phone and joins it to the call when it picks up. If it does not, its leg's `call.hangup` says why, and the call
    /// is still ours.
    pub async fn transfer(
        &self,
        carrier_call: &str,
        to: &Transfer,
        command_id: &str,
    ) -> Result<(), CarrierError> {
        let mut fields = Map::from_iter([("to".into(), to.to.expose().as_str().into())]);
        put(&mut fields, "from", to.from.as_ref().map(|from| from.expose().as_str()));
        put(&mut fields, "timeout_secs", to.ring_timeout_s);
        put_state(&mut fields, "target_leg_client_state", to.target_state.as_deref());
        self.act(carrier_call, "transfer", fields, command_id).await
    }

    /// Lets a call and another one of the account hear each other; `call.bridged` says when they do. A call that was bridged by this
    /// command is not hung up when the other one is, and is still ours.
    pub async fn bridge(
        &self,
        carrier_call: &str,
        other: &str,
        command_id: &str,
    ) -> Result<(), CarrierError> {
        let fields = Map::from_iter([
            ("call_control_id".into(), other.into()),
            ("park_after_unbridge".into(), "self".into()),
            ("prevent_double_bridge".into(), true.into()),
        ]);
        self.act(carrier_call, "bridge", fields, command_id).await
    }

    /// Presses keys in a live call: digits, `*`, `#`, `A` to `D`, `w` (half a second) and `W` (a second) to wait.
    pub async fn press(
        &self,
        carrier_call: &str,
        keys: &Pii<String>,
        command_id: &str,
    ) -> Result<(), CarrierError> {
        let fields = Map::from_iter([("digits".into(), checked_keys(keys)?.into())]);
        self.act(carrier_call, "send_dtmf", fields, command_id).await
    }

    /// Speaks a text with a voice of the carrier's; how it ended comes as `call.speak.ended`.
    pub async fn speak(
        &self,
        carrier_call: &str,
        text: &Pii<String>,
        language: &Language,
        command_id: &str,
    ) -> Result<(), CarrierError> {
        let text = text.expose();
        if text.trim().is_empty() || text.chars().count() > MAX_SPOKEN_CHARS {
            return Err(CarrierError::NotAskable("a spoken text has 1 to 3,000 characters"));
        }
        let fields = Map::from_iter([
            ("payload".into(), text.as_str().into()),
            ("payload_type".into(), "text".into()),
            ("voice".into(), voice_for(language).into()),
        ]);
        self.act(carrier_call, "speak", fields, command_id).await
    }

    /// Asks the other end of a SIP call to ring somebody else in our place (REFER).
    pub async fn refer(
        &self,
        carrier_call: &str,
        sip_address: &Pii<String>,
        command_id: &str,
    ) -> Result<(), CarrierError> {
        let fields = Map::from_iter([("sip_address".into(), sip_address.expose().as_str().into())]);
        self.act(carrier_call, "refer", fields, command_id).await
    }

    /// Rings somebody, once. After [`CarrierError::OutcomeUnknown`] look with [`Telnyx::live_call`] whether it happened.
    pub async fn dial(&self, call: &NewCall, command_id: &str) -> Result<NewLeg, CarrierError> {
        let mut fields = match &call.stream {
            Some(to) => stream_fields(to)?,
            None => Map::new(),
        };
        if call.time_limit_s.is_some_and(|limit| !TIME_LIMIT_S.contains(&limit)) {
            return Err(CarrierError::NotAskable("a call is cut after 30 to 14,400 seconds"));
        }
        put(&mut fields, "connection_id", Some(call.application.as_str()));
        put(&mut fields, "to", Some(call.to.expose().as_str()));
        put(&mut fields, "from", Some(call.from.expose().as_str()));
        put(&mut fields, "link_to", call.link_to.as_deref());
        if call.shows_linked_caller {
            if call.link_to.is_none() {
                return Err(CarrierError::NotAskable(
                    "only a call that belongs to another can show its caller",
                ));
            }
            // The number of the other call's caller then stands in the place of `from`.
            put(&mut fields, "bridge_intent", Some(true));
        }
        put(&mut fields, "send_digits_on_answer", call.keys.as_ref().map(checked_keys).transpose()?);
        put(&mut fields, "timeout_secs", call.ring_timeout_s);
        put(&mut fields, "time_limit_secs", call.time_limit_s);
        put(&mut fields, "command_id", Some(command_id));
        put_state(&mut fields, "client_state", call.client_state.as_deref());
        let leg: CallResource =
            self.change(Area::Voice, Method::POST, self.url(&["calls"]), &Value::Object(fields)).await?;
        let session = leg.call_session_id.ok_or_else(|| Harm::Possible.unreadable())?;
        Ok(NewLeg { carrier_call: leg.call_control_id, session })
    }

    /// Whether a call is still up.
    pub async fn is_live(&self, carrier_call: &str) -> Result<bool, CarrierError> {
        match self.read::<CallResource>(Area::Voice, &self.url(&["calls", carrier_call])).await {
            Ok(call) => Ok(call.is_alive),
            Err(CarrierError::CallOver | CarrierError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The live call of an application that carries this state: the way to learn whether a call was made when its outcome is unknown.
    pub async fn live_call(
        &self,
        application: &str,
        client_state: &str,
    ) -> Result<Option<String>, CarrierError> {
        let state = STANDARD.encode(client_state);
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut url = self.url(&["connections", application, "active_calls"]);
            url.query_pairs_mut().append_pair("page[limit]", &MAX_PAGE_SIZE.to_string());
            if let Some(after) = &after {
                url.query_pairs_mut().append_pair("page[after]", after);
            }
            let page: LiveCalls = self.get(Area::Voice, &url).await?;
            if let Some(call) = page.data.into_iter().find(|call| call.client_state.as_ref() == Some(&state))
            {
                return Ok(Some(call.call_control_id));
            }
            after = page.meta.and_then(|meta| meta.cursors?.after).filter(|after| !after.is_empty());
            if after.is_none() {
                break;
            }
        }
        Ok(None)
    }

    async fn act(
        &self,
        carrier_call: &str,
        action: &str,
        mut fields: Map<String, Value>,
        command_id: &str,
    ) -> Result<(), CarrierError> {
        put(&mut fields, "command_id", Some(command_id));
        let url = self.url(&["calls", carrier_call, "actions", action]);
        self.command(Area::Voice, url, &Value::Object(fields)).await
    }
}

const RATE: &str = "stream_bidirectional_sampling_rate";

fn stream_fields(to: &StreamTo) -> Result<Map<String, Value>, CarrierError> {
    let codec = match to.coding {
        Coding::G711(Law::Mu) => "PCMU",
        Coding::G711(Law::A) => "PCMA",
        Coding::Linear { rate_hz: 8_000 | 16_000 | 24_000 | 48_000 } => "L16",
        Coding::Linear { .. } => {
            return Err(CarrierError::NotAskable(
                "a stream has 8,000, 16,000, 24,000 or 48,000 samples a second",
            ));
        }
    };
    let fields = json!({
        "stream_url": to.url,
        "stream_track": "inbound_track",
        "stream_codec": codec,
        "stream_bidirectional_mode": "rtp",
        "stream_bidirectional_codec": codec,
        RATE: to.coding.rate_hz(),
        // The leg that we answered is alone: audio for the opposite one would be heard by nobody.
        "stream_bidirectional_target_legs": "self",
    });
    let Value::Object(fields) = fields else { unreachable!("it is written as an object") };
    Ok(fields)
}

fn put(fields: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        fields.insert(name.into(), value.into());
    }
}

/// States travel in Base64.
fn put_state(fields: &mut Map<String, Value>, name: &str, state: Option<&str>) {
    put(fields, name, state.map(|state| STANDARD.encode(state)));
}

fn checked_keys(keys: &Pii<String>) -> Result<&str, CarrierError> {
    let keys = keys.expose();
    let all_keys =
        keys.bytes().all(|key| matches!(key, b'0'..=b'9' | b'A'..=b'D' | b'*' | b'#' | b'w' | b'W'));
    if (1..=MAX_KEYS).contains(&keys.len()) && all_keys {
        Ok(keys)
    } else {
        Err(CarrierError::NotAskable("keys are 1 to 128 digits, *, #, A to D, and w or W to wait"))
    }
}

/// A voice that speaks the language: Amazon's where they have one, else Microsoft's, by their own names.
fn voice_for(language: &Language) -> &'static str {
    let exact = VOICES.iter().find(|(tag, _)| *tag == language.as_str());
    let near = || VOICES.iter().find(|(tag, _)| tag.split('-').next() == Some(language.primary()));
    exact.or_else(near).map_or("AWS.Polly.Joanna", |(_, voice)| voice)
}

/// The first of a language stands for its other regions.
const VOICES: [(&str, &str); 36] = [
    ("en-US", "AWS.Polly.Joanna"),
    ("en-GB", "AWS.Polly.Amy"),
    ("en-AU", "AWS.Polly.Nicole"),
    ("en-IN", "AWS.Polly.Aditi"),
    ("ar", "AWS.Polly.Zeina"),
    ("cy-GB", "AWS.Polly.Gwyneth"),
    ("da-DK", "AWS.Polly.Naja"),
    ("de-DE", "AWS.Polly.Vicki"),
    ("es-US", "AWS.Polly.Lupe"),
    ("es-ES", "AWS.Polly.Lucia"),
    ("es-MX", "AWS.Polly.Mia"),
    ("fr-FR", "AWS.Polly.Lea"),
    ("fr-CA", "AWS.Polly.Chantal"),
    ("hi-IN", "AWS.Polly.Aditi"),
    ("is-IS", "AWS.Polly.Dora"),
    ("it-IT", "AWS.Polly.Bianca"),
    ("ja-JP", "AWS.Polly.Mizuki"),
    ("ko-KR", "AWS.Polly.Seoyeon"),
    ("nb-NO", "AWS.Polly.Liv"),
    ("no", "AWS.Polly.Liv"),
    ("nl-NL", "AWS.Polly.Lotte"),
    ("pl-PL", "AWS.Polly.Ewa"),
    ("pt-BR", "AWS.Polly.Camila"),
    ("pt-PT", "AWS.Polly.Ines"),
    ("ro-RO", "AWS.Polly.Carmen"),
    ("ru-RU", "AWS.Polly.Tatyana"),
    ("sv-SE", "AWS.Polly.Astrid"),
    ("tr-TR", "AWS.Polly.Filiz"),
    ("zh-CN", "AWS.Polly.Zhiyu"),
    ("cmn-CN", "AWS.Polly.Zhiyu"),
    ("yue", "Azure.zh-HK-HiuMaanNeural"),
    ("zh-HK", "Azure.zh-HK-HiuMaanNeural"),
    ("hu-HU", "Azure.hu-HU-NoemiNeural"),
    ("id-ID", "Azure.id-ID-GadisNeural"),
    ("th-TH", "Azure.th-TH-PremwadeeNeural"),
    ("vi-VN", "Azure.vi-VN-HoaiMyNeural"),
];

#[derive(Deserialize)]
struct CallResource {
    call_control_id: String,
    call_session_id: Option<String>,
    #[serde(default)]
    is_alive: bool,
    client_state: Option<String>,
}

#[derive(Deserialize)]
struct LiveCalls {
    data: Vec<CallResource>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    cursors: Option<Cursors>,
}

#[derive(Deserialize)]
struct Cursors {
    after: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_spoken_by_a_voice_of_its_own_region_or_of_another() {
        let voice = |tag: &str| voice_for(&tag.parse().unwrap());
        assert_eq!(voice("en-GB"), "AWS.Polly.Amy");
        assert_eq!(voice("en-ZA"), "AWS.Polly.Joanna");
        assert_eq!(voice("de"), "AWS.Polly.Vicki");
        assert_eq!(voice("zh-Hant"), "AWS.Polly.Zhiyu");
        assert_eq!(voice("vi"), "Azure.vi-VN-HoaiMyNeural");
        assert_eq!(voice("eo"), "AWS.Polly.Joanna");
    }

    #[test]
    fn only_keys_of_a_telephone_can_be_pressed() {
        for keys in ["1w2W#*AD", "0", &"5".repeat(MAX_KEYS)] {
            assert!(checked_keys(&Pii::new(keys.to_owned())).is_ok(), "{keys}");
        }
        for keys in ["", "a", "1,2", "+1", "E", &"5".repeat(MAX_KEYS + 1)] {
            assert!(checked_keys(&Pii::new(keys.to_owned())).is_err(), "{keys}");
        }
    }

    #[test]
    fn a_rate_that_telnyx_does_not_have_is_not_asked_for() {
        let to = |rate_hz| StreamTo { url: "wss://h/m".parse().unwrap(), coding: Coding::Linear { rate_hz } };
        assert!(stream_fields(&to(16_000)).is_ok());
        assert!(matches!(stream_fields(&to(44_100)), Err(CarrierError::NotAskable(_))));
    }
}
