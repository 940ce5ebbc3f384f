//! What may be recorded, and when: a call where the agent's settings say so and, if it is announced, the announcement was
//! heard; a message from its tone on; nothing at all where nothing may be kept.

use super::{Call, Command, Opening, Out, Purpose, Recording, Then};
use serde::{Deserialize, Serialize};

/// The state of the recording.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tape {
    /// The call is to be recorded, and the caller has been told where they must be.
    agreed: bool,
    /// Something is being said that must not be kept.
    paused: bool,
    /// A message is being left.
    message: bool,
    /// It was ordered to run.
    running: bool,
}

impl Tape {
    /// The call is recorded, or is when it is no more paused: its audio must stay with us.
    pub(super) fn may_run(self) -> bool {
        self.agreed
    }

    /// What is keyed in now must not be kept.
    pub(super) fn is_paused(self) -> bool {
        self.paused
    }
}

impl Call {
    /// The call begins: says that it is recorded, where it must be said.
    pub(super) fn announce_recording(&mut self, out: &mut Out) {
        if let Recording::Announced(text) = self.plan.recording.clone()
            && self.records_call()
        {
            self.say(Purpose::Announcement, Then::Record, &text, out);
        }
    }

    /// Media flows for the first time.
    pub(super) fn record_from_the_start(&mut self, out: &mut Out) {
        if self.plan.recording == Recording::On && self.records_call() {
            self.tape.agreed = true;
            self.run_tape(out);
        }
    }

    /// The caller has heard the announcement to its end.
    pub(super) fn announced(&mut self, out: &mut Out) {
        self.tape.agreed = true;
        self.run_tape(out);
    }

    /// A message begins or ends.
    pub(super) fn tape_message(&mut self, begins: bool, out: &mut Out) {
        self.tape.message = begins;
        // Whatever was not to be kept before, the message is.
        self.tape.paused &= !begins;
        self.run_tape(out);
    }

    /// Stops and goes on recording; says what came of it, in words for the model.
    pub(super) fn pause_recording(&mut self, on: bool, out: &mut Out) -> &'static str {
        self.tape.paused = !on;
        self.run_tape(out);
        match (self.tape.agreed, on) {
            (true, true) => "ok: the call is recorded",
            (true, false) => "ok: nothing is recorded",
            (false, _) => "ok: this call is not recorded anyway",
        }
    }

    /// The tool by which the agent does so.
    pub(super) fn recording_wanted(&mut self, arguments: &str, out: &mut Out) -> String {
        #[derive(Deserialize)]
        struct Arguments {
            on: bool,
        }
        match serde_json::from_str(arguments) {
            Ok(Arguments { on }) => self.pause_recording(on, out).into(),
            Err(_) => "error: `on` is missing; it is true or false".into(),
        }
    }

    /// After a node died: the recorder of this one has not begun.
    pub(super) fn record_again(&mut self, out: &mut Out) {
        self.tape.running = false;
        self.run_tape(out);
    }

    fn run_tape(&mut self, out: &mut Out) {
        let tape = &mut self.tape;
        let allowed = self.plan.recording != Recording::Never;
        let on = allowed && (tape.agreed || tape.message) && !tape.paused;
        if std::mem::replace(&mut tape.running, on) != on {
            out.push(Command::Record { on });
        }
    }

    /// A message that is all the call is for is recorded by itself, and a sentence that is played to everybody is not.
    fn records_call(&self) -> bool {
        !matches!(self.plan.opening, Opening::Voicemail | Opening::Message(_))
    }
}
