//! The simulated Twilio where several people are on the line: whom it rings, how they take part in conferences, and what each
//! of them hears.

use offhook_sim::carrier::twilio::{
    CallOrder, CallStatus, ConferenceStatus, OwnedNumber, SimCall, TwilioSettings, TwilioSim,
};
use offhook_sim::carrier::{CallerStep, Party, Person, Phone, Pickup, What};
use serde_json::{Value, json};

use crate::customer::{Asked, Customer, LIMIT, tone};

const NUMBER: &str = "+15550100002";
const CALLER: &str = "+14155550199";
const HUMAN: &str = "+14155550177";
const OTHER: &str = "+14155550188";
const ACCOUNT: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

async fn open() -> (TwilioSim, Customer) {
    let customer = Customer::open().await;
    let settings = TwilioSettings {
        numbers: vec![OwnedNumber::new(NUMBER, customer.url("/voice"))],
        say_ms_per_character: 1,
        play_ms: 20,
        calls_per_second: 1_000.0,
        ..TwilioSettings::default()
    };
    (TwilioSim::start("127.0.0.1:0".parse().unwrap(), settings).await.unwrap(), customer)
}

async fn rest(sim: &TwilioSim, method: &str, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/{path}", sim.base_url());
    let request = reqwest::Client::new().request(method.parse().unwrap(), url);
    let request = request.basic_auth(ACCOUNT, Some(TOKEN));
    let request = if method == "POST" { request.form(form) } else { request };
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// Rings a number, and does what the document says once it is picked up.
async fn dial(sim: &TwilioSim, customer: &Customer, to: &str, twiml: &str) -> SimCall {
    let told = customer.url("/leg");
    let form = [
        ("To", to),
        ("From", NUMBER),
        ("Twiml", twiml),
        ("StatusCallback", &told),
        ("StatusCallbackEvent", "initiated"),
        ("StatusCallbackEvent", "ringing"),
        ("StatusCallbackEvent", "answered"),
        ("StatusCallbackEvent", "completed"),
    ];
    let (status, call) = rest(sim, "POST", "Calls.json", &form).await;
    assert_eq!(status, 201, "{call}");
    sim.find_call(call["sid"].as_str().unwrap()).unwrap()
}

fn room(customer: &Customer, attributes: &str) -> String {
    let action = customer.url("/left");
    format!(
        "<Response><Dial action=\"{action}\"><Conference {attributes}>desk</Conference></Dial></Response>"
    )
}

async fn event(call: &SimCall, fits: impl Fn(&What) -> bool) -> u64 {
    let found = call.phone().until_event(LIMIT, fits).await;
    found.unwrap_or_else(|error| panic!("{error}: {:?}", call.phone().history())).at_ms
}

async fn loud_for(phone: &Phone, ms: u64) {
    let loud = |phone: &Phone| phone.recording().heard.iter().filter(|sample| sample.abs() > 5_000).count();
    // Six of the eight samples of each of the tone's periods are so loud.
    let heard = phone.until(LIMIT, |phone| loud(phone) as u64 >= ms * 6).await;
    assert_eq!(heard, Ok(()), "{} loud samples, {:?}", loud(phone), phone.history());
}

fn names(asked: &[Asked]) -> Vec<String> {
    asked.iter().map(|asked| asked.param("StatusCallbackEvent").to_owned()).collect()
}

#[tokio::test]
async fn a_person_does_what_their_script_says_once_they_have_picked_up() {
    let (sim, customer) = open().await;
    let hears_out = Person::answers(
        5,
        [
            CallerStep::WaitForAgentQuiet { ms: 100 },
            CallerStep::Dtmf("1".into()),
            CallerStep::Say(tone(200).into()),
            CallerStep::HangUp,
        ],
    );
    sim.person(HUMAN, hears_out);
    let human = dial(&sim, &customer, HUMAN, &customer.stream("greet", "", "")).await;
    assert_eq!(human.until_over(LIMIT).await, Ok(CallStatus::Completed));
    let history = human.phone().history();
    let at = |what: &What| history.iter().find(|event| event.what == *what).map(|event| event.at_ms);
    let pressed = at(&What::DigitPressed { digit: '1' });
    assert!(pressed > at(&What::AgentStopped), "{history:?}");
    assert!(at(&What::CallerStarted) > Some(0), "{history:?}");
    assert_eq!(history.last().unwrap().what, What::HungUp { by: Party::Caller });
    customer.until_message("dtmf", 1).await;
    let told = customer.until_asked("/leg", 4).await;
    let statuses: Vec<&str> = told.iter().map(|asked| asked.param("CallStatus")).collect();
    assert_eq!(statuses, ["initiated", "ringing", "in-progress", "completed"]);
}

#[tokio::test]
async fn people_who_cannot_be_reached_end_the_call_in_the_carriers_words() {
    let (sim, customer) = open().await;
    let cases = [
        (Pickup::Busy { after_ms: 1 }, "busy"),
        (Pickup::Rejects { after_ms: 1 }, "busy"),
        (Pickup::NotFound, "failed"),
        (Pickup::NoAnswer, "no-answer"),
    ];
    sim.people(HUMAN, cases.iter().map(|(pickup, _)| Person::unreached(*pickup)).collect());
    for (pickup, word) in cases {
        let form = [("To", HUMAN), ("From", NUMBER), ("Twiml", "<Response/>"), ("Timeout", "1")];
        let (_, call) = rest(&sim, "POST", "Calls.json", &form).await;
        let call = sim.find_call(call["sid"].as_str().unwrap()).unwrap();
        let ended = call.until_over(LIMIT).await.unwrap();
        assert_eq!(ended.as_str(), word, "{pickup:?}");
    }
    assert!(customer.asked("/leg").is_empty());
}

#[tokio::test]
async fn a_call_that_is_taken_back_stops_ringing_and_is_told_as_canceled() {
    let (sim, customer) = open().await;
    sim.person(HUMAN, Person::unreached(Pickup::NoAnswer));
    let human = dial(&sim, &customer, HUMAN, "<Response/>").await;
    human.until_status(LIMIT, |status| status == CallStatus::Ringing).await.unwrap();
    let path = format!("Calls/{}.json", human.sid());
    assert_eq!(rest(&sim, "POST", &path, &[("Status", "canceled")]).await.0, 200);
    assert_eq!(human.until_over(LIMIT).await, Ok(CallStatus::Canceled));
    let told = customer.until_asked("/leg", 3).await;
    assert_eq!(told.last().unwrap().param("CallStatus"), "canceled");
}

#[tokio::test]
async fn a_mailbox_greets_beeps_and_listens() {
    let (sim, customer) = open().await;
    sim.person(HUMAN, Person::mailbox(5, tone(500)));
    let mailbox = dial(&sim, &customer, HUMAN, "<Response><Pause length=\"3\"/></Response>").await;
    event(&mailbox, |what| *what == What::CallerStopped).await;
    let said = mailbox.phone().recording().said;
    let sounding = said.iter().filter(|sample| sample.abs() > 2_000).count();
    assert!(sounding > 500 * 6, "{sounding} samples of greeting and beep");
    assert_eq!(mailbox.until_over(LIMIT).await, Ok(CallStatus::Completed));
}

#[tokio::test]
async fn who_calls_may_be_shown_to_whom_the_call_is_forwarded_with_the_calls_token_alone() {
    let (sim, customer) = open().await;
    customer.answer("/voice", "<Response><Pause length=\"30\"/></Response>");
    sim.call(CallOrder::new(NUMBER, CALLER)).unwrap();
    let token = customer.until_asked("/voice", 1).await[0].param("CallToken").to_owned();
    let form = |from, extra: &[(&'static str, &str)]| {
        let base = [("To", HUMAN), ("From", from), ("Twiml", "<Response/>")];
        let all = base.into_iter().chain(extra.iter().copied());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let cases = [
        (form(CALLER, &[("CallToken", &token)]), 201),
        (form(CALLER, &[]), 400),
        (form(OTHER, &[("CallToken", &token)]), 400),
        (form(CALLER, &[("CallToken", "another")]), 400),
        (form(NUMBER, &[("CallerId", OTHER)]), 400),
        (form(NUMBER, &[("CallerId", NUMBER)]), 201),
    ];
    for (form, status) in cases {
        let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (got, body) = rest(&sim, "POST", "Calls.json", &form).await;
        assert_eq!(got, status, "{form:?}: {body}");
    }
    assert_eq!(sim.until_called(LIMIT, HUMAN, 0).await.unwrap().from(), CALLER);
}

#[tokio::test]
async fn an_outgoing_call_streams_its_media_and_is_redirected_while_it_lives() {
    let (sim, customer) = open().await;
    sim.person(HUMAN, Person::answers(5, [CallerStep::Say(tone(200).into())]));
    customer.answer("/answered", customer.stream("echo", "", ""));
    let form = [("To", HUMAN), ("From", NUMBER), ("Url", &customer.url("/answered"))];
    let (_, call) = rest(&sim, "POST", "Calls.json", &form).await;
    let human = sim.find_call(call["sid"].as_str().unwrap()).unwrap();
    loud_for(&human.phone(), 100).await;
    let asked = &customer.asked("/answered")[0];
    assert_eq!((asked.param("Direction"), asked.param("CallStatus")), ("outbound-api", "in-progress"));
    let path = format!("Calls/{}.json", human.sid());
    let twiml = "<Response><Say>moved</Say></Response>";
    assert_eq!(rest(&sim, "POST", &path, &[("Twiml", twiml)]).await.0, 200);
    customer.until_message("stop", 1).await;
    assert_eq!(human.until_over(LIMIT).await, Ok(CallStatus::Completed));
}

#[tokio::test]
async fn two_in_a_conference_hear_each_other_and_the_room_is_told() {
    let (sim, customer) = open().await;
    sim.person(HUMAN, Person::answers(5, []));
    let attributes = format!(
        "waitUrl=\"\" beep=\"false\" statusCallback=\"{}\" statusCallbackEvent=\"start end join leave\" participantLabel=\"caller\"",
        customer.url("/room")
    );
    customer.answer("/voice", room(&customer, &attributes));
    customer.answer("/left", "<Response><Say>Goodbye</Say></Response>");
    let caller = sim.call(CallOrder::new(NUMBER, CALLER)).unwrap();
    customer.until_asked("/room", 1).await;
    let human =
        dial(&sim, &customer, HUMAN, &room(&customer, "endConferenceOnExit=\"true\" beep=\"false\"")).await;
    customer.until_asked("/room", 3).await;
    assert_eq!(
        sim.conferences("desk"),
        [(ConferenceStatus::InProgress, vec![caller.sid().into(), human.sid().into()])]
    );

    caller.phone().say(&tone(300));
    loud_for(&human.phone(), 290).await;
    human.phone().say(&tone(200));
    loud_for(&caller.phone(), 190).await;
    let heard = human.phone().recording().heard;
    let first = heard.iter().position(|sample| sample.abs() > 5_000).unwrap();
    let speech = &heard[first..first + 290 * 8];
    assert!(speech.chunks(80).all(|chunk| chunk.iter().any(|sample| sample.abs() > 5_000)), "a hole");

    human.phone().hang_up();
    assert_eq!(caller.until_over(LIMIT).await, Ok(CallStatus::Completed));
    event(&caller, |what| *what == What::CarrierSaid { text: "Goodbye".into() }).await;
    assert_eq!(customer.asked("/left")[0].param("DialCallStatus"), "answered");
    let told = customer.until_asked("/room", 6).await;
    let start = ["participant-join", "participant-join", "conference-start"];
    let end = ["participant-leave", "participant-leave", "conference-end"];
    assert_eq!(names(&told), [start, end].concat());
    let sequence: Vec<&str> = told.iter().map(|asked| asked.param("SequenceNumber")).collect();
    assert_eq!(sequence, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(
        (told[0].param("CallSid"), told[0].param("ParticipantLabel"), told[0].param("FriendlyName")),
        (caller.sid(), "caller", "desk")
    );
    assert_eq!(
        (told[3].param("CallSid"), told[3].param("ReasonParticipantLeft")),
        (human.sid(), "participant_hung_up")
    );
    assert_eq!(told[5].param("ReasonConferenceEnded"), "participant-with-end-conference-on-exit-left");
    assert_eq!(told[5].param("CallSidEndingConference"), human.sid());
}

#[tokio::test]
async fn a_third_voice_is_mixed_into_what_two_others_hear() {
    let (sim, customer) = open().await;
    let quiet = "waitUrl=\"\" beep=\"false\"";
    sim.person(HUMAN, Person::answers(5, []));
    sim.person(OTHER, Person::answers(5, []));
    customer.answer("/voice", room(&customer, quiet));
    let caller = sim.call(CallOrder::new(NUMBER, CALLER)).unwrap();
    let human = dial(&sim, &customer, HUMAN, &room(&customer, quiet)).await;
    let other = dial(&sim, &customer, OTHER, &room(&customer, quiet)).await;
    let all = |sim: &TwilioSim| sim.conferences("desk").first().is_some_and(|(_, calls)| calls.len() == 3);
    caller.phone().until(LIMIT, |_| all(&sim)).await.unwrap();
    human.phone().say(&tone(1_000));
    other.phone().say(&tone(1_000));
    caller.phone().until(LIMIT, |phone| phone.agent_sounding_ms() >= Some(900)).await.unwrap();
    let heard = caller.phone().recording().heard;
    let sounding = heard.iter().filter(|sample| sample.abs() > 300).count() as u64;
    assert!(sounding < 1_200 * 8, "two voices one after the other: {sounding} samples");
    for phone in [human.phone(), other.phone()] {
        loud_for(&phone, 900).await;
    }
}

#[tokio::test]
async fn who_waits_hears_music_or_what_the_document_says_until_somebody_starts_the_room() {
    let (sim, customer) = open().await;
    customer.answer("/voice", room(&customer, "startConferenceOnEnter=\"false\""));
    let caller = sim.call(CallOrder::new(NUMBER, CALLER)).unwrap();
    event(&caller, |what| matches!(what, What::CarrierPlayed { .. })).await;
    event(&caller, |what| *what == What::AgentStarted).await;

    sim.person(HUMAN, Person::answers(5, []));
    customer.answer("/wait", "<Response><Say>One moment</Say><Hangup/></Response>");
    let waiting = format!("startConferenceOnEnter=\"false\" waitUrl=\"{}\"", customer.url("/wait"));
    let human = dial(&sim, &customer, HUMAN, &room(&customer, &waiting)).await;
    event(&human, |what| *what == What::CarrierSaid { text: "One moment".into() }).await;
    assert_eq!(sim.conferences("desk")[0].0, ConferenceStatus::Init);
    human.phone().until(LIMIT, |_| !sim.alerts().is_empty()).await.unwrap();
    assert_eq!(sim.alerts().iter().map(|alert| alert.code).collect::<Vec<_>>(), [12200]);

    sim.person(OTHER, Person::answers(5, []));
    dial(&sim, &customer, OTHER, &room(&customer, "")).await;
    let started = |sim: &TwilioSim| sim.conferences("desk")[0].0 == ConferenceStatus::InProgress;
    caller.phone().until(LIMIT, |_| started(&sim)).await.unwrap();
    caller.phone().until(LIMIT, |phone| phone.agent_quiet_ms() > Some(500)).await.unwrap();
}

#[tokio::test]
async fn a_participant_who_is_redirected_leaves_and_one_who_is_left_alone_stays() {
    let (sim, customer) = open().await;
    sim.person(HUMAN, Person::answers(5, []));
    customer.answer("/voice", room(&customer, "waitUrl=\"\""));
    let caller = sim.call(CallOrder::new(NUMBER, CALLER)).unwrap();
    let human = dial(&sim, &customer, HUMAN, &room(&customer, "waitUrl=\"\"")).await;
    let count = |sim: &TwilioSim| sim.conferences("desk").first().map_or(0, |(_, calls)| calls.len());
    caller.phone().until(LIMIT, |_| count(&sim) == 2).await.unwrap();
    let path = format!("Calls/{}.json", human.sid());
    rest(&sim, "POST", &path, &[("Twiml", "<Response><Pause length=\"30\"/></Response>")]).await;
    caller.phone().until(LIMIT, |_| count(&sim) == 1).await.unwrap();
    assert_eq!((caller.status(), human.status()), (CallStatus::InProgress, CallStatus::InProgress));
    let (_, list) = rest(&sim, "GET", "Conferences.json?FriendlyName=desk&Status=in-progress", &[]).await;
    let sid = list["conferences"][0]["sid"].as_str().unwrap().to_owned();
    let (_, inside) = rest(&sim, "GET", &format!("Conferences/{sid}/Participants.json"), &[]).await;
    assert_eq!(inside["participants"][0]["call_sid"], caller.sid());
    let (status, ended) =
        rest(&sim, "POST", &format!("Conferences/{sid}.json"), &[("Status", "completed")]).await;
    assert_eq!((status, &ended["reason_conference_ended"]), (200, &json!("conference-ended-via-api")));
    assert_eq!(customer.until_asked("/left", 1).await[0].param("CallSid"), caller.sid());
}

#[tokio::test]
async fn a_participant_is_muted_and_put_out_by_the_api() {
    let (sim, customer) = open().await;
    sim.person(HUMAN, Person::answers(5, []));
    customer.answer("/voice", room(&customer, "waitUrl=\"\" beep=\"false\""));
    let caller = sim.call(CallOrder::new(NUMBER, CALLER)).unwrap();
    let human = dial(
        &sim,
        &customer,
        HUMAN,
        &room(&customer, "waitUrl=\"\" beep=\"false\" participantLabel=\"human\""),
    )
    .await;
    let count = |sim: &TwilioSim| sim.conferences("desk").first().map_or(0, |(_, calls)| calls.len());
    caller.phone().until(LIMIT, |_| count(&sim) == 2).await.unwrap();
    let (_, list) = rest(&sim, "GET", "Conferences.json", &[]).await;
    let one =
        format!("Conferences/{}/Participants/human.json", list["conferences"][0]["sid"].as_str().unwrap());
    assert_eq!(rest(&sim, "POST", &one, &[("Muted", "true")]).await.1["muted"], true);
    human.phone().say(&tone(200));
    human.phone().until(LIMIT, |phone| !phone.is_speaking()).await.unwrap();
    caller.phone().say(&tone(200));
    loud_for(&human.phone(), 190).await;
    assert_eq!(caller.phone().agent_last_sound_ms(), None);
    assert_eq!(rest(&sim, "DELETE", &one, &[]).await.0, 204);
    customer.until_asked("/left", 1).await;
    assert_eq!(rest(&sim, "GET", &one, &[]).await.0, 404);
}
