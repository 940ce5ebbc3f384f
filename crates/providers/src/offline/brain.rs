//! The scripted receptionist: what it says next follows from the messages alone, so a replay says the same.
//! It does not know sound, and understands nothing that its script and its small talk do not foresee.

use super::UNCLEAR;
use super::opening::{self, Clock};
use super::script::{Script, listed};
use super::words::{digits, likeness, only, said_any, words};
use offhook_core::{ChatMessage, ToolRequest, ToolSpec};
use serde_json::json;

/// How much of a question's phrasing must have been said. Below, the receptionist asks again instead of guessing.
const UNDERSTOOD: f32 = 0.6;

/// How much makes a question sure enough to be answered in the middle of taking a message.
const SURE: f32 = 0.85;

/// Digits of the shortest telephone number that is taken without asking for the rest.
const NUMBER_DIGITS: usize = 7;

/// The longest telephone number (ITU-T E.164).
const MAX_NUMBER_DIGITS: usize = 15;

/// How often something is asked for before the receptionist does without.
const ATTEMPTS: u8 = 2;

/// Words of the longest message that is read back; a longer one is only announced.
const READ_BACK_WORDS: usize = 40;

/// What the receptionist says, and the tools it then uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Text to speak; empty when a tool comes first.
    pub text: String,
    /// Tools to use after that.
    pub tools: Vec<ToolRequest>,
}

/// What the receptionist expects to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expects {
    /// Any question.
    Question,
    /// Yes or no, or any question.
    YesOrNo,
    /// The caller's name.
    Name,
    /// A telephone number.
    Number,
    /// What is to be passed on.
    Message,
}

/// The next reply of the receptionist in the instructions, the first of the messages.
pub fn reply(messages: &[ChatMessage], tools: &[ToolSpec]) -> Reply {
    let script = script_of(messages);
    let message_tool = tool_named(tools, "takemessage");
    let mut talk = Conversation::new(&script, instructions(messages), message_tool.is_some());
    let then = talk.replay(messages);
    match messages.last() {
        Some(ChatMessage::Tool { id, text }) => {
            Reply { text: talk.after_tool(messages, id, text), tools: vec![] }
        }
        Some(ChatMessage::User { .. }) => talk.act(then, message_tool, tools, messages.len()),
        _ => Reply { text: talk.without_words(messages), tools: vec![] },
    }
}

/// What a recogniser should listen for now, and with which script.
pub fn expects(messages: &[ChatMessage]) -> (Script, Expects) {
    let script = script_of(messages);
    let mut talk = Conversation::new(&script, instructions(messages), true);
    talk.replay(messages);
    let expects = talk.expects();
    (script, expects)
}

/// What the receptionist says first.
pub fn greeting(script: &Script) -> String {
    format!("Hello, this is the automatic receptionist of {}. How can I help you?", script.business)
}

fn instructions(messages: &[ChatMessage]) -> &str {
    match messages.first() {
        Some(ChatMessage::System { text }) => text,
        _ => "",
    }
}

/// An agent without a script is a receptionist who can only take messages.
fn script_of(messages: &[ChatMessage]) -> Script {
    let found = Script::within(instructions(messages)).unwrap_or_else(|error| {
        tracing::warn!(%error, "The offline receptionist works without its script");
        None
    });
    found.unwrap_or_else(|| Script {
        business: "this office".into(),
        hours: None,
        questions: vec![],
        messages: vec![],
    })
}

fn tool_named<'a>(tools: &'a [ToolSpec], name: &str) -> Option<&'a ToolSpec> {
    tools.iter().find(|tool| tool.name.replace('_', "").to_lowercase() == name)
}

/// Where the conversation stands: who must say what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// "Anything else?" has been asked.
    AnythingElse,
    /// "Shall I take a message?" has been asked.
    Offered,
    Name,
    Number,
    Message,
    /// The message has been read back.
    Confirm,
}

/// What a turn asks for besides words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Listen,
    TakeMessage,
    HangUp,
}

/// A message in the making.
#[derive(Clone, Debug, Default)]
struct Note {
    name: Option<String>,
    phone: String,
    text: String,
}

/// The conversation so far, folded turn by turn.
struct Conversation<'a> {
    script: &'a Script,
    clock: Clock,
    takes_messages: bool,
    state: State,
    note: Note,
    /// Turns in a row that were not understood.
    misses: u8,
    /// The last matter was the opening hours: "and on Sunday?" belongs to it.
    about_hours: bool,
    /// Questions answered so far.
    answers: u32,
    says: String,
}

