//! The audio of one call: caller to recogniser, voices to caller, every 20 ms. It tells the machine facts about audio
//! and carries out its orders; it decides nothing, and no slow decision delays it.

use super::ear::{Ear, next_from_recogniser};
use super::line::{Line, LineEvent, Lost};
use super::playout::{Mark, Outgoing, Playout};
use super::voice::{Voice, next_from_voices};
use crate::speech::{Recording, Speech, Spoken};
use bytes::Bytes;
use offhook_core::ChatMessage;
use offhook_core::call::{Anchor, Command, Input, ReplyId, SttId};
use offhook_media::coding::Coding;
use offhook_providers::{SttCommand, SttEvent, SttOptions, TtsCommand, TtsEvent, TtsOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Facts that may wait for the driver. It takes them in microseconds; when so many wait it is dead.
pub const FACTS_QUEUE: usize = 2_048;
/// Orders that may wait for the pump.
pub const ORDERS_QUEUE: usize = 512;
/// How often the progress of a voice is told, in ms of its audio.
const PROGRESS_MS: u32 = 200;
/// A mark that differs by more from where the caller was thought to be is believed.
const RESYNC_MS: usize = 200;
/// The carrier sends a frame every 20 ms, also of silence: a media socket on which some came and then none for so long is lost,
/// whatever TCP says. One on which none ever came may belong to a line that has no sound; the machine asks who is there.
const LINE_SILENT: Duration = Duration::from_secs(3);
/// The reply after which the machine has none.
const LAST_REPLY: ReplyId = ReplyId(u32::MAX);

/// What the pump is told.
#[derive(Debug)]
pub enum Order {
    /// Carry out a command of the machine that concerns audio.
    Do(Command),
    /// The media socket is up, for the first time or again.
    Attach(Box<Line>),
    /// What has been said, for recognisers that listen with a grammar.
    Context(Arc<[ChatMessage]>),
    /// Drop everything that is or will be said, and play the apology that needs no provider.
    Apologise,
    /// Take leave of the carrier.
    HangUp,
}

/// The pump of one call.
pub struct Pump {
    /// How audio is coded throughout the call.
    coding: Coding,
    speech: Arc<Speech>,
    facts: mpsc::Sender<Input>,
    line: Option<Box<Line>>,
    /// When sound last came from this line; `None`: not yet.
    line_heard_at: Option<Instant>,
    ear: Ear,
    voices: Vec<Voice>,
    playout: Playout,
    /// Fixed sentences being spoken for the first time, to be kept.
    learning: Vec<Learning>,
    told: Vec<Told>,
    /// What the caller hears now, as far as marks tell: which reply, and where in its audio, in bytes.
    sounding: Option<(ReplyId, usize)>,
    /// What has been said, for recognisers that listen with a grammar.
    context: Option<Arc<[ChatMessage]>>,
}

/// What the machine was told of a reply's synthesis.
struct Told {
    reply: ReplyId,
    /// Who speaks it; `None`: its audio was at hand.
    voice: Option<u8>,
    /// Progress up to here, in ms.
    ms: u32,
    /// Its voice died.
    orphan: bool,
}

struct Learning {
    reply: ReplyId,
    voice: u8,
    text: String,
    /// As the voice speaks it.
    coding: Coding,
    audio: Vec<u8>,
    anchors: Vec<Anchor>,
}

enum Event {
    Order(Option<Order>),
    Line(LineEvent),
    LineSilent,
    Voice(usize, Option<TtsEvent>),
    Stt(Option<SttEvent>),
}

impl Pump {
    /// A pump without a line yet, for one of this coding.
    pub fn new(coding: Coding, speech: Arc<Speech>, facts: mpsc::Sender<Input>) -> Self {
        Pump {
            coding,
            speech,
            facts,
            line: None,
            line_heard_at: None,
            ear: Ear::new(coding),
            voices: Vec::new(),
            playout: Playout::new(coding),
            learning: Vec::new(),
            told: Vec::new(),
            sounding: None,
            context: None,
        }
    }

    /// Runs until the driver lets go of it.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let silent = tokio::time::sleep(LINE_SILENT);
        tokio::pin!(silent);
        loop {
            let event = {
                let Pump { line, voices, ear, .. } = &mut self;
                tokio::select! {
                    biased;
                    order = orders.recv() => Event::Order(order),
                    event = next_from_line(line) => Event::Line(event),
                    () = &mut silent, if line.is_some() => Event::LineSilent,
                    (index, event) = next_from_voices(voices) => Event::Voice(index, event),
                    event = next_from_recogniser(&mut ear.recogniser) => Event::Stt(event),
                }
            };
            match event {
                Event::Order(None) => break,
                Event::Order(Some(Order::HangUp)) => {
                    if let Some(mut line) = self.line.take() {
                        line.close().await;
                    }
                }
                Event::Order(Some(order)) => {
                    if self.obey(order).await.is_err() {
                        self.lost();
                    }
                    // Orders come in bunches; what they lead to is sent once.
                    while let Ok(order) = orders.try_recv() {
                        if matches!(order, Order::HangUp) {
                            if let Some(mut line) = self.line.take() {
                                line.close().await;
                            }
                        } else if self.obey(order).await.is_err() {
                            self.lost();
                        }
                    }
                }
                Event::Line(event) => {
                    if matches!(event, LineEvent::Audio) {
                        self.line_heard_at = Some(Instant::now());
                    }
                    self.hear(event);
                }
                Event::LineSilent => {
                    if self.line_heard_at.is_some_and(|at| at.elapsed() >= LINE_SILENT) {
                        self.lost();
                    }
                    let from = self.line_heard_at.unwrap_or_else(Instant::now);
                    silent.as_mut().reset(from + LINE_SILENT);
                }
                Event::Voice(index, event) => self.voiced(index, event),
                Event::Stt(event) => self.understood(event),
            }
            if self.send().await.is_err() {
                self.lost();
            }
        }
        if let Some(mut line) = self.line.take() {
            line.close().await;
        }
    }

    fn tell(&self, fact: Input) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.facts.try_send(fact) {
            tracing::error!("The driver of a call does not take facts any more");
        }
    }

    fn lost(&mut self) {
        self.line_heard_at = None;
        if self.line.take().is_some() {
            tracing::warn!("Media socket lost");
            self.tell(Input::MediaLost);
        }
    }

    // ---- towards the caller ------------------------------------------------------------------------------------

    /// Sends whatever may be played and has not been sent.
    async fn send(&mut self) -> Result<(), Lost> {
        let Some(line) = &mut self.line else { return Ok(()) };
        while let Some(next) = self.playout.next() {
            match next {
                Outgoing::Audio(audio) => line.play(audio).await?,
                Outgoing::Mark(mark) => line.mark(&mark.name()).await?,
            }
        }
        line.flush().await
    }

    async fn obey(&mut self, order: Order) -> Result<(), Lost> {
        let command = match order {
            Order::Do(command) => command,
            Order::Attach(line) => {
                // The carrier has opened another: the one before is dead, even if it does not look so yet.
                self.lost();
                self.line = Some(line);
                self.line_heard_at = None;
                self.playout.reconnected();
                self.tell(Input::Connected);
                return Ok(());
            }
            Order::Context(messages) => {
                if let Some(recogniser) = &self.ear.recogniser {
                    let _ = recogniser.session.commands.try_send(SttCommand::Context(messages.clone()));
                }
                self.context = Some(messages);
                return Ok(());
            }
            Order::Apologise => {
                self.voices.clear();
                self.learning.clear();
                self.told.clear();
                self.sounding = None;
                if self.playout.cancel_all() {
                    self.clear().await?;
                }
                Command::PlayCanned { reply: LAST_REPLY }
            }
            Order::HangUp => return Ok(()),
        };
        match command {
            Command::OpenStt { stt, provider } => self.open_stt(stt, provider),
            Command::Finalize { stt } => {
                if let Some(recogniser) = &self.ear.recogniser
                    && recogniser.id == stt
                {
                    let _ = recogniser.session.commands.try_send(SttCommand::Finalize);
                }
            }
            Command::OpenTts { voice } => {
                self.retire_voices();
                self.open_voice(voice);
            }
            Command::Speak { reply, voice, text, fixed } => self.speak(reply, voice, text, fixed),
            Command::FinishReply { reply } => self.finish(reply),
            Command::Play { reply } => self.playout.play(reply),
            Command::PausePlayout => {
                self.sounding = None;
                if self.playout.pause() {
                    self.clear().await?;
                }
            }
            Command::ResumePlayout { reply, from_ms } => self.playout.resume(reply, from_ms),
            Command::CancelReply { reply } => {
                self.tell_voice(reply, TtsCommand::Cancel { context: reply.0 });
                self.learning.retain(|l| l.reply != reply);
                self.told.retain(|t| t.reply != reply);
                self.sounding.take_if(|(of, _)| *of == reply);
                if self.playout.cancel(reply) {
                    self.clear().await?;
                }
            }
            Command::PlayCanned { reply } => {
                self.playout.begin(reply);
                self.told.push(Told { reply, voice: None, ms: 0, orphan: false });
                let audio = self.speech.canned_apology.coded(self.coding);
                self.add_audio(reply, &audio);
                self.complete(reply);
                self.playout.play(reply);
            }
            Command::SendDtmf { digits } => {
                if let Some(line) = &mut self.line {
                    line.press(&digits).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn clear(&mut self) -> Result<(), Lost> {
        match &mut self.line {
            Some(line) => line.clear().await,
            None => Ok(()),
        }
    }

    /// Another voice takes over: of what those before still make nothing is wanted, and a reply that is half spoken ends with the
    /// audio that there is.
    fn retire_voices(&mut self) {
        self.voices.clear();
        self.learning.clear();
        for told in self.told.iter_mut().filter(|told| told.voice.is_some()) {
            told.voice = None;
            told.orphan = true;
        }
    }

    fn open_voice(&mut self, index: u8) {
        let Some(tts) = self.speech.tts.get(usize::from(index)) else { return };
        let session = tts.open(TtsOptions { language: self.speech.language.clone() });
        let voice = Voice::new(index, session, tts.format().into(), self.coding);
        self.voices.retain(|v| v.index != index);
        self.voices.push(voice);
    }

    fn speak(&mut self, reply: ReplyId, index: u8, text: String, fixed: bool) {
        self.playout.begin(reply);
        if self.told.iter().all(|t| t.reply != reply) {
            self.told.push(Told { reply, voice: Some(index), ms: 0, orphan: false });
        }
        if fixed
            && let Some(key) = self.speech.voice_keys.get(usize::from(index))
            && let Some(spoken) = self.speech.phrases.find(key, &text)
        {
            self.told.iter_mut().filter(|t| t.reply == reply).for_each(|t| t.voice = None);
            self.add_audio(reply, &spoken.recording.coded(self.coding));
            if !spoken.anchors.is_empty() {
                self.tell(Input::Aligned { reply, anchors: spoken.anchors.clone() });
            }
            self.complete(reply);
            return;
        }
        if self.voices.iter().all(|v| v.index != index || !v.alive) {
            self.open_voice(index);
        }
        if fixed && let Some(tts) = self.speech.tts.get(usize::from(index)) {
            let (text, coding) = (text.clone(), tts.format().into());
            let (audio, anchors) = (Vec::new(), Vec::new());
            self.learning.push(Learning { reply, voice: index, text, coding, audio, anchors });
        }
        self.tell_voice(reply, TtsCommand::Speak { context: reply.0, text });
    }

    /// No more text will come. A reply whose voice died ends with the audio that there is.
    fn finish(&mut self, reply: ReplyId) {
        if self.told.iter().any(|t| t.reply == reply && t.orphan) {
            self.complete(reply);
        } else {
            self.tell_voice(reply, TtsCommand::Finish { context: reply.0 });
        }
    }

    /// Tells the voice that speaks a reply.
    fn tell_voice(&mut self, reply: ReplyId, command: TtsCommand) {
        let Some(index) = self.told.iter().find(|t| t.reply == reply).and_then(|t| t.voice) else { return };
        let voice = self.voices.iter().find(|v| v.index == index && v.alive);
        if voice.is_some_and(|v| v.session.commands.try_send(command).is_err()) {
            self.voice_died(index, true);
        }
    }

    /// A voice has made something, or died.
    fn voiced(&mut self, at: usize, event: Option<TtsEvent>) {
        let Some(voice) = self.voices.get_mut(at) else { return };
        let index = voice.index;
        match event {
            Some(TtsEvent::Opened) => {}
            Some(TtsEvent::Audio { context, audio }) => {
                let reply = ReplyId(context);
                let Some(mut to_line) = voice.lend(reply) else { return };
                if let Some(learning) = self.learning.iter_mut().find(|l| l.reply == reply) {
                    learning.audio.extend_from_slice(&audio);
                }
                self.add_audio(reply, to_line.push(&audio));
                if let Some(voice) = self.voices.get_mut(at) {
                    voice.give_back(to_line);
                }
            }
            Some(TtsEvent::Aligned { context, anchors }) => {
                let reply = ReplyId(context);
                if let Some(learning) = self.learning.iter_mut().find(|l| l.reply == reply) {
                    learning.anchors.extend_from_slice(&anchors);
                }
                self.tell(Input::Aligned { reply, anchors });
            }
            Some(TtsEvent::Done { context }) => {
                let reply = ReplyId(context);
                if let Some(mut to_line) = voice.lend(reply) {
                    self.add_audio(reply, to_line.flush());
                    if let Some(voice) = self.voices.get_mut(at) {
                        voice.give_back(to_line);
                    }
                }
                self.learn(reply);
                self.complete(reply);
            }
            Some(TtsEvent::Failed { context: _, error }) => {
                tracing::warn!(%error, "Voice failed");
                self.voice_died(index, error.cause.may_pass());
            }
            None => self.voice_died(index, true),
        }
    }

    fn voice_died(&mut self, index: u8, may_pass: bool) {
        if let Some(voice) = self.voices.iter_mut().find(|v| v.index == index && v.alive) {
            voice.alive = false;
            for told in self.told.iter_mut().filter(|t| t.voice == Some(index)) {
                told.voice = None;
                told.orphan = true;
            }
            self.learning.retain(|l| l.voice != index);
            self.tell(Input::TtsFailed { voice: index, may_pass });
        }
    }

    fn add_audio(&mut self, reply: ReplyId, coded: &[u8]) {
        if coded.is_empty() {
            return;
        }
        let Some(ms) = self.playout.audio(reply, coded) else { return };
        let Some(told) = self.told.iter_mut().find(|t| t.reply == reply) else { return };
        if told.ms == 0 || ms >= told.ms.saturating_add(PROGRESS_MS) {
            told.ms = ms;
            self.tell(Input::Synthesized { reply, ms, done: false });
        }
    }

    fn complete(&mut self, reply: ReplyId) {
        if let Some(ms) = self.playout.complete(reply) {
            self.tell(Input::Synthesized { reply, ms, done: true });
        }
    }

    /// Keeps a sentence that was spoken whole, if it is one that will be said again.
    fn learn(&mut self, reply: ReplyId) {
        let Some(at) = self.learning.iter().position(|l| l.reply == reply) else { return };
        let learned = self.learning.remove(at);
        if let Some(key) = self.speech.voice_keys.get(usize::from(learned.voice)) {
            let recording = Recording::new(learned.coding, Bytes::from(learned.audio));
            let spoken = Spoken { recording, anchors: learned.anchors };
            self.speech.phrases.keep(key, &learned.text, spoken);
        }
    }

    // ---- from the caller ---------------------------------------------------------------------------------------

    fn hear(&mut self, event: LineEvent) {
        match event {
            LineEvent::Audio => {
                let Some(line) = &self.line else { return };
                let heard = line.audio();
                let plays: &[u8] = match &mut self.sounding {
                    Some((reply, at)) => {
                        let audio = self.playout.heard_at(*reply, *at, heard.len());
                        *at += audio.len();
                        audio
                    }
                    None => &[],
                };
                for fact in self.ear.hear(heard, plays) {
                    self.tell(fact);
                }
            }
            LineEvent::Mark(name) => {
                let Some(mark) = Mark::read(&name).and_then(|m| self.playout.marked(m)) else { return };
                let bytes_per_ms = self.coding.bytes_per_ms();
                let place = mark.ms as usize * bytes_per_ms;
                match self.sounding {
                    _ if mark.done => self.sounding = None,
                    Some((reply, at))
                        if reply == mark.reply && at.abs_diff(place) < RESYNC_MS * bytes_per_ms => {}
                    _ => self.sounding = Some((mark.reply, place)),
                }
                if mark.done {
                    self.told.retain(|t| t.reply != mark.reply);
                }
                self.tell(Input::Played { reply: mark.reply, ms: mark.ms, done: mark.done });
            }
            LineEvent::Key(digit) => self.tell(Input::Dtmf { digit }),
            LineEvent::HungUp => {
                self.line = None;
                self.tell(Input::HungUp { by_caller: true });
            }
            LineEvent::Stopped => {
                self.line = None;
                self.line_heard_at = None;
                self.tell(Input::MediaLost);
            }
            LineEvent::Over => {
                self.line = None;
                self.line_heard_at = None;
            }
            LineEvent::Lost => self.lost(),
        }
    }

    fn open_stt(&mut self, id: SttId, provider: u8) {
        let Some(stt) = self.speech.stt.get(usize::from(provider)) else { return };
        let session = stt.open(SttOptions {
            language: self.speech.language.clone(),
            keywords: self.speech.keywords.clone(),
            endpointing_ms: self.speech.endpointing_ms,
        });
        if let Some(context) = &self.context {
            let _ = session.commands.try_send(SttCommand::Context(context.clone()));
        }
        self.ear.listen(id, session, stt.format().into());
    }

    fn understood(&mut self, event: Option<SttEvent>) {
        let Some(stt) = self.ear.recogniser.as_ref().map(|recogniser| recogniser.id) else { return };
        let fact = match event {
            Some(SttEvent::Opened) => Input::SttOpened { stt },
            Some(SttEvent::Interim { text, end_ms, .. }) => Input::Interim { stt, text, end_ms },
            Some(SttEvent::Final { text, end_ms, utterance_end, .. }) => {
                Input::Final { stt, text, end_ms, utterance_end }
            }
            Some(SttEvent::UtteranceEnd) => Input::UtteranceEnd { stt },
            Some(SttEvent::EagerEnd { text }) => Input::EagerEnd { stt, text },
            Some(SttEvent::Failed(error)) => {
                tracing::warn!(%error, "Recogniser failed");
                self.ear.recogniser = None;
                Input::SttFailed { stt, may_pass: error.cause.may_pass() }
            }
            None => {
                self.ear.recogniser = None;
                Input::SttFailed { stt, may_pass: true }
            }
        };
        self.tell(fact);
    }
}

async fn next_from_line(line: &mut Option<Box<Line>>) -> LineEvent {
    match line {
        Some(line) => line.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speech::Phrasebook;
    use offhook_providers::{AudioFormat, Tts, TtsSession};
    use std::sync::Mutex;

    /// A voice that says what it is made to.
    #[derive(Default)]
    struct Puppet(Mutex<Vec<mpsc::Sender<TtsEvent>>>);

    impl Tts for Puppet {
        fn name(&self) -> &'static str {
            "puppet"
        }

        fn format(&self) -> AudioFormat {
            AudioFormat::Mulaw
        }

        fn open(&self, _: TtsOptions) -> TtsSession {
            let (commands, mut read) = mpsc::channel(16);
            let (strings, events) = mpsc::channel(16);
            self.0.lock().unwrap().push(strings);
            tokio::spawn(async move { while read.recv().await.is_some() {} });
            TtsSession { commands, events }
        }
    }

    fn spoken_by(voices: &[&Arc<Puppet>]) -> Arc<Speech> {
        Arc::new(Speech {
            stt: Vec::new(),
            llm: Vec::new(),
            tts: voices.iter().map(|voice| Arc::clone(voice) as Arc<dyn Tts>).collect(),
            voice_keys: (0..voices.len()).map(|index| index.to_string()).collect(),
            language: "en-US".parse().unwrap(),
            keywords: Vec::new(),
            endpointing_ms: 300,
            max_tokens: 100,
            temperature_centi: None,
            phrases: Arc::new(Phrasebook::default()),
            canned_apology: Arc::new(Recording::of_samples(&[], 8_000)),
        })
    }

    fn last(told: &mut mpsc::Receiver<Input>) -> Option<Input> {
        std::iter::from_fn(|| told.try_recv().ok()).last()
    }

    #[tokio::test]
    async fn a_sentence_that_was_learnt_on_one_line_is_known_on_every_other() {
        const TEXT: &str = "We open at nine.";
        const REPLY: ReplyId = ReplyId(1);
        let puppet = Arc::new(Puppet::default());
        let speech = spoken_by(&[&puppet]);
        let speak = || Command::Speak { reply: REPLY, voice: 0, text: TEXT.into(), fixed: true };
        for (place, line) in [Coding::MU_LAW, Coding::WIDE, Coding::A_LAW].into_iter().enumerate() {
            let (facts, mut told) = mpsc::channel(FACTS_QUEUE);
            let mut pump = Pump::new(line, speech.clone(), facts);
            pump.obey(Order::Do(speak())).await.unwrap();
            if place == 0 {
                let audio = Bytes::from_static(&[7; 800]);
                pump.voiced(0, Some(TtsEvent::Audio { context: REPLY.0, audio }));
                pump.voiced(0, Some(TtsEvent::Done { context: REPLY.0 }));
            }
            let Some(Input::Synthesized { ms, done: true, .. }) = last(&mut told) else { panic!("{line:?}") };
            assert!((100..=102).contains(&ms), "{line:?}: {ms} ms");
        }
        assert_eq!(puppet.0.lock().unwrap().len(), 1, "it was asked once");
    }

    #[tokio::test]
    async fn how_a_call_ended_is_left_to_its_signalling() {
        let (facts, mut told) = mpsc::channel(FACTS_QUEUE);
        let mut pump = Pump::new(Coding::MU_LAW, spoken_by(&[]), facts);
        for (event, fact) in
            [(LineEvent::Over, None), (LineEvent::HungUp, Some(Input::HungUp { by_caller: true }))]
        {
            pump.hear(event);
            assert_eq!(last(&mut told), fact);
        }
    }

    #[tokio::test]
    async fn a_voice_that_was_replaced_says_nothing_more() {
        const TEXT: &str = "We open at nine.";
        const REPLY: ReplyId = ReplyId(1);
        let (slow, other) = (Arc::new(Puppet::default()), Arc::new(Puppet::default()));
        let speech = spoken_by(&[&slow, &other]);
        let (facts, mut told) = mpsc::channel(FACTS_QUEUE);
        let mut pump = Pump::new(Coding::MU_LAW, speech.clone(), facts);
        let speak = Command::Speak { reply: REPLY, voice: 0, text: TEXT.into(), fixed: true };
        for order in [Command::OpenTts { voice: 0 }, speak] {
            pump.obey(Order::Do(order)).await.unwrap();
        }
        pump.voiced(0, Some(TtsEvent::Audio { context: REPLY.0, audio: Bytes::from_static(&[7; 800]) }));
        for order in [Command::OpenTts { voice: 1 }, Command::FinishReply { reply: REPLY }] {
            pump.obey(Order::Do(order)).await.unwrap();
        }
        assert_eq!(last(&mut told), Some(Input::Synthesized { reply: REPLY, ms: 100, done: true }));
        assert!(slow.0.lock().unwrap()[0].is_closed(), "nobody listens to it any more");
        assert_eq!(other.0.lock().unwrap().len(), 1);
        assert!(speech.phrases.find("0", TEXT).is_none(), "half a sentence is not kept as the whole");
    }
}
