//! Commands on calls: which fields each takes, in which state of a call it is possible, and the order that becomes of it.
//! An accepted command is answered `ok` and has done nothing yet.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::call::{Call, CallState, HangupCause, Parks};
use super::conduct::{Gather, Order, Sound};
use super::dial::{Detection, Transfer, is_address};
use super::request::{Body, Field, Kind, Refusal};
use super::rest::{Answer, RestRequest, shown};
use super::stream::StreamWish;
use super::{AnswerRate, Sim};

/// For so long a dial with the same `command_id` is the same dial.
pub(super) const DIAL_MEMORY: Duration = Duration::from_secs(60);
const MAX_SPEECH_CHARACTERS: usize = 3_000;

const CODECS: &[&str] = &["PCMU", "PCMA", "G722", "OPUS", "AMR-WB", "L16"];
const STREAM_CODECS: &[&str] = &["PCMU", "PCMA", "G722", "OPUS", "AMR-WB", "L16", "default"];
const METHODS: &[&str] = &["POST", "GET"];
const HEADER: &[Field] = &[Field::text("name").required(), Field::text("value").required()];
const PARAMETER: &[Field] = &[Field::text("name"), Field::text("value")];

/// Declares the fields of a request, those of whole families by the family's name.
macro_rules! fields {
    ($($name:ident: $($field:expr),* $(,)?;)*) => { $( const $name: &[Field] = &[$($field),*]; )* };
}

fields! {
    COMMON: Field::text("client_state"), Field::text("command_id");
    HOOKS:
        Field::new("webhook_url", Kind::WebUrl),
        Field::one_of("webhook_url_method", METHODS),
        Field::any("webhook_urls"),
        Field::one_of("webhook_urls_method", METHODS),
        Field::any("webhook_retries_policies");
    HEADERS: Field::new("custom_headers", Kind::Objects(HEADER)), Field::new("sip_headers", Kind::Objects(HEADER));
    STREAM:
        Field::text("stream_url"),
        Field::one_of("stream_track", &["inbound_track", "outbound_track", "both_tracks"]),
        Field::one_of("stream_codec", STREAM_CODECS),
        Field::one_of("stream_bidirectional_mode", &["mp3", "rtp"]),
        Field::one_of("stream_bidirectional_codec", CODECS),
        Field::one_of("stream_bidirectional_target_legs", &["both", "self", "opposite"]);
    STREAM_RATE: Field::whole("stream_bidirectional_sampling_rate", 8_000..=48_000);
    STREAM_TOKEN: Field::text("stream_auth_token");
    CUSTOM_HEADERS: Field::new("custom_headers", Kind::Objects(HEADER));
    RECORD:
        Field::one_of("record", &["record-from-answer"]),
        Field::one_of("record_channels", &["single", "dual"]),
        Field::text("record_custom_file_name"),
        Field::one_of("record_format", &["wav", "mp3"]),
        Field::whole("record_max_length", 0..=14_400),
        Field::whole("record_timeout_secs", 0..=14_400),
        Field::one_of("record_track", &["both", "inbound", "outbound"]),
        Field::one_of("record_trim", &["trim-silence"]);
    ANSWER:
        Field::any("assistant"),
        Field::text("billing_group_id"),
        Field::any("conversation_relay_config"),
        Field::any("deepfake_detection"),
        Field::text("preferred_codecs"),
        Field::flag("send_silence_when_idle"),
        Field::any("sound_modifications"),
        Field::flag("transcription"),
        Field::any("transcription_config");
    PARTY:
        Field::one_of("answering_machine_detection",
            &["premium", "detect", "detect_beep", "detect_words", "greeting_end", "disabled"]),
        Field::any("answering_machine_detection_config"),
        Field::text("audio_url"),
        Field::text("from_display_name"),
        Field::one_of("media_encryption", &["disabled", "SRTP", "DTLS"]),
        Field::text("media_name"),
        Field::one_of("park_after_unbridge", &["self"]),
        Field::text("preferred_codecs"),
        Field::one_of("privacy", &["id", "none"]),
        Field::text("send_digits_on_answer"),
        Field::text("sip_auth_password"),
        Field::text("sip_auth_username"),
        Field::one_of("sip_region", &["US", "Europe", "Canada", "Australia", "Middle East"]),
        Field::one_of("sip_transport_protocol", &["UDP", "TCP", "TLS"]),
        Field::any("sound_modifications"),
        Field::whole("time_limit_secs", 30..=14_400),
        Field::whole("timeout_secs", 1..=600);
}