impl<'a> Conversation<'a> {
    fn new(script: &'a Script, instructions: &str, takes_messages: bool) -> Self {
        Conversation {
            script,
            clock: Clock::within(instructions),
            takes_messages,
            state: State::Open,
            note: Note::default(),
            misses: 0,
            about_hours: false,
            answers: 0,
            says: greeting(script),
        }
    }

    /// Hears every turn of the caller again. Turns without an answer between them are one: it was not heard.
    fn replay(&mut self, messages: &[ChatMessage]) -> Then {
        let mut then = Then::Listen;
        let mut turn = String::new();
        for (index, message) in messages.iter().enumerate() {
            let ChatMessage::User { text } = message else { continue };
            turn.push_str(text);
            turn.push(' ');
            if !matches!(messages.get(index + 1), Some(ChatMessage::User { .. })) {
                then = self.hear(turn.trim());
                turn.clear();
            }
        }
        then
    }

    fn expects(&self) -> Expects {
        match self.state {
            State::Open => Expects::Question,
            State::AnythingElse | State::Offered | State::Confirm => Expects::YesOrNo,
            State::Name => Expects::Name,
            State::Number => Expects::Number,
            State::Message => Expects::Message,
        }
    }

    fn act(self, then: Then, message_tool: Option<&ToolSpec>, tools: &[ToolSpec], turn: usize) -> Reply {
        let call = |tool: &ToolSpec, arguments: String| ToolRequest {
            id: format!("offline-{turn}"),
            name: tool.name.clone(),
            arguments,
        };
        let hang_up =
            ["endcall", "hangup", "endconversation"].iter().find_map(|name| tool_named(tools, name));
        match (then, message_tool, hang_up) {
            (Then::TakeMessage, Some(tool), _) => {
                let arguments =
                    json!({ "name": self.note.name, "phone": self.note.phone, "message": self.note.text });
                Reply { text: String::new(), tools: vec![call(tool, without_empty(arguments))] }
            }
            (Then::HangUp, _, Some(tool)) => Reply { text: self.says, tools: vec![call(tool, "{}".into())] },
            _ => Reply { text: self.says, tools: vec![] },
        }
    }

    /// What is said once a tool has answered.
    fn after_tool(&self, messages: &[ChatMessage], id: &str, result: &str) -> String {
        let requests = messages.iter().rev().filter_map(|message| match message {
            ChatMessage::Agent { tools, .. } => Some(tools),
            _ => None,
        });
        let name = requests.flatten().find(|tool| tool.id == id).map_or("", |tool| tool.name.as_str());
        let failed = result.trim_start().to_lowercase().starts_with("error");
        match name.replace('_', "").to_lowercase().as_str() {
            "takemessage" if failed => {
                "I am sorry, I could not keep your message. Please call again later.".into()
            }
            "takemessage" => self.says.clone(),
            _ => String::new(),
        }
    }

    /// What is said when the caller is silent.
    fn without_words(self, messages: &[ChatMessage]) -> String {
        let spoke = messages.iter().any(|message| !matches!(message, ChatMessage::System { .. }));
        if spoke { "Are you still there?".into() } else { self.says }
    }

    // ---- one turn ----------------------------------------------------------------------------------------------

    fn hear(&mut self, text: &str) -> Then {
        let words = words(text);
        let was_about_hours = std::mem::take(&mut self.about_hours);
        if said_any(
            &words,
            &["say again", "repeat", "come again", "pardon", "what you say", "say one more time"],
        ) {
            self.about_hours = was_about_hours;
            return Then::Listen;
        }
        if is_goodbye(&words) && !(self.state == State::Message && words.len() > READ_BACK_WORDS / 4) {
            return self.goodbye();
        }
        match self.state {
            State::Name | State::Number | State::Message if is_cancelled(&words) => {
                self.note = Note::default();
                self.ask(State::AnythingElse, "All right, no message. Is there anything else?")
            }
            State::Name => self.hear_name(text, &words),
            State::Number => self.hear_number(&words),
            State::Message => self.hear_message(text, &words),
            State::Confirm if is_yes(&words) => self.keep_message(),
            State::Confirm if is_no(&words) => {
                self.note = Note::default();
                self.ask(State::Name, "Then let us start again. What is your name?")
            }
            State::Offered if is_yes(&words) => self.begin_message(&words),
            State::Offered if is_no(&words) => {
                self.ask(State::AnythingElse, "All right. Is there anything else?")
            }
            State::AnythingElse if is_no(&words) => self.goodbye(),
            State::AnythingElse if is_yes(&words) => self.ask(State::Open, "What would you like to know?"),
            State::Open | State::AnythingElse | State::Offered | State::Confirm => {
                self.hear_anything(text, &words, was_about_hours)
            }
        }
    }

