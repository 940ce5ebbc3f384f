//! From sound to sound: sentences spoken by the offline voice, heard through a telephone's band.

use super::brain::{self, Expects};
use super::script::Script;
use super::{Listener, RECEPTIONIST, demo_instructions, grammar, say};
use crate::{Stt, SttCommand, SttEvent, SttOptions, SttSession};
use bytes::Bytes;
use offhook_core::{ChatMessage, Language, ToolSpec};
use offhook_media::resample::Resampler;
use offhook_media::{FRAME_SAMPLES, LINE_RATE_HZ};
use offhook_sphinx::{Model, Recogniser, SAMPLE_RATE_HZ, TRUSTED};
use std::path::PathBuf;

/// What callers ask, as the recogniser should write it.
const QUESTIONS: &[&str] = &[
    "what are your opening hours",
    "are you open on sunday",
    "hi are you open on saturday",
    "when do you close",
    "what time do you close today",
    "what time do you open tomorrow",
    "what time do you close on friday",
    "can you tell me when are you open",
    "are you open now",
    "are you open today",
    "how late are you open on thursday",
    "are you open at seven p m on thursday",
    "what about wednesday",
    "where are you located",
    "what is your address",
    "how do i get there",
    "is there parking",
    "where can i park",
    "could you tell me how much is a haircut",
    "what are your prices",
    "how can i pay",
    "do you take credit cards",
    "do you take cash please",
    "can i make an appointment",
    "i need an appointment",
    "i want to cancel my appointment",
    "do you take walk ins",
    "can i bring my daughter",
    "do you cut hair for children",
    "hello i want to leave a message",
    "can i leave a message please",
    "please call me back",
    "are you a robot",
    "are you a real person",
    "can i speak to someone",
    "i want to talk to the manager",
    "can you say that again",
    "repeat that",
    "what can you do",
    "thank you",
    "goodbye",
    "thanks bye",
    "that is all",
];

const ANSWERS: &[&str] =
    &["yes", "yes please", "no", "no thanks", "that is right", "no that is wrong", "sure"];

const NAMES: &[&str] = &["my name is anna miller", "this is david", "it is maria garcia", "robert wilson"];

const NUMBERS: &[&str] = &[
    "four one five five five five zero one two three",
    "my number is six five zero two five three zero",
    "use this number",
    "it is eight eight seven one four nine two",
];

const NOTES: &[&str] = &[
    "please call me back tomorrow",
    "i will be late",
    "i need to change my appointment",
    "i have a question about the price",
];

/// What nobody asks a hair salon.
const OTHER_SPEECH: &[&str] = &[
    "my dog ate the blue shoes",
    "the stock market fell sharply",
    "i saw a great movie with my brother",
    "please order two large pizzas",
    "how tall is mount everest",
    "we went fishing in the river last summer",
    "she plays the violin very well",
    "the train leaves from platform nine",
    "do elephants ever forget anything",
    "turn off the kitchen lights",
    "my computer crashed again",
    "there was an accident on the highway",
    "which team won the football game",
    "translate this sentence into french",
    "i cannot find my passport anywhere",
    "the president gave a long speech",
    "set an alarm for half past six",
    "his grandmother lives in chicago",
    "buy some milk and eggs",
    "what is the capital of australia",
];

#[test]
fn what_the_receptionist_understands_is_heard_through_a_telephone() {
    let sets = [
        (Expects::Question, QUESTIONS),
        (Expects::YesOrNo, ANSWERS),
        (Expects::Name, NAMES),
        (Expects::Number, NUMBERS),
        (Expects::Message, NOTES),
    ];
    let (mut heard, mut said, mut wrong) = (0, 0, String::new());
    for (expects, sentences) in sets {
        let mut recogniser = recogniser(expects);
        for sentence in sentences {
            said += 1;
            let words = recognise(&mut recogniser, sentence);
            if words.as_deref() == Some(*sentence) {
                heard += 1;
            } else {
                wrong.push_str(&format!("\n{sentence}: {words:?}"));
            }
        }
    }
    println!("{heard} of {said} exact{wrong}");
    assert!(heard * 100 >= said * 85, "{heard} of {said}{wrong}");
}

#[test]
fn what_nobody_asks_here_is_not_turned_into_a_question() {
    let mut recogniser = recogniser(Expects::Question);
    let heard: Vec<_> =
        OTHER_SPEECH.iter().filter_map(|text| Some((*text, recognise(&mut recogniser, text)?))).collect();
    println!("{} of {} taken for something: {heard:?}", heard.len(), OTHER_SPEECH.len());
    assert!(heard.len() <= 3, "{heard:?}");
}

#[tokio::test]
async fn a_conversation_goes_from_sound_to_sound() {
    let mut call = Call::open().await;
    call.caller("hi are you open on saturday", "On Saturday we are open from 10 am to 4 pm.").await;
    call.caller("where are you located", "12 Willow Street").await;
    call.caller("the stock market fell sharply", "Sorry, I did not catch that.").await;
    call.caller("can i leave a message please", "What is your name?").await;
    call.caller("my name is anna miller", "Thank you, Anna Miller.").await;
    call.caller("use this number", "What shall I tell them?").await;
    call.caller(
        "please call me back tomorrow",
        "the message is: please call me back tomorrow. Is that right?",
    )
    .await;
    call.caller("that is right", "").await;
    call.caller("goodbye", "Goodbye.").await;
    let used: Vec<_> = call.messages.iter().filter_map(tool_used).collect();
    assert_eq!(used, ["take_message", "end_call"]);
}