fields! {
    DIAL:
        Field::text("connection_id").required(),
        Field::new("to", Kind::TextOrTexts).required(),
        Field::text("from").required(),
        Field::text("link_to"),
        Field::flag("bridge_intent"),
        Field::flag("bridge_on_answer"),
        Field::flag("prevent_double_bridge"),
        Field::flag("retry_on_timeout"),
        Field::text("supervise_call_control_id"),
        Field::one_of("supervisor_role", &["barge", "whisper", "monitor"]),
        Field::any("conference_config"),
        Field::any("dialogflow_config"),
        Field::flag("enable_dialogflow"),
        Field::flag("stream_establish_before_call_originate"),
        Field::text("billing_group_id"),
        Field::any("assistant"),
        Field::any("conversation_relay_config"),
        Field::any("deepfake_detection"),
        Field::flag("send_silence_when_idle"),
        Field::flag("transcription"),
        Field::any("transcription_config");
    REJECT: Field::one_of("cause", &["CALL_REJECTED", "USER_BUSY"]).required();
    STREAM_START:
        Field::new("custom_parameters", Kind::Objects(PARAMETER)),
        Field::any("dialogflow_config"),
        Field::flag("enable_dialogflow");
    STREAM_STOP: Field::text("stream_id");
    TRANSFER:
        Field::text("to").required(),
        Field::text("from"),
        Field::flag("early_media"),
        Field::one_of("mute_dtmf", &["none", "both", "self", "opposite"]),
        Field::text("target_leg_client_state");
    BRIDGE:
        Field::text("call_control_id").required(),
        Field::flag("hold_after_unbridge"),
        Field::one_of("mute_dtmf", &["none", "both", "self", "opposite"]),
        Field::one_of("park_after_unbridge", &["self"]),
        Field::flag("play_ringtone"),
        Field::flag("prevent_double_bridge"),
        Field::text("queue"),
        Field::text("ringtone"),
        Field::text("video_room_context"),
        Field::text("video_room_id");
    SPEECH:
        Field::text("payload").required(),
        Field::text("voice").required(),
        Field::one_of("payload_type", &["text", "ssml"]),
        Field::one_of("service_level", &["basic", "premium"]),
        Field::text("language"),
        Field::any("voice_settings");
    SPEAK:
        Field::any("loop"),
        Field::text("stop"),
        Field::one_of("target_legs", &["self", "opposite", "both"]);
    PLAYBACK:
        Field::new("audio_url", Kind::WebUrl),
        Field::one_of("audio_type", &["mp3", "wav"]),
        Field::flag("cache_audio"),
        Field::any("loop"),
        Field::text("media_name"),
        Field::flag("overlay"),
        Field::text("playback_content"),
        Field::text("stop"),
        Field::text("target_legs");
    PLAYBACK_STOP: Field::flag("overlay"), Field::text("stop");
    GATHER:
        Field::whole("inter_digit_timeout_millis", 0..=i64::MAX),
        Field::whole("maximum_digits", 1..=128),
        Field::whole("minimum_digits", 1..=128),
        Field::text("terminating_digit"),
        Field::whole("timeout_millis", 0..=i64::MAX),
        Field::text("valid_digits");
    GATHER_ALONE: Field::text("gather_id"), Field::whole("initial_timeout_millis", 0..=i64::MAX);
    GATHER_SPEAK: Field::text("invalid_payload"), Field::whole("maximum_tries", 1..=i64::MAX);
    GATHER_AUDIO:
        Field::new("audio_url", Kind::WebUrl),
        Field::text("media_name"),
        Field::new("invalid_audio_url", Kind::WebUrl),
        Field::text("invalid_media_name"),
        Field::whole("maximum_tries", 1..=i64::MAX);
    DTMF: Field::text("digits").required(), Field::whole("duration_millis", 100..=500);
    REFER:
        Field::text("sip_address").required(),
        Field::text("sip_auth_username"),
        Field::text("sip_auth_password");
    CLIENT_STATE: Field::text("client_state").required();
}