    fn hear_anything(&mut self, text: &str, words: &[String], was_about_hours: bool) -> Then {
        if let Some((answer, _)) = self.small_talk(words) {
            return self.tell(&answer);
        }
        if let Some(then) = self.wants_somebody(words) {
            return then;
        }
        if let Some((answer, _)) = self.answer(words, was_about_hours) {
            return self.answered(&answer);
        }
        if only(words, GREETINGS) {
            return self.ask(State::Open, "Hello. How can I help you?");
        }
        if is_yes(words) || is_no(words) {
            return self.ask(State::Open, "How can I help you?");
        }
        self.not_understood(text)
    }

    /// An answer and how sure it is, from 0 to 1.
    fn answer(&mut self, words: &[String], was_about_hours: bool) -> Option<(String, f32)> {
        let likeness_of = |phrasing: &String| likeness(words, &super::words::words(phrasing));
        let best = self
            .script
            .questions
            .iter()
            .map(|question| (question.ask.iter().map(likeness_of).fold(0.0, f32::max), &question.answer));
        let (sure, answer) = best.fold((0.0, ""), |best, (sure, answer)| match sure > best.0 {
            true => (sure, answer.as_str()),
            false => best,
        });
        // A phrasing that was said in full knows better than the word "open" what is meant.
        if sure >= 1.0 {
            return Some((answer.to_owned(), sure));
        }
        if opening::is_asked(words, was_about_hours) {
            self.about_hours = true;
            let told = self.script.hours.as_ref().map(|hours| opening::tell(hours, self.clock, words));
            return Some((told.unwrap_or_else(|| "I do not know the opening hours.".into()), 1.0));
        }
        (sure >= UNDERSTOOD).then(|| (answer.to_owned(), sure))
    }

    fn small_talk(&self, words: &[String]) -> Option<(String, f32)> {
        let reply = if said_any(
            words,
            &["you robot", "am i talk robot", "is this robot", "who are you", "what are you"],
        ) {
            format!(
                "I am the automatic receptionist of {}. I can answer questions and take messages.",
                self.script.business
            )
        } else if said_any(words, &["what you do", "you help", "what i ask", "what options", "help me"])
            && words.len() < 9
        {
            self.abilities()
        } else if said_any(words, &["how are you", "how are things"]) {
            "I am fine, thank you. How can I help you?".into()
        } else if only(words, THANKS) && self.state != State::AnythingElse {
            "You are welcome. Is there anything else?".into()
        } else {
            return None;
        };
        Some((reply, 1.0))
    }

    /// The caller wants to leave a message, or to speak to a person.
    fn wants_somebody(&mut self, words: &[String]) -> Option<Then> {
        const MESSAGE: &[&str] = &[
            "leave message",
            "take message",
            "give message",
            "pass message",
            "have message",
            "a message",
            "call me back",
            "call back",
            "ring me back",
            "write down",
            "pass on",
            "tell them",
            "tell her",
            "tell him",
        ];
        const PERSON: &[&str] = &[
            "talk person",
            "talk to",
            "talk with",
            "put me through",
            "transfer me",
            "connect me",
            "get me person",
            "real person",
            "is there person",
            "operator",
            "reach person",
            "i want person",
            "i need person",
        ];
        if said_any(words, MESSAGE) {
            return Some(self.begin_message(words));
        }
        if said_any(words, PERSON) {
            return Some(match self.takes_messages {
                true => self.ask(State::Offered, "Nobody is free at the moment. Shall I take a message?"),
                false => self.ask(
                    State::AnythingElse,
                    "Nobody is free at the moment. Is there anything else I can tell you?",
                ),
            });
        }
        None
    }

    fn answered(&mut self, answer: &str) -> Then {
        self.answers += 1;
        let offers_message = self.takes_messages && answer.contains("take a message");
        match (offers_message, self.answers) {
            (true, _) => self.ask(State::Offered, &format!("{answer} Shall I take a message?")),
            (_, 1) => self.ask(State::AnythingElse, &format!("{answer} Is there anything else?")),
            _ => self.ask(State::AnythingElse, answer),
        }
    }