#[tokio::test]
async fn words_come_early_and_an_utterance_ends_once() {
    let mut session = open();
    session
        .commands
        .send(SttCommand::Context(vec![ChatMessage::System { text: demo_instructions() }].into()))
        .await
        .unwrap();
    feed(&session, &line("what time do you close on friday")).await;
    session.commands.send(SttCommand::Finalize).await.unwrap();
    drop(session.commands);
    let (mut interims, mut finals) = (vec![], vec![]);
    while let Some(event) = session.events.recv().await {
        match event {
            SttEvent::Opened => {}
            SttEvent::Interim { text, start_ms, end_ms } => {
                assert!(start_ms < end_ms);
                interims.push(text);
            }
            SttEvent::Final { text, utterance_end, .. } => finals.push((text, utterance_end)),
            other => panic!("{other:?}"),
        }
    }
    assert!(interims.iter().any(|text| text.starts_with("what time")), "{interims:?}");
    assert_eq!(finals, [("what time do you close on friday".to_owned(), true), (String::new(), false)]);
}

#[tokio::test]
async fn what_is_said_behind_an_early_final_is_heard_too() {
    let mut session = open();
    let pcm = line("are you open on sunday");
    let (first, rest) = pcm.split_at(pcm.len() / 2);
    feed(&session, first).await;
    session.commands.send(SttCommand::Finalize).await.unwrap();
    feed(&session, rest).await;
    drop(session.commands);
    let mut finals = vec![];
    while let Some(event) = session.events.recv().await {
        if let SttEvent::Final { text, start_ms, end_ms, utterance_end } = event {
            assert!(start_ms < end_ms && !text.is_empty());
            finals.push((end_ms, start_ms, utterance_end));
        }
    }
    let [(first_end_ms, _, false), (_, rest_start_ms, true)] = finals[..] else { panic!("{finals:?}") };
    assert_eq!(first_end_ms, rest_start_ms);
}

#[test]
fn a_model_that_cannot_be_unpacked_fails_with_words() {
    // A kept recogniser needs no model, so the folder is tried directly.
    let error = Model::unpack(&PathBuf::from("/dev/null/offhook")).unwrap_err().to_string();
    assert_eq!(error, "cannot unpack the speech model into /dev/null/offhook/pocketsphinx-5.1.1-en-us");
}

/// A caller and the receptionist, with sound in between.
struct Call {
    session: SttSession,
    messages: Vec<ChatMessage>,
}

impl Call {
    async fn open() -> Self {
        let messages = vec![ChatMessage::System { text: demo_instructions() }];
        let call = Call { session: open(), messages };
        call.tell_context().await;
        call
    }

    async fn tell_context(&self) {
        self.session.commands.send(SttCommand::Context(self.messages.clone().into())).await.unwrap();
    }

    async fn caller(&mut self, says: &str, answer: &str) {
        feed(&self.session, &line(says)).await;
        let text = loop {
            match self.session.events.recv().await.unwrap() {
                SttEvent::Final { text, .. } => break text,
                SttEvent::Failed(error) => panic!("{error}"),
                _ => {}
            }
        };
        self.messages.push(ChatMessage::User { text: text.clone() });
        let tools: Vec<_> = ["take_message", "end_call"]
            .map(|name| ToolSpec { name: name.into(), description: String::new(), parameters: "{}".into() })
            .into();
        let reply = brain::reply(&self.messages, &tools);
        assert!(reply.text.contains(answer), "{says}, heard as {text}: {}", reply.text);
        let answers =
            reply.tools.iter().map(|tool| ChatMessage::Tool { id: tool.id.clone(), text: "ok".into() });
        let answers: Vec<_> = answers.collect();
        self.messages.push(ChatMessage::Agent { text: reply.text, tools: reply.tools });
        self.messages.extend(answers);
        self.tell_context().await;
    }
}

fn tool_used(message: &ChatMessage) -> Option<&str> {
    match message {
        ChatMessage::Agent { tools, .. } => tools.first().map(|tool| tool.name.as_str()),
        _ => None,
    }
}

fn open() -> SttSession {
    Listener { cache: cache() }.open(SttOptions {
        language: Language::english(),
        keywords: vec![],
        endpointing_ms: 300,
    })
}

/// One folder for all runs: the model is large.
fn cache() -> PathBuf {
    std::env::temp_dir().join("offhook-test-model")
}

async fn feed(session: &SttSession, pcm: &[i16]) {
    for frame in pcm.chunks(FRAME_SAMPLES) {
        let bytes: Vec<u8> = frame.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        session.commands.send(SttCommand::Audio(Bytes::from(bytes))).await.unwrap();
    }
}

fn recogniser(expects: Expects) -> Recogniser {
    let script = Script::parse(RECEPTIONIST).unwrap();
    Recogniser::new(&Model::unpack(&cache()).unwrap(), &grammar(&script, expects)).unwrap()
}

fn recognise(recogniser: &mut Recogniser, sentence: &str) -> Option<String> {
    recogniser.forget_voice();
    recogniser.start();
    let sound = resampled(&line(sentence), LINE_RATE_HZ, SAMPLE_RATE_HZ);
    for frame in sound.chunks(FRAME_SAMPLES) {
        recogniser.feed(frame);
    }
    recogniser.finish().filter(|heard| heard.confidence >= TRUSTED).map(|heard| heard.text)
}

/// A sentence on a telephone line, with silence before and after.
fn line(sentence: &str) -> Vec<i16> {
    let said = say(sentence);
    let (before, after) = (vec![0; 2_400], vec![0; 5_600]);
    [&before[..], &resampled(&said.pcm, said.rate_hz, LINE_RATE_HZ), &after].concat()
}

fn resampled(pcm: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    let mut out = vec![];
    let mut resampler = Resampler::new(from_hz, to_hz).unwrap();
    resampler.push(pcm, &mut out);
    resampler.flush(&mut out);
    out
}
