//! Runs TwiML on one call: fetches documents, goes through their verbs, follows actions and fallbacks, until the call ends.
//! It knows the call and its line, not where requests to change it come from.

use std::sync::Arc;
use std::time::Duration;

use offhook_media::dtmf::{self, Keying};
use tokio::sync::mpsc;
use url::Url;

use super::super::phone::{FromPhone, Party, What};
use super::call::{Call, CallStatus, Order};
use super::stream::{self, StreamEnd};
use super::twiml::{Complaint, Dial, DialTo, Document, Gather, Hook, Stream, Verb, Wait};
use super::webhook::{Reply, WebhookFailure, WebhookKind};
use super::{AfterLoss, Sim, conference};

/// What Twilio says when it has no document to run; the words are ours.
const APPLICATION_ERROR: &str = "An application error has occurred. Goodbye.";
/// `w` in digits to play.
const SHORT_WAIT_MS: u64 = 500;
/// `W` in digits to play.
const LONG_WAIT_MS: u64 = 1_000;

/// What runs next on a call.
#[derive(Clone, Debug)]
pub(super) enum Next {
    /// Asks the customer's server, adding parameters to those of the call.
    Fetch { hook: Hook, params: Vec<(String, String)> },
    /// A document that came with a request.
    Twiml(String),
}

/// How running ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ending {
    /// Nothing was left to do.
    RanOut,
    /// The document said so.
    HungUp,
    /// The call was not taken.
    Rejected(CallStatus),
}

/// Runs a call to its end, taking orders from outside on the way.
pub(super) async fn conduct(
    sim: Arc<Sim>,
    call: Arc<Call>,
    mut orders: mpsc::Receiver<Order>,
    first: Next,
    fallback: Option<Hook>,
) {
    let script = Script { sim: &sim, call: &call, fallback: fallback.as_ref(), scope: Scope::Call };
    let mut next = first;
    let (status, by) = loop {
        tokio::select! {
            biased;
            () = call.line.caller_hangs_up() => break (CallStatus::Canceled, Party::Caller),
            order = orders.recv() => match order {
                Some(Order::Redirect(other)) => next = other,
                Some(Order::HangUp) | None => break (CallStatus::Canceled, Party::Agent),
            },
            ending = script.run(next.clone()) => match ending {
                Ending::Rejected(status) => break (status, Party::Agent),
                Ending::RanOut | Ending::HungUp => break (CallStatus::Completed, Party::Agent),
            },
        }
    };
    call.finish(status, by);
}

/// Documents as they run on one call. Dropping a run leaves the call as it is at that moment.
#[derive(Clone, Copy)]
pub(super) struct Script<'a> {
    pub(super) sim: &'a Arc<Sim>,
    pub(super) call: &'a Arc<Call>,
    pub(super) fallback: Option<&'a Hook>,
    pub(super) scope: Scope,
}

/// What a document is for, which says what may stand in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scope {
    /// A call: everything.
    Call,
    /// A called party that listens before it is connected.
    Whisper,
    /// Those who wait for a conference to start.
    Waiting,
}

impl Scope {
    fn allows(self, verb: &Verb) -> bool {
        match self {
            Scope::Call => true,
            Scope::Whisper => {
                matches!(verb, Verb::Say { .. } | Verb::Play { .. } | Verb::Gather(_) | Verb::Hangup)
            }
            Scope::Waiting => {
                matches!(verb, Verb::Say { .. } | Verb::Play { .. } | Verb::Pause { .. } | Verb::Redirect(_))
            }
        }
    }

    fn complaint(self) -> &'static str {
        match self {
            Scope::Waiting => "only Say, Play, Pause and Redirect run while a conference is waited for",
            _ => "only Say, Play, Gather and Hangup run before a called party is connected",
        }
    }
}

/// What a verb leads to.
enum Step {
    NextVerb,
    Go(Next),
    End(Ending),
}

/// A document with the address that relative URLs in it start from.
struct Loaded {
    document: Document,
    hook: Option<Hook>,
}

impl<'a> Script<'a> {
    /// Runs documents until one ends the call or has nothing more to do.
    pub(super) async fn run(self, first: Next) -> Ending {
        let mut next = first;
        loop {
            let loaded = match self.load(&next).await {
                Ok(loaded) => loaded,
                Err(failure) => match self.fall_back(&next, &failure) {
                    Some(fallback) => {
                        next = fallback;
                        continue;
                    }
                    None => return self.apologise().await,
                },
            };
            for complaint in loaded.document.complaints.clone() {
                self.sim.alert(&self.call.sid, complaint);
            }
            match self.perform(&loaded).await {
                Step::Go(other) => next = other,
                Step::End(ending) => return ending,
                Step::NextVerb => return Ending::RanOut,
            }
        }
    }

