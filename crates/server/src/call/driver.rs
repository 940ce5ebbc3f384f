//! The loop of one call: waits for the next fact, lets the machine decide, carries its orders out, keeps the log.
//! It decides nothing itself; it owns the machine, and everybody else talks to it by mail.

use super::finish::{Ending, record};
use super::ledger::Ledger;
use super::pump::{FACTS_QUEUE, ORDERS_QUEUE, Order, Pump};
use super::recorder::{Lines, Recorder};
use super::registry::{Handle, Letter, MAILBOX, OPENINGS, Onward, Registry, Whose};
use super::resume::{self, ROUSE_AGAIN};
use super::steering::Steering;
use crate::abilities::Abilities;
use crate::carrier::CarrierControl;
use crate::live::{Happening, Live, LiveEvent};
use crate::problem::chain;
use crate::speech::Speech;
use offhook_core::call::log::{digest, summary};
use offhook_core::call::{
    AskId, Call, CallPlan, CallTime, Command, EndedReason, Fallback, Greeting, Input, Line, ToolId,
};
use offhook_core::entity::{CallEvent, CallSnapshot};
use offhook_core::{ChatMessage, Pii, ToolSpec};
use offhook_providers::{LlmEvent, LlmReply, LlmRequest};
use offhook_store::CallLease;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The log is handed over after so many lines, or so long.
const LOG_LINES: usize = 64;
const LOG_EVERY: Duration = Duration::from_millis(500);
/// Lines that may wait for a store that does not answer; then the log of this call is given up, the call goes on.
const LOG_BACKLOG: usize = 20_000;
/// How long an order that cannot be undone waits until the store has its line; then the caller is not kept waiting.
const WRITTEN_PATIENCE: Duration = Duration::from_secs(1);
/// How long a carrier may take to open a media socket that it was told to open.
const OPENING: Duration = Duration::from_secs(2);
/// How long until a carrier that does not ask is told to open the first media socket, should nothing else have done it.
const FIRST_OPENING: Duration = Duration::from_secs(3);
/// How long the apology of a machine that broke may take.
const LAST_APOLOGY: Duration = Duration::from_secs(6);

/// What every driver of the node works with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where calls and tickets are found.
    pub registry: Arc<Registry>,
    /// Who writes to the store.
    pub recorder: Recorder,
    /// Who watches.
    pub live: Live,
}

/// What one call is begun with.
#[derive(Debug)]
pub struct Beginning {
    /// The right to drive it and to write its log.
    pub lease: Arc<CallLease>,
    /// When it began to ring, µs since 1970 UTC.
    pub began_us: i64,
    /// What its carrier's requests are answered with.
    pub whose: Whose,
    /// The agent's providers.
    pub speech: Arc<Speech>,
    /// What the agent can do.
    pub abilities: Abilities,
    /// How the carrier is told things.
    pub carrier: CarrierControl,
}

/// The machine a call begins or goes on with.
#[derive(Debug)]
pub enum Machine {
    /// The phone rings.
    New {
        /// What the call depends on.
        plan: Box<CallPlan>,
        /// How long ago it began to ring.
        age: Duration,
    },
    /// A node died; the call as it stood, and the next line of its log.
    Resumed {
        /// The machine.
        call: Box<Call>,
        /// What was used.
        ledger: Ledger,
        /// The next line's number.
        next_seq: u32,
        /// How long ago the call began to ring.
        age: Duration,
    },
}

/// The driver of one call.
struct Driver {
    begin: Beginning,
    around: Surroundings,
    handle: Arc<Handle>,
    call: Call,
    /// When the call began to ring, by this node's clock.
    rang_at: Instant,
    orders: mpsc::Sender<Order>,
    asks: Vec<Asking>,
    tools: JoinSet<(ToolId, String)>,
    ledger: Ledger,
    let_go: bool,
    /// Why the call ended, where the machine cannot know.
    reason: Option<EndedReason>,
    /// What was said, when the machine broke.
    said: Option<Vec<Line>>,
    /// Audio has a way.
    on_line: bool,
    steering: Steering,
    /// The media is lost: since when the carrier should have asked what comes next, and when it is told to.
    rouse: Option<(Instant, Instant)>,
    tool_specs: Arc<[ToolSpec]>,
    log: Vec<CallEvent>,
    seq: u32,
    log_since: Option<Instant>,
    log_given_up: bool,
    snapshot_due: bool,
    /// Lines of the log that the store has.
    written: watch::Sender<u32>,
    /// Orders that cannot be undone, in their order.
    deeds: VecDeque<Deed>,
    answered: bool,
    commands: Vec<Command>,
}