/// What `POST /calls` takes.
pub(super) const DIAL_FIELDS: &[&[Field]] =
    &[COMMON, HOOKS, HEADERS, STREAM, STREAM_RATE, STREAM_TOKEN, RECORD, PARTY, DIAL];

fn families(sim: &Sim, name: &str) -> Option<Vec<&'static [Field]>> {
    let mut families: Vec<&'static [Field]> = vec![COMMON];
    families.extend_from_slice(match name {
        "answer" => &[HOOKS, HEADERS, STREAM, RECORD, ANSWER],
        "reject" => &[REJECT],
        "hangup" => &[CUSTOM_HEADERS],
        "streaming_start" => &[STREAM, STREAM_RATE, STREAM_TOKEN, STREAM_START],
        "streaming_stop" => &[STREAM_STOP],
        "transfer" => &[HOOKS, HEADERS, RECORD, PARTY, TRANSFER],
        "bridge" => &[RECORD, BRIDGE],
        "speak" => &[SPEECH, SPEAK],
        "playback_start" => &[PLAYBACK],
        "playback_stop" => &[PLAYBACK_STOP],
        "gather" => &[GATHER, GATHER_ALONE],
        "gather_using_speak" => &[GATHER, SPEECH, GATHER_SPEAK],
        "gather_using_audio" => &[GATHER, GATHER_AUDIO],
        "gather_stop" => &[],
        "send_dtmf" => &[DTMF],
        "refer" => &[HEADERS, REFER],
        "client_state_update" => return Some(vec![CLIENT_STATE]),
        _ => return None,
    });
    if name == "answer" && sim.settings.answer_rate != AnswerRate::Refused {
        families.push(STREAM_RATE);
    }
    Some(families)
}

pub(super) fn invalid_id() -> Refusal {
    let detail = "The call_control_id provided was not valid.";
    Refusal::unprocessable("90015", "Invalid Call Control ID", detail).at("call_control_id")
}

fn ended() -> Refusal {
    let detail = "This call is no longer active and can't receive commands.";
    Refusal::unprocessable("90018", "Call has already ended", detail)
}

fn not_answered() -> Refusal {
    let detail = "This call can't receive this command because it has not been answered yet.";
    Refusal::unprocessable("90034", "Call not answered yet", detail)
}

fn impossible(detail: &str) -> Refusal {
    Refusal::unprocessable("10027", "Unprocessable entity", detail)
}

/// A number or a SIP address.
pub(super) fn address(text: &str, field: &str) -> Result<String, Refusal> {
    if is_address(text) { Ok(text.to_owned()) } else { Err(Refusal::not_e164(field)) }
}

pub(super) fn show(request: &RestRequest<'_>, id: &str) -> Answer {
    request.query(&[])?;
    shown(request.sim.find_call(id).ok_or_else(invalid_id)?.json())
}

pub(super) fn run(request: &RestRequest<'_>, id: &str, name: &str) -> Answer {
    let sim = request.sim;
    let families = families(sim, name).ok_or_else(Refusal::not_found)?;
    let body = request.body_of(&families)?;
    let call = sim.find_call(id).ok_or_else(invalid_id)?;
    // A repetition is ignored before anything else is looked at: the first one may have ended the call.
    let command_id = body.text("command_id");
    if command_id.is_none_or(|id| call.note_command(id)) {
        let taken = take(sim, &call, name, &body);
        if let (Err(_), Some(id)) = (&taken, command_id) {
            call.forget_command(id);
        }
        taken?;
    }
    shown(json!({"result": "ok"}))
}