    async fn load(&self, next: &Next) -> Result<Loaded, WebhookFailure> {
        let (hook, params) = match next {
            Next::Twiml(text) => {
                let document = parse(text).inspect_err(|failure| {
                    let complaint = Complaint { code: failure.code, message: failure.message.clone() };
                    self.sim.alert(&self.call.sid, complaint);
                })?;
                return Ok(Loaded { document, hook: None });
            }
            Next::Fetch { hook, params } => (hook, params),
        };
        let mut all = self.call.params();
        all.extend(params.iter().cloned());
        let request = self.call.request(WebhookKind::Voice, hook, all);
        let loaded = async {
            let reply = self.sim.webhooks.send(request.clone()).await?;
            let hook = Hook { url: reply.url.clone(), method: hook.method };
            Ok(Loaded { document: read(&reply)?, hook: Some(hook) })
        };
        loaded.await.inspect_err(|failure| self.sim.webhook_failed(&self.call.sid, failure, &request))
    }

    /// The fallback URL, told what went wrong where; a fallback has none itself.
    fn fall_back(&self, failed: &Next, failure: &WebhookFailure) -> Option<Next> {
        let failed_url = match failed {
            Next::Fetch { hook, .. } => hook.url.as_str(),
            Next::Twiml(_) => "",
        };
        let fallback = self.fallback.filter(|fallback| fallback.url != failed_url)?;
        let params = vec![
            ("ErrorCode".to_owned(), failure.code.to_string()),
            ("ErrorUrl".to_owned(), failed_url.to_owned()),
        ];
        Some(Next::Fetch { hook: fallback.clone(), params })
    }

    async fn apologise(&self) -> Ending {
        self.call.answer();
        self.say(APPLICATION_ERROR, 1).await;
        Ending::HungUp
    }

    async fn perform(&self, loaded: &Loaded) -> Step {
        for (index, verb) in loaded.document.verbs.iter().enumerate() {
            let step = match verb {
                _ if !self.scope.allows(verb) => {
                    let message = self.scope.complaint().into();
                    self.sim.alert(&self.call.sid, Complaint { code: 12200, message });
                    Step::NextVerb
                }
                Verb::Reject { busy } if index == 0 && self.call.status() == CallStatus::Ringing => {
                    let status = if *busy { CallStatus::Busy } else { CallStatus::NoAnswer };
                    Step::End(Ending::Rejected(status))
                }
                Verb::Hangup | Verb::Reject { .. } => {
                    self.call.answer();
                    Step::End(Ending::HungUp)
                }
                // As first verb it lets the telephone ring on.
                Verb::Pause { seconds } => {
                    if index > 0 {
                        self.call.answer();
                    }
                    pause(seconds * 1_000).await;
                    Step::NextVerb
                }
                Verb::Say { .. } | Verb::Play { .. } => {
                    self.sound(verb).await;
                    Step::NextVerb
                }
                Verb::Redirect(hook) => self.go(loaded, hook, Vec::new()),
                Verb::Gather(gather) => self.gather(loaded, gather).await,
                Verb::Connect { action, stream } => self.connect(loaded, action.as_ref(), stream).await,
                Verb::Dial(dial) => self.dial(loaded, dial).await,
            };
            if !matches!(step, Step::NextVerb) {
                return step;
            }
        }
        Step::NextVerb
    }

    async fn sound(&self, verb: &Verb) {
        self.call.answer();
        match verb {
            Verb::Say { text, times } => self.say(text, *times).await,
            Verb::Play { digits, .. } if !digits.is_empty() => self.play_digits(digits).await,
            Verb::Play { url, times, .. } => {
                for _ in 0..*times {
                    self.call.line.note(What::CarrierPlayed { url: url.clone() });
                    pause(self.sim.settings.play_ms).await;
                }
            }
            Verb::Pause { seconds } => pause(seconds * 1_000).await,
            _ => {}
        }
    }

    async fn say(&self, text: &str, times: u32) {
        for _ in 0..times {
            self.call.line.note(What::CarrierSaid { text: text.to_owned() });
            pause(text.chars().count() as u64 * self.sim.settings.say_ms_per_character).await;
        }
    }

    async fn play_digits(&self, digits: &str) {
        for digit in digits.chars() {
            match digit {
                'w' => pause(SHORT_WAIT_MS).await,
                'W' => pause(LONG_WAIT_MS).await,
                key => {
                    // The reader lets only keys pass, and a full buffer loses a tone as it loses speech.
                    if let Ok(tone) = dtmf::tones(&key.to_string(), Keying::default()) {
                        let _ = self.call.line.hear(&tone, self.call.network.delay_ms);
                    }
                    pause((Keying::default().on_ms + Keying::default().off_ms).into()).await;
                }
            }
        }
    }