/// An order that cannot be undone: another node must know of it before it is carried out.
struct Deed {
    order: Command,
    /// So many lines of the log must be written before.
    lines: u32,
    /// Or this moment have come.
    by: Instant,
}

struct Asking {
    ask: AskId,
    provider: u8,
    reply: LlmReply,
    messages: Arc<[ChatMessage]>,
    text: String,
}

enum Event {
    Fact(Option<Input>),
    Letter(Option<Letter>),
    Model(usize, Option<LlmEvent>),
    Tool(ToolId, String),
    Written,
    Alarm,
}

/// Why a call is not begun to be driven.
#[derive(Debug)]
pub enum NotStarted {
    /// It is driven already.
    Driven(Arc<Handle>),
    /// Its machine broke.
    Broken,
}

/// Begins to drive a call.
pub fn start(begin: Beginning, machine: Machine, around: Surroundings) -> Result<Arc<Handle>, NotStarted> {
    let mut commands = Vec::new();
    let begun = catch_unwind(AssertUnwindSafe(|| begun(machine, &mut commands)));
    let (call, ledger, rang_at, seq, at) = begun.map_err(|_| NotStarted::Broken)?;
    let (mailbox, letters) = mpsc::channel(MAILBOX);
    let handle = Arc::new(Handle::new(begin.whose.clone(), mailbox));
    around.registry.add(handle.clone()).map_err(NotStarted::Driven)?;
    let (facts_in, facts) = mpsc::channel(FACTS_QUEUE);
    let (orders, orders_out) = mpsc::channel(ORDERS_QUEUE);
    let pump = Pump::new(begin.carrier.coding(), begin.speech.clone(), facts_in);
    let span = tracing::info_span!(parent: None, "call", id = %begin.lease.call());
    tokio::spawn(tracing::Instrument::instrument(pump.run(orders_out), span.clone()));

    if let Some(llm) = begin.speech.llm.first() {
        llm.warm();
    }
    let resumed = seq > 0;
    let tool_specs = call.plan().abilities.iter().map(|a| a.spec.clone()).collect();
    let (registry, carrier) = (around.registry.clone(), begin.carrier.clone());
    let steering = Steering { handle: handle.clone(), carrier, registry };
    let told = !begin.carrier.asks() && begin.carrier.rouse_after().is_some();
    let rouse = told.then(|| (Instant::now(), Instant::now() + FIRST_OPENING));
    let mut driver = Driver {
        answered: call.was_connected(),
        begin,
        around,
        handle: handle.clone(),
        call,
        rang_at,
        orders,
        asks: Vec::new(),
        tools: JoinSet::new(),
        ledger,
        let_go: false,
        reason: None,
        said: None,
        rouse,
        on_line: false,
        steering,
        tool_specs,
        log: Vec::new(),
        seq,
        log_since: None,
        log_given_up: false,
        snapshot_due: true,
        written: watch::Sender::new(seq),
        deeds: VecDeque::new(),
        commands,
    };
    driver.order(Order::Context(opening(driver.call.plan())));
    driver.note(at, if resumed { RESUMED } else { STARTED }.into());
    driver.execute();
    tokio::spawn(tracing::Instrument::instrument(driver.run(facts, letters), span));
    Ok(handle)
}

/// The machine with what was used, when the call began to ring, the next line's number, and the moment.
fn begun(machine: Machine, orders: &mut Vec<Command>) -> (Call, Ledger, Instant, u32, CallTime) {
    let now = Instant::now();
    let (call, mut ledger, age, seq, at) = match machine {
        Machine::New { plan, age } => (Call::start(*plan, orders), Ledger::default(), age, 0, CallTime::ZERO),
        Machine::Resumed { mut call, mut ledger, next_seq, age } => {
            let at = CallTime::from_us(age.as_micros() as u64);
            ledger.resumed(at);
            call.resume(at, orders);
            (*call, ledger, age, next_seq, at)
        }
    };
    ledger.orders(at, orders);
    (call, ledger, now.checked_sub(age).unwrap_or(now), seq, at)
}

/// What has been said when the caller first speaks.
fn opening(plan: &CallPlan) -> Arc<[ChatMessage]> {
    let system = ChatMessage::System { text: plan.instructions.clone() };
    match &plan.greeting {
        Greeting::Fixed(text) => {
            [system, ChatMessage::Agent { text: text.clone(), tools: Vec::new() }].into()
        }
        Greeting::Written | Greeting::Silent => [system].into(),
    }
}