/// Gives the order, where the call is in a state for it.
fn take(sim: &Arc<Sim>, call: &Arc<Call>, name: &str, body: &Body) -> Result<(), Refusal> {
    match call.state() {
        CallState::Over if sim.settings.dead_calls_are_unknown => return Err(invalid_id()),
        CallState::Over => return Err(ended()),
        CallState::Answered if matches!(name, "answer" | "reject") => {
            return Err(impossible("The call was answered already."));
        }
        CallState::Ringing if needs_answer(name) => return Err(not_answered()),
        _ => {}
    }
    let order = order(sim, call, name, body)?;
    call.set_hooks(body);
    if let Some(order) = order {
        call.order(order);
    }
    Ok(())
}

/// Before the answer a call can be answered, declined, or sent elsewhere.
fn needs_answer(name: &str) -> bool {
    !matches!(name, "answer" | "reject" | "hangup" | "transfer" | "client_state_update")
}

/// What a command that is possible makes the call do; nothing where it only changes what is told.
fn order(sim: &Arc<Sim>, call: &Arc<Call>, name: &str, body: &Body) -> Result<Option<Order>, Refusal> {
    Ok(Some(match name {
        "answer" => {
            let honours_rate = sim.settings.answer_rate == AnswerRate::Honoured;
            Order::Answer(stream_wish(body, honours_rate)?.map(Box::new))
        }
        "reject" => Order::Reject(match body.text("cause") {
            Some("USER_BUSY") => HangupCause::UserBusy,
            _ => HangupCause::CallRejected,
        }),
        "hangup" => Order::HangUp,
        "streaming_start" => {
            if call.stream().is_some() {
                return Err(impossible("The media of this call are streamed already."));
            }
            let wish = stream_wish(body, true)?;
            Order::StartStream(Box::new(wish.ok_or_else(|| missing("stream_url"))?))
        }
        "streaming_stop" => Order::StopStream,
        "transfer" => Order::Transfer(Box::new(Transfer {
            to: address(body.text("to").unwrap_or_default(), "to")?,
            from: body.text("from").map(str::to_owned),
            client_state: body.text("target_leg_client_state").map(str::to_owned),
            ring: Duration::from_secs(body.whole("timeout_secs", 30)),
            limit: Duration::from_secs(body.whole("time_limit_secs", 14_400)),
            parks: body.text("park_after_unbridge").is_some(),
            digits: digits(body, "send_digits_on_answer")?,
            detection: Detection::read(body),
        })),
        "bridge" => {
            let id = body.text("call_control_id").unwrap_or_default();
            let peer = sim.find_call(id).ok_or_else(invalid_id)?;
            match peer.state() {
                CallState::Over => return Err(ended()),
                CallState::Ringing => return Err(not_answered()),
                CallState::Answered if Arc::ptr_eq(&peer, call) => return Err(invalid_id()),
                CallState::Answered => {}
            }
            if body.flag("prevent_double_bridge") && peer.peer().is_some() {
                return Err(impossible("The other call is bridged already."));
            }
            let parks = Parks { one: body.text("park_after_unbridge").is_some(), other: false };
            Order::Bridge { peer, parks }
        }
        "speak" => Order::Sound(speech(body)?),
        "playback_start" => Order::Sound(file(body)?),
        "playback_stop" => Order::StopSounds,
        "gather" => Order::Gather { gather: Box::new(gather(body, true)), prompt: None },
        "gather_using_speak" => {
            Order::Gather { gather: Box::new(gather(body, false)), prompt: Some(speech(body)?) }
        }
        "gather_using_audio" => {
            Order::Gather { gather: Box::new(gather(body, false)), prompt: Some(file(body)?) }
        }
        "gather_stop" => Order::StopGather,
        "send_dtmf" => {
            let digits = digits(body, "digits")?.unwrap_or_default();
            let each_ms = u32::try_from(body.whole("duration_millis", 250)).unwrap_or(250);
            Order::SendDigits { digits, each_ms }
        }
        "refer" => {
            let to = body.text("sip_address").unwrap_or_default();
            if !to.starts_with("sip:") && !to.starts_with("sips:") {
                return Err(
                    Refusal::bad_request("The 'sip_address' parameter is no SIP URI.").at("sip_address")
                );
            }
            Order::Refer(to.to_owned())
        }
        _ => return Ok(None),
    }))
}