    fn not_understood(&mut self, text: &str) -> Then {
        let misses = self.misses + 1;
        let sorry = if text.contains(UNCLEAR) {
            "Sorry, I did not catch that."
        } else {
            "Sorry, I did not understand that."
        };
        if misses >= ATTEMPTS && self.takes_messages {
            return self.ask(
                State::Offered,
                &format!("{sorry} Shall I take a message, so that somebody calls you back?"),
            );
        }
        let says = format!("{sorry} {}", self.abilities());
        self.ask(State::Open, &says);
        self.misses = misses;
        Then::Listen
    }

    fn abilities(&self) -> String {
        const NAMED: usize = 3;
        let hours = self.script.hours.as_ref().map(|_| "our opening hours");
        let mut topics: Vec<&str> = hours.into_iter().collect();
        topics.extend(self.script.questions.iter().map(|question| question.about.as_str()).take(NAMED));
        match (topics.is_empty(), self.takes_messages) {
            (true, _) => "I can take a message for you.".into(),
            (false, true) => format!("You can ask about {}, or leave a message.", topics.join(", ")),
            (false, false) => format!("You can ask about {}.", listed(&topics)),
        }
    }

    // ---- taking a message --------------------------------------------------------------------------------------

    fn begin_message(&mut self, words: &[String]) -> Then {
        if !self.takes_messages {
            return self.ask(
                State::AnythingElse,
                "I am sorry, I cannot take messages on this line. Is there anything else?",
            );
        }
        self.note = Note::default();
        match name_after(words, &["name is", "this is"]) {
            Some(name) => self.name_known(name),
            None => self.ask(State::Name, "I will take a message. What is your name?"),
        }
    }

    fn hear_name(&mut self, text: &str, words: &[String]) -> Then {
        if let Some(name) =
            name_after(words, &["name is", "this is", "it is", "i am", "call me"]).or_else(|| name_in(words))
        {
            return self.name_known(name);
        }
        if let Some(then) = self.answered_meanwhile(words, "And what is your name?") {
            return then;
        }
        self.misses += 1;
        if self.misses >= ATTEMPTS {
            return self.ask(State::Number, "Let us go on without a name. What number can we reach you on?");
        }
        let sorry = if text.contains(UNCLEAR) {
            "I did not catch your name."
        } else {
            "I am sorry, I only need your name."
        };
        self.again(&format!("{sorry} What is it, please?"))
    }

    fn name_known(&mut self, name: String) -> Then {
        let says = format!("Thank you, {name}. What number can we reach you on?");
        self.note.name = Some(name);
        self.ask(State::Number, &says)
    }

    fn hear_number(&mut self, words: &[String]) -> Then {
        const THIS_NUMBER: &[&str] = &[
            "this number",
            "same number",
            "number i am call",
            "number i call",
            "have my number",
            "you have it",
            "this one",
        ];
        const NO_NUMBER: &[&str] = &["no number", "not have", "no phone", "skip", "rather not", "not want"];
        let heard = digits(words);
        let number = format!("{}{heard}", self.note.phone);
        if !heard.is_empty() && number.len() <= MAX_NUMBER_DIGITS {
            self.note.phone = number;
            if self.note.phone.len() < NUMBER_DIGITS {
                return self.again(&format!("I have {}. What is the rest?", grouped(&self.note.phone)));
            }
            let says = format!("I have {}. What shall I tell them?", grouped(&self.note.phone));
            return self.ask(State::Message, &says);
        }
        if said_any(words, THIS_NUMBER) {
            self.note.phone = "the number of this call".into();
            return self.ask(
                State::Message,
                "Good, we will use the number you are calling from. What shall I tell them?",
            );
        }
        if said_any(words, NO_NUMBER) || is_no(words) {
            self.note.phone.clear();
            return self.ask(State::Message, "All right, without a number. What shall I tell them?");
        }
        if let Some(then) = self.answered_meanwhile(words, "And what number can we reach you on?") {
            return then;
        }
        self.misses += 1;
        if self.misses >= ATTEMPTS || !heard.is_empty() {
            self.note.phone = "the number of this call".into();
            return self
                .ask(State::Message, "We will use the number you are calling from. What shall I tell them?");
        }
        self.again("Please tell me the number digit by digit, or say: this number.")
    }