/// The input of the log's first line.
pub const STARTED: &str = "\"started\"";
/// The input of a line where another node went on.
pub const RESUMED: &str = "\"resumed\"";

impl Driver {
    async fn run(mut self, mut facts: mpsc::Receiver<Input>, mut letters: mpsc::Receiver<Letter>) {
        let alarm = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(alarm);
        let mut alarm_at = Instant::now();
        let mut written = self.written.subscribe();
        let mut pump_lives = true;
        while !self.call.is_finished() && !self.let_go && self.said.is_none() {
            let deadline =
                self.call.deadline().map(|(at, _)| self.rang_at + Duration::from_micros(at.as_us()));
            let log_due = self.log_since.map(|since| since + LOG_EVERY);
            let deed_due = self.deeds.front().map(|deed| deed.by);
            let rouse_due = self.rouse.map(|(_, at)| at);
            let due = [deadline, log_due, deed_due, rouse_due].into_iter().flatten().min();
            if let Some(at) = due
                && at != alarm_at
            {
                alarm.as_mut().reset(at);
                alarm_at = at;
            }
            let event = {
                let Driver { asks, tools, deeds, .. } = &mut self;
                tokio::select! {
                    biased;
                    letter = letters.recv() => Event::Letter(letter),
                    fact = facts.recv(), if pump_lives => Event::Fact(fact),
                    Ok(()) = written.changed(), if !deeds.is_empty() => Event::Written,
                    (index, event) = next_from_models(asks) => Event::Model(index, event),
                    Some(done) = tools.join_next() => match done {
                        Ok((tool, result)) => Event::Tool(tool, result),
                        // A tool that panicked answers nothing; its time runs out.
                        Err(_) => continue,
                    },
                    () = &mut alarm, if due.is_some() => Event::Alarm,
                }
            };
            match event {
                Event::Letter(Some(Letter::Line(line))) => self.order(Order::Attach(line)),
                Event::Letter(Some(Letter::Fact(fact))) => self.take(fact),
                Event::Fact(Some(fact)) => self.take(fact),
                Event::Model(index, event) => self.model(index, event),
                Event::Tool(tool, result) => self.take(Input::ToolDone { tool, result }),
                Event::Alarm => {
                    // So that an alarm for the same moment is set anew.
                    alarm_at = self.rang_at;
                    let now = Instant::now();
                    if log_due.is_some_and(|at| at <= now) {
                        self.hand_over_log();
                    }
                    if let Some((since, _)) = self.rouse.filter(|(_, at)| *at <= now) {
                        self.rouse = Some((now, now + ROUSE_AGAIN));
                        self.rouse(since);
                    }
                    if deadline.is_some_and(|at| at <= now) {
                        self.take(Input::Tick);
                    }
                }
                Event::Written => {}
                // The pump died; without it there is no call.
                Event::Fact(None) => {
                    pump_lives = false;
                    self.take(Input::HungUp { by_caller: false });
                }
                Event::Letter(Some(Letter::NoMedia)) => self.no_media(),
                Event::Letter(Some(Letter::OpenMedia)) => self.open_media(),
                Event::Letter(Some(Letter::LetGo)) => self.let_go = true,
                Event::Letter(None) => {}
            }
            self.do_deeds();
        }
        self.finish().await;
    }

    fn now(&self) -> CallTime {
        CallTime::from_us(self.rang_at.elapsed().as_micros() as u64)
    }

    /// Lets the machine handle a fact, and carries out what it orders.
    fn take(&mut self, fact: Input) {
        let at = self.now();
        if fact == Input::Connected && !std::mem::replace(&mut self.answered, true) {
            self.tell(Happening::Answered);
            let at_us = self.begin.began_us.saturating_add(i64::try_from(at.as_us()).unwrap_or(i64::MAX));
            self.around.recorder.answered(&self.begin.lease, at_us);
        }
        match fact {
            Input::MediaLost => {
                let now = Instant::now();
                self.rouse = self.begin.carrier.rouse_after().map(|after| (now, now + after));
                self.on_line = false;
            }
            Input::Connected | Input::HungUp { .. } => {
                self.rouse = None;
                self.on_line = fact == Input::Connected;
            }
            _ => {}
        }
        let logged =
            if self.log_given_up { String::new() } else { serde_json::to_string(&fact).unwrap_or_default() };
        let Driver { call, commands, ledger, .. } = self;
        ledger.fact(at, &fact);
        if catch_unwind(AssertUnwindSafe(|| call.handle(at, fact, commands))).is_err() {
            self.broken();
            return;
        }
        self.ledger.orders(at, &self.commands);
        self.note(at, logged);
        self.execute();
    }