    /// Listens for keys while the prompts run and for the timeout after them.
    async fn gather(&self, loaded: &Loaded, gather: &Gather) -> Step {
        self.call.answer();
        let mut from_phone = self.call.line.take();
        let prompts = async {
            for prompt in &gather.prompts {
                self.sound(prompt).await;
            }
            pause(gather.timeout_s * 1_000).await;
        };
        let first = tokio::select! {
            digit = next_digit(&mut from_phone), if gather.hears_digits => digit,
            () = prompts => None,
        };
        let mut digits = String::new();
        let mut next = first;
        while let Some(digit) = next.filter(|digit| Some(*digit) != gather.finish_on) {
            digits.push(digit);
            if gather.digits == Some(digits.len()) {
                break;
            }
            let more = next_digit(&mut from_phone);
            next = tokio::time::timeout(Duration::from_secs(gather.timeout_s), more).await.unwrap_or(None);
        }
        if digits.is_empty() && !gather.action_on_empty {
            return Step::NextVerb;
        }
        let own = loaded.hook.clone();
        let Some(action) = gather.action.clone().or(own) else { return Step::NextVerb };
        self.go(loaded, &action, vec![("Digits".into(), digits)])
    }

    async fn connect(&self, loaded: &Loaded, action: Option<&Hook>, stream: &Stream) -> Step {
        self.call.answer();
        let status_callback = stream.status_callback.as_ref().and_then(|hook| self.resolve(loaded, hook));
        let then = match stream::run(self.sim, self.call, stream, status_callback).await {
            StreamEnd::Closed | StreamEnd::NotConnected => AfterLoss::Action,
            StreamEnd::Lost(then) => then,
        };
        match (then, action) {
            (AfterLoss::Action, Some(action)) => self.go(loaded, action, Vec::new()),
            (AfterLoss::Action, None) | (AfterLoss::NextVerb, _) => Step::NextVerb,
            (AfterLoss::Nothing, _) => std::future::pending().await,
        }
    }

    async fn dial(&self, loaded: &Loaded, dial: &Dial) -> Step {
        if !dial.answer_on_bridge {
            self.call.answer();
        }
        let resolve = |hook: &Option<Hook>| hook.as_ref().and_then(|hook| self.resolve(loaded, hook));
        let mut to = dial.to.clone();
        let params = match &mut to {
            DialTo::Numbers(numbers) => {
                for number in numbers.iter_mut() {
                    number.whisper = resolve(&number.whisper);
                    number.status_callback = resolve(&number.status_callback);
                }
                super::dial::run(self.sim, self.call, dial, numbers).await.params()
            }
            DialTo::Conference(room) => {
                room.status_callback = resolve(&room.status_callback);
                if let Wait::Document(hook) = &room.wait {
                    room.wait = self.resolve(loaded, hook).map_or(Wait::Silence, Wait::Document);
                }
                conference::attend(*self, dial, room).await;
                vec![("DialCallStatus".to_owned(), "answered".to_owned())]
            }
        };
        match &dial.action {
            Some(action) => self.go(loaded, action, params),
            None => Step::NextVerb,
        }
    }

    fn go(&self, loaded: &Loaded, hook: &Hook, params: Vec<(String, String)>) -> Step {
        match self.resolve(loaded, hook) {
            Some(hook) => Step::Go(Next::Fetch { hook, params }),
            None => Step::NextVerb,
        }
    }

    /// Makes a URL absolute; an empty one means the document's own.
    fn resolve(&self, loaded: &Loaded, hook: &Hook) -> Option<Hook> {
        let absolute = match &loaded.hook {
            Some(base) if hook.url.is_empty() => Some(base.url.clone()),
            _ if is_absolute(&hook.url) => Some(hook.url.clone()),
            Some(base) => Url::parse(&base.url).and_then(|base| base.join(&hook.url)).ok().map(String::from),
            None => None,
        };
        if absolute.is_none() {
            let message = format!("\"{}\" is not an absolute URL", hook.url);
            self.sim.alert(&self.call.sid, Complaint { code: 11100, message });
        }
        absolute.map(|url| Hook { url, method: hook.method })
    }
}

/// Whether a URL can be asked as it stands.
pub(super) fn is_absolute(url: &str) -> bool {
    (url.starts_with("http://") || url.starts_with("https://")) && Url::parse(url).is_ok()
}

/// What an answer means by its type: a document, a sound file, or words to speak.
fn read(reply: &Reply) -> Result<Document, WebhookFailure> {
    let kind = reply.content_type.split(';').next().unwrap_or_default().trim();
    match kind {
        "text/xml" | "application/xml" | "text/html" => parse(&reply.body),
        "text/plain" => Ok(Document::parse(&reply.body).unwrap_or_else(|_| Document {
            verbs: vec![Verb::Say { text: reply.body.trim().to_owned(), times: 1 }],
            complaints: Vec::new(),
        })),
        _ if kind.starts_with("audio/") => Ok(Document {
            verbs: vec![Verb::Play { url: reply.url.clone(), digits: String::new(), times: 1 }],
            complaints: Vec::new(),
        }),
        _ => Err(WebhookFailure {
            code: 12300,
            message: format!("\"{kind}\" is no content type for a document"),
        }),
    }
}

fn parse(text: &str) -> Result<Document, WebhookFailure> {
    Document::parse(text).map_err(|Complaint { code, message }| WebhookFailure { code, message })
}

async fn next_digit(from_phone: &mut mpsc::Receiver<FromPhone>) -> Option<char> {
    loop {
        if let FromPhone::Digit(digit) = from_phone.recv().await? {
            return Some(digit);
        }
    }
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