    fn hear_message(&mut self, text: &str, words: &[String]) -> Then {
        let clear = text.replace(UNCLEAR, " ");
        let clear = clear.split_whitespace().collect::<Vec<_>>().join(" ");
        let hesitates = self.misses == 0 && only(words, HESITATIONS);
        if !clear.is_empty() && !hesitates {
            self.note.text = clear;
        } else if self.misses + 1 < ATTEMPTS {
            self.misses += 1;
            return self.again("I am listening. What shall I tell them?");
        } else {
            self.note.text = "Please call back. The message itself could not be understood.".into();
        }
        let name = self.note.name.as_deref().unwrap_or("no name");
        let phone = match self.note.phone.as_str() {
            "" => "no number".to_owned(),
            phone if phone.bytes().all(|b| b.is_ascii_digit()) => grouped(phone),
            phone => phone.to_owned(),
        };
        let says = match words.len() <= READ_BACK_WORDS {
            true => format!(
                "{name}, {phone}, and the message is: {}. Is that right?",
                self.note.text.trim_end_matches('.')
            ),
            false => format!("{name}, {phone}, and I have your message word by word. Is that right?"),
        };
        self.ask(State::Confirm, &says)
    }

    fn keep_message(&mut self) -> Then {
        let thanks =
            self.note.name.as_ref().map_or("Thank you.".to_owned(), |name| format!("Thank you, {name}."));
        self.ask(State::AnythingElse, &format!("{thanks} I have passed that on. Is there anything else?"));
        Then::TakeMessage
    }

    /// A question in the middle of a message is answered, and the message goes on.
    fn answered_meanwhile(&mut self, words: &[String], back: &str) -> Option<Then> {
        let (answer, sure) = self.small_talk(words).or_else(|| self.answer(words, false))?;
        (sure >= SURE).then(|| self.again(&format!("{answer} {back}")))
    }

    // ---- endings of a turn -------------------------------------------------------------------------------------

    fn ask(&mut self, state: State, says: &str) -> Then {
        self.state = state;
        self.misses = 0;
        self.again(says)
    }

    fn tell(&mut self, says: &str) -> Then {
        let state = if says.ends_with("anything else?") { State::AnythingElse } else { State::Open };
        self.ask(state, says)
    }

    fn again(&mut self, says: &str) -> Then {
        says.clone_into(&mut self.says);
        Then::Listen
    }

    fn goodbye(&mut self) -> Then {
        self.ask(State::Open, &format!("Thank you for calling {}. Goodbye.", self.script.business));
        Then::HangUp
    }
}

const GREETINGS: &[&str] =
    &["hello", "hi", "hey", "good", "morning", "afternoon", "evening", "day", "there", "um", "uh", "yes"];

const THANKS: &[&str] = &[
    "thank",
    "thanks",
    "you",
    "so",
    "very",
    "much",
    "a",
    "lot",
    "great",
    "good",
    "perfect",
    "ok",
    "okay",
    "that",
    "is",
    "helpful",
    "wonderful",
    "cool",
    "fine",
    "oh",
    "um",
    "nice",
];

const HESITATIONS: &[&str] =
    &["um", "uh", "well", "ok", "okay", "so", "yes", "hello", "please", "sure", "hm", "hmm", "right"];

const YES: &[&str] = &[
    "yes",
    "yeah",
    "yep",
    "yup",
    "sure",
    "correct",
    "right",
    "exactly",
    "absolutely",
    "definitely",
    "ok",
    "okay",
    "please",
    "of",
    "course",
    "that",
    "is",
    "it",
    "go",
    "ahead",
    "do",
    "fine",
    "perfect",
    "good",
    "thank",
    "thanks",
    "you",
    "i",
    "would",
    "like",
    "um",
    "uh",
    "great",
    "sounds",
    "all",
];

const NO: &[&str] = &[
    "no", "nope", "nah", "not", "thanks", "thank", "you", "that", "is", "all", "it", "wrong", "nothing",
    "else", "i", "am", "good", "fine", "really", "at", "the", "moment", "now", "right", "do", "need", "um",
    "uh", "okay", "ok", "very", "much", "for",
];

fn is_yes(words: &[String]) -> bool {
    const SAID: &[&str] = &[
        "yes",
        "yeah",
        "yep",
        "yup",
        "sure",
        "correct",
        "exactly",
        "right",
        "absolutely",
        "definitely",
        "course",
        "ahead",
        "fine",
        "ok",
        "okay",
        "perfect",
        "please",
    ];
    only(words, YES) && words.iter().any(|word| SAID.contains(&word.as_str()))
}

fn is_no(words: &[String]) -> bool {
    const SAID: &[&str] = &["no", "nope", "nah", "not", "wrong", "nothing"];
    let begins = words.first().is_some_and(|word| word == "no" || word == "nope") && words.len() <= 4;
    begins || only(words, NO) && words.iter().any(|word| SAID.contains(&word.as_str()))
}