    /// The machine broke one of its own rules: the caller hears an apology and is not left hanging.
    fn broken(&mut self) {
        tracing::error!(call.id = %self.begin.lease.call(), "The call machine broke; the caller hears an apology and the call ends");
        metrics::counter!("offhook_call_machine_broken_total").increment(1);
        self.commands.clear();
        self.asks.clear();
        self.deeds.clear();
        self.reason = Some(EndedReason::OffhookFailed);
        self.said = Some(catch_unwind(AssertUnwindSafe(|| self.call.transcript())).unwrap_or_default());
        self.order(Order::Apologise);
        let onward = match &self.call.plan().fallback {
            Fallback::Forward(to) => Onward::Forward(to.clone()),
            Fallback::HangUp | Fallback::Voicemail => Onward::HangUp,
        };
        self.handle.set_onward(onward.clone());
        let (orders, carrier) = (self.orders.clone(), self.begin.carrier.clone());
        let handle = self.handle.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_APOLOGY).await;
            if let Err(error) = carrier.end(&handle.carrier_call, &onward).await {
                let error = chain(&error);
                tracing::warn!(call.id = %handle.id, error, "The carrier was told to end a call and did not");
            }
            let _ = orders.send(Order::HangUp).await;
        });
    }

    /// Writes a line of the log: the input, and when and what the machine made of it.
    fn note(&mut self, at: CallTime, input: String) {
        if self.log_given_up {
            return;
        }
        self.log.push(CallEvent {
            seq: self.seq,
            at_us: at.as_us(),
            input: Pii::new(input),
            orders: summary(&self.commands),
            digest: digest(&self.commands),
        });
        self.seq += 1;
        self.log_since.get_or_insert_with(Instant::now);
        if self.log.len() >= LOG_LINES {
            self.hand_over_log();
        }
    }

    /// The lines that were not handed over yet.
    fn lines(&mut self) -> Lines {
        self.log_since = None;
        let seq = self.seq.saturating_sub(1);
        let snapshot = std::mem::take(&mut self.snapshot_due)
            .then(|| resume::snapshot(&self.call, &self.ledger))
            .flatten()
            .map(|state| CallSnapshot { seq, state: Pii::new(state) });
        let (lease, written) = (self.begin.lease.clone(), self.written.clone());
        Lines { lease, events: std::mem::take(&mut self.log), snapshot, written }
    }

    fn hand_over_log(&mut self) {
        if self.log.is_empty() {
            self.log_since = None;
            return;
        }
        let lines = self.lines();
        let Err(lines) = self.around.recorder.append(lines) else { return };
        if lines.events.len() < LOG_BACKLOG {
            self.log = lines.events;
            self.snapshot_due |= lines.snapshot.is_some();
            self.log_since = Some(Instant::now());
        } else {
            self.log_given_up = true;
            tracing::error!(call.id = %self.begin.lease.call(), "The log of a call is given up: the store has not taken it; the call goes on");
        }
    }

    fn order(&self, order: Order) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.orders.try_send(order) {
            tracing::error!(call.id = %self.begin.lease.call(), "The pump of a call does not take orders any more");
        }
    }

    fn tell(&self, what: Happening) {
        let lease = &self.begin.lease;
        let (workspace, call) = (lease.scope().workspace().clone(), lease.call().clone());
        self.around.live.tell(LiveEvent { workspace, call, what });
    }

    /// Carries out the machine's orders; those that cannot be undone when their line is written.
    fn execute(&mut self) {
        let mut commands = std::mem::take(&mut self.commands);
        let waiting = self.deeds.len();
        for command in commands.drain(..) {
            match command {
                Command::RunTool { .. }
                | Command::SendDtmf { .. }
                | Command::HangUp
                | Command::Forward { .. } => {
                    let by = Instant::now() + WRITTEN_PATIENCE;
                    self.deeds.push_back(Deed { order: command, lines: self.seq, by });
                }
                Command::Ask { ask, provider, messages } => self.ask(ask, provider, messages),
                Command::CancelAsk { ask } => self.asks.retain(|a| a.ask != ask),
                Command::Note(line) => self.tell(Happening::Line { line: Pii::new(line) }),
                Command::Timed(timing) => {
                    self.snapshot_due = true;
                    let gap_ms = timing.playout.since_ms(timing.speech_end);
                    metrics::histogram!("offhook_response_gap_seconds").record(f64::from(gap_ms) / 1_000.0);
                    self.tell(Happening::Timed { timing });
                }
                // No plan that is made here asks for any of it: whoever makes one that does must carry it out.
                order @ (Command::Dial { .. }
                | Command::Tell { .. }
                | Command::DropLeg { .. }
                | Command::Bridge { .. }
                | Command::Tone { .. }
                | Command::Beep { .. }
                | Command::PlayAudio { .. }
                | Command::Record { .. }) => {
                    tracing::error!(call.id = %self.begin.lease.call(), %order, "An order is not carried out: this server does not know how");
                }
                audio => self.order(Order::Do(audio)),
            }
        }
        self.commands = commands;
        if self.deeds.len() > waiting {
            self.hand_over_log();
        }
    }

    /// Carries out what cannot be undone and has been written, or has waited long enough for that.
    fn do_deeds(&mut self) {
        let (written, now) = (*self.written.borrow(), Instant::now());
        while let Some(deed) = self.deeds.front() {
            let known = deed.lines <= written;
            if !known && deed.by > now && !self.log_given_up {
                return;
            }
            if !known {
                metrics::counter!("offhook_orders_before_their_line_total").increment(1);
                tracing::warn!(call.id = %self.begin.lease.call(), "An order is carried out before the store has its line: should this process die now, it may be carried out twice");
            }
            if let Some(deed) = self.deeds.pop_front() {
                self.act(deed.order);
            }
        }
    }

    fn act(&mut self, order: Command) {
        match order {
            Command::RunTool { tool, name, arguments } => {
                self.tell(Happening::Tool { name: name.clone() });
                let use_it = self.begin.abilities.run(name, arguments);
                self.tools.spawn(async move { (tool, use_it.await) });
            }
            Command::HangUp => self.hang_up(Onward::HangUp),
            Command::Forward { to } => self.hang_up(Onward::Forward(to)),
            Command::SendDtmf { digits } if self.begin.carrier.presses() => self.steering.press(digits),
            other => self.order(Order::Do(other)),
        }
    }

    fn ask(&mut self, ask: AskId, provider: u8, messages: Arc<[ChatMessage]>) {
        let Some(llm) = self.begin.speech.llm.get(usize::from(provider)) else { return };
        let reply = llm.ask(LlmRequest {
            messages: messages.clone(),
            tools: self.tool_specs.clone(),
            max_tokens: self.begin.speech.max_tokens,
            temperature_centi: self.begin.speech.temperature_centi,
        });
        self.asks.push(Asking { ask, provider, reply, messages, text: String::new() });
    }

    fn model(&mut self, index: usize, event: Option<LlmEvent>) {
        let asking = &mut self.asks[index];
        let ask = asking.ask;
        match event {
            Some(LlmEvent::Token(mut text)) => {
                // What has come meanwhile is one fact, and one line of the log.
                let mut next = None;
                while let Ok(event) = asking.reply.events.try_recv() {
                    match event {
                        LlmEvent::Token(more) => text.push_str(&more),
                        other => {
                            next = Some(other);
                            break;
                        }
                    }
                }
                asking.text.push_str(&text);
                self.take(Input::Token { ask, text });
                // The machine may have cancelled the request for these words.
                if let Some(index) = self.asks.iter().position(|asking| asking.ask == ask && next.is_some()) {
                    self.model(index, next);
                }
            }
            Some(LlmEvent::Tool(request)) => self.take(Input::Tool { ask, request }),
            Some(LlmEvent::Done { usage, .. }) => {
                let done = self.asks.swap_remove(index);
                if let Some(usage) = usage {
                    self.ledger.cost(done.provider, usage);
                }
                let mut said = done.messages.to_vec();
                said.push(ChatMessage::Agent { text: done.text, tools: Vec::new() });
                self.order(Order::Context(said.into()));
                self.take(Input::AskDone { ask });
            }
            Some(LlmEvent::Failed(error)) => {
                tracing::warn!(call.id = %self.begin.lease.call(), %error, "Model failed");
                self.asks.swap_remove(index);
                self.take(Input::AskFailed { ask, may_pass: error.cause.may_pass() });
            }
            None => {
                self.asks.swap_remove(index);
                self.take(Input::AskFailed { ask, may_pass: true });
            }
        }
    }

    /// Lets go of the line: the carrier then asks what comes next, or is told.
    fn hang_up(&self, onward: Onward) {
        self.handle.set_onward(onward.clone());
        self.order(Order::HangUp);
        // The machine has given the call up: no media socket is left whose end the carrier would notice.
        self.steering.end(onward, self.call.is_finished());
    }

    /// Hands over what is left of the log, and carries out what has waited for it.
    async fn write_last_lines(&mut self) {
        self.snapshot_due = self.let_go;
        let (recorder, lines) = (self.around.recorder.clone(), self.lines());
        let (mut written, all) = (self.written.subscribe(), self.seq);
        tokio::join!(recorder.append_last(lines), async {
            // Who goes on with a call that is let go of orders its end again. Of a tool it tells the model that the outcome is
            // unknown: better once too few than once too many.
            if !self.let_go && !self.deeds.is_empty() {
                let _ = tokio::time::timeout(WRITTEN_PATIENCE, written.wait_for(|lines| *lines >= all)).await;
                self.do_deeds();
            }
        });
    }

    /// The media is lost and has not come back: a carrier that has not asked by now may never do by itself, and one that does not ask
    /// has to be told.
    fn rouse(&mut self, since: Instant) {
        let asked = match self.begin.carrier.asks() {
            true => self.handle.asked_since(since),
            false => {
                Instant::now().checked_sub(OPENING).is_some_and(|lately| self.handle.asked_since(lately))
            }
        };
        if !asked {
            self.open_media();
        }
    }

    /// Has a media socket opened, unless the call goes elsewhere or it is hopeless.
    fn open_media(&mut self) {
        if self.on_line || self.handle.onward() != Onward::MediaAgain {
            return;
        }
        if self.begin.carrier.asks() || self.handle.unopened() < OPENINGS {
            return self.steering.media_again();
        }
        tracing::error!(call.id = %self.handle.id, attempts = self.handle.unopened(), "A call ends: the carrier was told to open a media socket and never did. If a proxy stands before this server, it must let WebSockets pass (the `Upgrade` header)");
        self.steering.give_up();
        self.no_media();
    }

    /// There is no way to talk.
    fn no_media(&mut self) {
        let connected = self.call.was_connected();
        self.reason = Some(if connected { EndedReason::MediaLost } else { EndedReason::NeverConnected });
        self.take(Input::HungUp { by_caller: false });
    }

    async fn finish(mut self) {
        self.around.registry.over(&self.handle);
        // Who puts a caller through is not done with them yet.
        if !matches!(self.handle.onward(), Onward::Forward(_)) {
            self.begin.carrier.leave();
        }
        self.write_last_lines().await;
        if self.let_go {
            self.around.recorder.release(&self.begin.lease).await;
            self.around.registry.remove(&self.handle.id);
            return;
        }
        let reason = self.reason.or(self.call.ended()).unwrap_or(EndedReason::CarrierHungUp);
        self.tell(Happening::Ended { reason });
        let now = self.now();
        self.ledger.close(now);
        let lasted_ms = now.as_ms();
        tracing::info!(
            call.id = %self.begin.lease.call(),
            reason = super::finish::word(reason),
            lasted_ms,
            asked = self.ledger.asked,
            thrown_away = self.ledger.cancelled,
            "Call ended"
        );
        metrics::counter!("offhook_calls_ended_total", "reason" => super::finish::word(reason)).increment(1);
        metrics::counter!("offhook_model_requests_total").increment(u64::from(self.ledger.asked));
        metrics::counter!("offhook_model_requests_thrown_away_total")
            .increment(u64::from(self.ledger.cancelled));
        let finished = record(Ending {
            began_us: self.begin.began_us,
            lasted_ms,
            reason,
            lines: self.said.take().unwrap_or_else(|| self.call.transcript()),
            ledger: &self.ledger,
            speech: Some(&self.begin.speech),
        });
        self.around.recorder.finish(&self.begin.lease, finished).await;
    }
}

async fn next_from_models(asks: &mut [Asking]) -> (usize, Option<LlmEvent>) {
    poll_fn(|cx| {
        for (index, asking) in asks.iter_mut().enumerate() {
            if let Poll::Ready(event) = asking.reply.events.poll_recv(cx) {
                return Poll::Ready((index, event));
            }
        }
        Poll::Pending
    })
    .await
}