fn missing(field: &str) -> Refusal {
    let detail = format!("The '{field}' parameter is required and cannot be blank.");
    Refusal::unprocessable("10004", "Missing required parameter", detail).at(field)
}

/// Keys to press, with their pauses.
pub(super) fn digits(body: &Body, field: &str) -> Result<Option<String>, Refusal> {
    let Some(digits) = body.text(field) else { return Ok(None) };
    if digits.chars().all(|digit| "0123456789ABCDwW*#".contains(digit)) {
        return Ok(Some(digits.to_owned()));
    }
    let detail = format!("The '{field}' parameter must be made of 0-9, A-D, w, W, * or #");
    Err(Refusal::unprocessable("90014", "Invalid value for digits", detail).at(field))
}

pub(super) fn stream_wish(body: &Body, honours_rate: bool) -> Result<Option<StreamWish>, Refusal> {
    let wish = StreamWish::read(body, honours_rate);
    let is_socket = |url: &str| {
        url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "ws" | "wss") && url.has_host())
    };
    if wish.as_ref().is_some_and(|wish| !is_socket(&wish.url)) {
        let detail = "The 'stream_url' parameter is not a valid URL.";
        return Err(Refusal::unprocessable("10003", "Invalid URL", detail).at("stream_url"));
    }
    let rate = body.0.get("stream_bidirectional_sampling_rate").and_then(Value::as_u64);
    if rate.is_some_and(|rate| ![8_000, 16_000, 22_050, 24_000, 48_000].contains(&rate)) {
        let detail = "The value must be one of: 8000, 16000, 22050, 24000, 48000.";
        let refusal = Refusal::unprocessable("10032", "Invalid enumerated value", detail);
        return Err(refusal.at("stream_bidirectional_sampling_rate"));
    }
    Ok(wish)
}

fn speech(body: &Body) -> Result<Sound, Refusal> {
    let text = body.text("payload").unwrap_or_default();
    if text.chars().count() > MAX_SPEECH_CHARACTERS {
        let detail = format!("The 'payload' parameter takes {MAX_SPEECH_CHARACTERS} characters.");
        return Err(Refusal::bad_request(detail).at("payload"));
    }
    Ok(Sound::Speech { text: text.to_owned() })
}

fn file(body: &Body) -> Result<Sound, Refusal> {
    let own = |name: &str| body.text(name).map(str::to_owned);
    let (url, name) = (own("audio_url"), own("media_name"));
    if url.is_none() && name.is_none() && body.text("playback_content").is_none() {
        return Err(missing("audio_url"));
    }
    Ok(Sound::File { url, name })
}

/// Only a gather without a prompt has a time of its own for the first digit.
fn gather(body: &Body, alone: bool) -> Gather {
    let ms = |name: &str, default: u64| Duration::from_millis(body.whole(name, default));
    let total = ms("timeout_millis", 60_000);
    let digits = |name: &str, default: u64| usize::try_from(body.whole(name, default)).unwrap_or(usize::MAX);
    Gather {
        most: digits("maximum_digits", 128),
        least: digits("minimum_digits", 1),
        valid: body.text("valid_digits").unwrap_or("0123456789#*").to_owned(),
        finish: body.0.get("terminating_digit").map_or(Some('#'), |finish| finish.as_str()?.chars().next()),
        total,
        first: if alone { ms("initial_timeout_millis", 5_000) } else { total },
        between: ms("inter_digit_timeout_millis", 5_000),
        tries: body.whole("maximum_tries", 3),
    }
}