fn is_goodbye(words: &[String]) -> bool {
    said_any(
        words,
        &["goodbye", "bye", "good bye", "see you", "hang up", "nice day", "great day", "talk to you later"],
    ) || (only(words, NO) || only(words, THANKS))
        && said_any(words, &["that is all", "that is it", "nothing else"])
}

fn is_cancelled(words: &[String]) -> bool {
    said_any(words, &["never mind", "nevermind", "forget it", "cancel that", "no message", "stop it"])
        || only(words, &["cancel", "stop", "please"])
}

/// Words that are in no name, or only lead up to one.
const NOT_A_NAME: &[&str] = &[
    "a", "am", "and", "are", "at", "call", "calling", "can", "course", "do", "else", "for", "from", "have",
    "hello", "here", "hey", "hi", "how", "i", "in", "is", "it", "leave", "message", "mister", "mr", "mrs",
    "ms", "my", "name", "no", "not", "of", "ok", "okay", "on", "open", "please", "speaking", "sure",
    "thanks", "thank", "that", "the", "this", "to", "uh", "um", "want", "we", "well", "what", "when",
    "where", "who", "why", "with", "would", "yeah", "yes", "you", "your", "unclear", "sorry", "about",
    "calling", "back", "again", "number", "phone", "know", "tell", "could",
];

/// A name after words that announce one, up to the next word that is none.
fn name_after(words: &[String], leads: &[&str]) -> Option<String> {
    leads.iter().find_map(|lead| {
        let lead: Vec<&str> = lead.split(' ').collect();
        let at = words
            .windows(lead.len())
            .position(|window| window.iter().map(String::as_str).eq(lead.iter().copied()))?;
        let rest = words[at + lead.len()..].iter();
        let name: Vec<&String> = rest.take_while(|word| is_name(word)).take(3).collect();
        spoken_name(&name)
    })
}

/// A name that was said alone, but for a few words of politeness.
fn name_in(words: &[String]) -> Option<String> {
    const AROUND: usize = 4;
    let name: Vec<&String> = words.iter().filter(|word| is_name(word)).collect();
    let politeness = words.iter().all(|word| is_name(word) || POLITE.contains(&word.as_str()));
    (politeness && name.len() <= 3 && words.len() <= name.len() + AROUND)
        .then(|| spoken_name(&name))
        .flatten()
}

const POLITE: &[&str] = &[
    "um", "uh", "yes", "hi", "hello", "please", "ok", "okay", "sure", "well", "here", "speaking", "calling",
    "of", "course", "the", "name", "mr", "mrs", "ms", "thanks", "thank", "you", "it", "is",
];

fn is_name(word: &str) -> bool {
    !NOT_A_NAME.contains(&word) && word.chars().all(char::is_alphabetic)
}

fn spoken_name(words: &[&String]) -> Option<String> {
    let capital = |word: &&String| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>())
    };
    let name: Vec<String> = words.iter().filter_map(capital).collect();
    (!name.is_empty()).then(|| name.join(" "))
}

/// A number in the groups in which it is read out.
fn grouped(number: &str) -> String {
    let (country, rest) = match number.len() {
        11.. => number.split_at(number.len() - 10),
        _ => ("", number),
    };
    let (front, tail) = rest.split_at(rest.len().saturating_sub(4));
    let mut groups: Vec<String> = vec![];
    groups.extend((!country.is_empty()).then(|| country.to_owned()));
    groups.extend(front.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned()));
    groups.push(tail.to_owned());
    groups.join(" ")
}

fn without_empty(mut arguments: serde_json::Value) -> String {
    if let Some(object) = arguments.as_object_mut() {
        object.retain(|_, value| !value.is_null() && value != "");
    }
    arguments.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(caller: &[&str], expected: Expect) {
        expected.assert_eq(&talk("Today is Saturday, 2026-11-21.", &["end_call", "take_message"], caller));
    }

    /// A whole conversation, as lines of a transcript.
    fn talk(now: &str, tools: &[&str], caller: &[&str]) -> String {
        let instructions = format!("{now}\n```toml\n{}\n```", super::super::RECEPTIONIST);
        let mut messages = vec![ChatMessage::System { text: instructions }];
        let tools: Vec<_> = tools.iter().map(|name| tool(name)).collect();
        let mut transcript = String::new();
        for said in caller {
            transcript.push_str(&format!("caller: {said}\n"));
            messages.push(ChatMessage::User { text: (*said).into() });
            loop {
                let reply = reply(&messages, &tools);
                assert_eq!(reply, super::reply(&messages, &tools), "the same again");
                if !reply.text.is_empty() {
                    transcript.push_str(&format!("agent: {}\n", reply.text));
                }
                messages.push(ChatMessage::Agent { text: reply.text, tools: reply.tools.clone() });
                let Some(used) = reply.tools.first() else { break };
                transcript.push_str(&format!("  {} {}\n", used.name, used.arguments));
                if used.name == "end_call" {
                    return transcript;
                }
                messages
                    .push(ChatMessage::Tool { id: used.id.clone(), text: "ok, the message is kept".into() });
            }
        }
        transcript
    }

    fn tool(name: &str) -> ToolSpec {
        ToolSpec { name: name.into(), description: String::new(), parameters: "{}".into() }
    }

    #[test]
    fn a_caller_asks_leaves_a_message_and_hangs_up() {
        check(
            &[
                "Hi, um, are you open on Sunday?",
                "and what time do you close today",
                "ok where are you located",
                "How much is a haircut?",
                "can I speak to somebody please",
                "yes please",
                "my name is anna miller",
                "four one five",
                "five five five oh one two three",
                "I would like to come on Tuesday afternoon, if that is possible.",
                "yes that is right",
                "no thanks, bye",
            ],
            expect![[r#"
                caller: Hi, um, are you open on Sunday?
                agent: On Sunday we are closed. We open again on Tuesday at 9 am. Is there anything else?
                caller: and what time do you close today
                agent: Today we close at 4 pm.
                caller: ok where are you located
                agent: We are at 12 Willow Street, next to the library.
                caller: How much is a haircut?
                agent: A haircut is 45 dollars, and 30 dollars for children. Coloring starts at 80 dollars.
                caller: can I speak to somebody please
                agent: Nobody is free at the moment. Shall I take a message?
                caller: yes please
                agent: I will take a message. What is your name?
                caller: my name is anna miller
                agent: Thank you, Anna Miller. What number can we reach you on?
                caller: four one five
                agent: I have 415. What is the rest?
                caller: five five five oh one two three
                agent: I have 415 555 0123. What shall I tell them?
                caller: I would like to come on Tuesday afternoon, if that is possible.
                agent: Anna Miller, 415 555 0123, and the message is: I would like to come on Tuesday afternoon, if that is possible. Is that right?
                caller: yes that is right
                  take_message {"message":"I would like to come on Tuesday afternoon, if that is possible.","name":"Anna Miller","phone":"4155550123"}
                agent: Thank you, Anna Miller. I have passed that on. Is there anything else?
                caller: no thanks, bye
                agent: Thank you for calling Willow Hair Salon. Goodbye.
                  end_call {}
            "#]],
        );
    }

    #[test]
    fn questions_are_known_in_other_words() {
        let asked = |question: &str| {
            let told = talk("", &["take_message"], &[question]);
            told.lines().nth(1).unwrap_or_default().to_owned()
        };
        for (question, answer) in [
            ("what's the price for a trim", "A haircut is 45 dollars"),
            ("How much would that cost me?", "A haircut is 45 dollars"),
            ("do you accept visa or mastercard", "We take cash and all cards"),
            ("Where can I leave my car, is there a garage nearby", "free parking"),
            ("could you give me directions to your shop", "12 Willow Street"),
            ("i need to reschedule my apointment", "take a message"),
            ("do I need a booking or can I just walk in", "You can walk in"),
            ("can i bring my kids", "children are welcome"),
            ("until when are you open on thursdays", "we close at 8 pm"),
            ("what are your hours", "We are open Tuesday"),
            ("is this a recording?", "automatic receptionist"),
            ("am i talking to a machine", "automatic receptionist"),
            ("hello", "How can I help you"),
            ("good morning", "How can I help you"),
            ("please have Tom call me back", "What is your name"),
            ("hello this is maria lopez can i leave a message", "Thank you, Maria Lopez"),
            ("I want to talk to a human being", "Nobody is free"),
            (
                "the quick brown fox jumps over the lazy dog",
                "Sorry, I did not understand that. You can ask about",
            ),
            ("[unclear]", "Sorry, I did not catch that. You can ask about"),
            ("", "Sorry, I did not understand that."),
            ("\u{4f60}\u{597d}", "Sorry, I did not understand that."),
        ] {
            assert!(asked(question).contains(answer), "{question}: {}", asked(question));
        }
    }

    #[test]
    fn a_question_in_the_middle_of_a_message_is_answered() {
        check(
            &[
                "take a message",
                "when do you close today?",
                "it's bob",
                "is there parking",
                "you have my number",
                "call me",
                "yes",
            ],
            expect![[r#"
                caller: take a message
                agent: I will take a message. What is your name?
                caller: when do you close today?
                agent: Today we close at 4 pm. And what is your name?
                caller: it's bob
                agent: Thank you, Bob. What number can we reach you on?
                caller: is there parking
                agent: There is free parking behind the building. And what number can we reach you on?
                caller: you have my number
                agent: Good, we will use the number you are calling from. What shall I tell them?
                caller: call me
                agent: Bob, the number of this call, and the message is: call me. Is that right?
                caller: yes
                  take_message {"message":"call me","name":"Bob","phone":"the number of this call"}
                agent: Thank you, Bob. I have passed that on. Is there anything else?
            "#]],
        );
    }

    #[test]
    fn misunderstandings_end_in_an_offer() {
        check(
            &[
                "[unclear]",
                "blah blah",
                "yes",
                "[unclear]",
                "[unclear]",
                "hmm purple",
                "what",
                "[unclear]",
                "[unclear]",
                "no",
                "never mind",
                "repeat that",
                "goodbye",
            ],
            expect![[r#"
                caller: [unclear]
                agent: Sorry, I did not catch that. You can ask about our opening hours, our address, parking, prices, or leave a message.
                caller: blah blah
                agent: Sorry, I did not understand that. Shall I take a message, so that somebody calls you back?
                caller: yes
                agent: I will take a message. What is your name?
                caller: [unclear]
                agent: I did not catch your name. What is it, please?
                caller: [unclear]
                agent: Let us go on without a name. What number can we reach you on?
                caller: hmm purple
                agent: Please tell me the number digit by digit, or say: this number.
                caller: what
                agent: We will use the number you are calling from. What shall I tell them?
                caller: [unclear]
                agent: I am listening. What shall I tell them?
                caller: [unclear]
                agent: no name, the number of this call, and the message is: Please call back. The message itself could not be understood. Is that right?
                caller: no
                agent: Then let us start again. What is your name?
                caller: never mind
                agent: All right, no message. Is there anything else?
                caller: repeat that
                agent: All right, no message. Is there anything else?
                caller: goodbye
                agent: Thank you for calling Willow Hair Salon. Goodbye.
                  end_call {}
            "#]],
        );
    }

    #[test]
    fn what_was_not_heard_is_not_held_against_the_caller() {
        let mut messages =
            vec![ChatMessage::System { text: format!("```toml\n{}```", super::super::RECEPTIONIST) }];
        for text in ["are you open", "on Sunday"] {
            messages.push(ChatMessage::User { text: text.into() });
        }
        assert!(reply(&messages, &[]).text.starts_with("On Sunday we are closed."));
        messages.push(ChatMessage::Agent { text: "On Sun".into(), tools: vec![] });
        messages.push(ChatMessage::User { text: "sorry can you repeat that".into() });
        assert!(reply(&messages, &[]).text.starts_with("On Sunday we are closed."));
    }

    #[test]
    fn without_a_script_or_tools_the_receptionist_is_honest() {
        let asked = |instructions: &str, text: &str| {
            let messages =
                [ChatMessage::System { text: instructions.into() }, ChatMessage::User { text: text.into() }];
            reply(&messages, &[]).text
        };
        assert_eq!(
            asked("Be brief.", "are you open today"),
            "I do not know the opening hours. Is there anything else?"
        );
        assert_eq!(asked("```toml\nbroken", "bye"), "Thank you for calling this office. Goodbye.");
        assert!(asked("", "can I leave a message").starts_with("I am sorry, I cannot take messages"));
        assert_eq!(
            reply(&[], &[]).text,
            "Hello, this is the automatic receptionist of this office. How can I help you?"
        );
    }

    #[test]
    fn a_message_that_was_not_kept_is_not_promised() {
        let used =
            ToolRequest { id: "offline-9".into(), name: "take_message".into(), arguments: "{}".into() };
        let messages = [
            ChatMessage::User { text: "yes".into() },
            ChatMessage::Agent { text: String::new(), tools: vec![used] },
            ChatMessage::Tool { id: "offline-9".into(), text: "error: the store is full".into() },
        ];
        assert_eq!(
            reply(&messages, &[tool("take_message")]).text,
            "I am sorry, I could not keep your message. Please call again later."
        );
    }
}
