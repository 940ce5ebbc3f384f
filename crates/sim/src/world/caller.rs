//! The simulated caller: waits, talks, talks over the agent, hums, coughs, pauses, presses keys, says goodbye, hangs up. They
//! know what they hear and nothing else.

use super::scene::Word;
use super::{Event, Fact, World, words};
use offhook_core::call::{CallTime, Input};

/// What the caller has in mind.
#[derive(Debug)]
pub(super) struct Caller {
    turns: u32,
    /// What was planned before the agent last began to be heard is off.
    mood: u32,
    names: usize,
    leaves: bool,
}

/// Something that the caller is about to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// Takes the floor, if it is free.
    Reply {
        mood: u32,
    },
    /// Has waited long enough.
    Wonder {
        mood: u32,
    },
    Interrupt {
        mood: u32,
    },
    /// Has listened for too long.
    Tire {
        mood: u32,
    },
    Hum {
        mood: u32,
    },
    Cough,
    Background,
    Blip,
    Press {
        left: u32,
    },
    FallSilent,
    HangUp,
}

impl Caller {
    pub(super) fn new(turns: u32, first_name: usize) -> Self {
        Caller { turns, mood: 0, names: first_name, leaves: false }
    }
}

impl World<'_> {
    pub(super) fn caller_is_connected(&mut self) {
        let patience_ms = if self.scene.options.plan.greeting == super::options::GreetingKind::Silent {
            self.dice.between(300, 3_000)
        } else {
            self.dice.between(5_000, 11_000)
        };
        let mood = self.caller.mood;
        self.plan_act(patience_ms, Act::Wonder { mood });
        let background_ms = self.scene.options.caller.background.at_ms;
        if background_ms > 0 {
            self.plan_act(background_ms, Act::Background);
        }
        if self.scene.options.caller.coughs > 0 {
            let ms = self.dice.between(100, 10_000);
            self.plan_act(ms, Act::Cough);
        }
    }

    pub(super) fn agent_became_audible(&mut self) {
        self.caller.mood += 1;
        let mood = self.caller.mood;
        let o = &self.scene.options;
        let (delay_ms, blips) = (o.line.down_ms, o.hearing.blips);
        let habits = &o.caller;
        let (interrupts, hums, stays) = (habits.interrupts, habits.backchannels, habits.stays);
        let takes_leave = self.scene.audible.is_some_and(|at| {
            let text = &self.scene.speeches[at].text;
            text.contains("oodbye") || text.contains("nice day")
        });
        if takes_leave && self.dice.happens(stays) || self.dice.happens(interrupts) {
            let ms = delay_ms + self.dice.between(50, 3_000);
            self.plan_act(ms, Act::Interrupt { mood });
        }
        let ms = self.dice.between(15_000, 40_000);
        self.plan_act(ms, Act::Tire { mood });
        if self.dice.happens(hums) {
            let ms = delay_ms + self.dice.between(200, 2_500);
            self.plan_act(ms, Act::Hum { mood });
        }
        if self.fault(blips) {
            let ms = delay_ms + self.dice.between(20, 1_500);
            self.plan_act(ms, Act::Blip);
        }
    }

    pub(super) fn agent_fell_silent(&mut self) {
        let ms = self.scene.options.line.down_ms + self.dice.between(250, 1_500);
        let mood = self.caller.mood;
        self.plan_act(ms, Act::Reply { mood });
    }

    /// Something sounds near the phone, whether anybody talks or not.
    fn background_sounds(&mut self) {
        let background = self.scene.options.caller.background;
        self.noise(background.lasts_ms);
        self.plan_act(background.lasts_ms + background.pause_ms, Act::Background);
    }

    fn plan_act(&mut self, ms: u32, act: Act) {
        self.agenda.plan(self.scene.now.plus_ms(ms), Event::Caller(act));
    }

    pub(super) fn caller_acts(&mut self, act: Act) {
        if self.scene.over_at.is_some() {
            return;
        }
        let free = !self.scene.caller_talks && self.scene.audible.is_none();
        let now_mood = self.caller.mood;
        match act {
            Act::Reply { mood } if mood == now_mood && free => self.take_turn(),
            Act::Wonder { mood } if mood == now_mood && free => self.wonder(),
            Act::Interrupt { mood } if mood == now_mood && !self.scene.caller_talks => {
                self.tell(|_| "the caller interrupts".into());
                self.caller.turns = self.caller.turns.saturating_sub(1);
                self.caller.leaves = false;
                let presses = self.scene.options.caller.presses;
                if self.dice.happens(presses) {
                    let left = self.dice.between(1, 3);
                    self.press(left);
                } else {
                    self.say_sentence();
                }
            }
            Act::Tire { mood } if mood == now_mood && !free && !self.scene.caller_talks => {
                self.say_sentence()
            }
            Act::Hum { mood } if mood == now_mood && !self.scene.caller_talks => {
                let hum = *self.dice.pick(words::HUMS);
                self.say(hum);
            }
            Act::Cough => {
                let ms = if self.dice.happens(100) {
                    self.dice.between(2_000, 6_000)
                } else {
                    self.dice.between(60, 900)
                };
                self.noise(ms);
                let (again_ms, ghosts) =
                    (self.dice.between(3_000, 20_000), self.scene.options.hearing.ghosts);
                if self.fault(ghosts) {
                    let name = self.next_name();
                    self.stt_ghost(name);
                }
                if self.dice.happens(self.scene.options.caller.coughs) {
                    self.plan_act(again_ms, Act::Cough);
                }
            }
            Act::Background => self.background_sounds(),
            Act::Blip => {
                let ms = self.dice.between(50, 180);
                self.noise(ms);
            }
            Act::Press { left } => self.press(left),
            Act::FallSilent => {
                self.scene.caller_talks = false;
                self.scene.caller_stopped_at = self.scene.now;
                let (mood, ms) = (self.caller.mood, self.dice.between(6_000, 14_000));
                self.plan_act(ms, Act::Wonder { mood });
            }
            Act::HangUp => self.caller_hangs_up(),
            Act::Reply { .. }
            | Act::Wonder { .. }
            | Act::Interrupt { .. }
            | Act::Tire { .. }
            | Act::Hum { .. } => {}
        }
    }

    /// Nothing is heard for a long time.
    fn wonder(&mut self) {
        if self.caller.turns == 0 && self.caller.leaves {
            self.caller_hangs_up();
        } else {
            self.take_turn();
        }
    }

    fn take_turn(&mut self) {
        let habits = &self.scene.options.caller;
        let (presses, goodbye) = (habits.presses, habits.goodbye);
        if self.caller.turns > 0 {
            self.caller.turns -= 1;
            if self.dice.happens(presses) {
                let left = self.dice.between(1, 7);
                self.press(left);
            } else {
                self.say_sentence();
            }
        } else if !self.caller.leaves {
            self.caller.leaves = true;
            if self.dice.happens(goodbye) {
                let farewell = *self.dice.pick(words::FAREWELLS);
                self.say(farewell);
            } else if self.dice.happens(700) {
                let ms = self.dice.between(200, 2_000);
                self.plan_act(ms, Act::HangUp);
            }
        }
    }

    fn press(&mut self, left: u32) {
        let digit = if left == 1 && self.dice.happens(400) {
            '#'
        } else {
            *self.dice.pick(&['0', '1', '5', '9', '*'])
        };
        if self.scene.media {
            self.scene.keys.push(digit);
            self.deliver(Fact::Carrier, Input::Dtmf { digit });
        }
        if left > 1 {
            let ms = self.dice.between(80, 700);
            self.plan_act(ms, Act::Press { left: left - 1 });
        }
    }

    fn noise(&mut self, ms: u32) {
        self.tell(|_| format!("a noise of {ms} ms"));
        self.sound_begins();
        self.agenda.plan(self.scene.now.plus_ms(ms), Event::SoundEnds);
    }

    fn next_name(&mut self) -> String {
        self.caller.names += 1;
        words::name(self.caller.names)
    }

    fn say_sentence(&mut self) {
        let habits = &self.scene.options.caller;
        let kind = if self.dice.happens(habits.dictates) { words::DICTATIONS } else { words::SENTENCES };
        let sentence = *self.dice.pick(kind);
        self.say(sentence);
    }

    fn say(&mut self, sentence: &str) {
        if self.scene.caller_talks {
            return;
        }
        let pauses = self.scene.options.caller.pauses;
        let first = self.scene.words.len();
        let soft = self.scene.options.hearing.missed;
        let loud = !self.fault(soft);
        let mut at = self.scene.now;
        let mut sound_from = at;
        for token in sentence.split(' ') {
            if token == "|" {
                if self.dice.happens(pauses) {
                    self.plan_sound(sound_from, at, loud);
                    at = at.plus_ms(self.dice.between(200, 2_600));
                    sound_from = at;
                }
                continue;
            }
            let text = match token.strip_prefix('#') {
                Some(ending) => self.next_name() + ending,
                None => token.to_string(),
            };
            let start = at;
            at = at.plus_ms(70 + 55 * text.len() as u32);
            self.scene.words.push(Word { text, start, end: at });
        }
        self.plan_sound(sound_from, at, loud);
        self.scene.caller_talks = true;
        self.agenda.plan(at, Event::Caller(Act::FallSilent));
        self.tell(|w| {
            let said: Vec<&str> = w.scene.words[first..].iter().map(|word| word.text.as_str()).collect();
            format!("caller: {}{}", said.join(" "), if loud { "" } else { " (softly)" })
        });
        self.plan_hearing(first);
    }

    fn plan_sound(&mut self, from: CallTime, to: CallTime, loud: bool) {
        if loud && to > from {
            self.agenda.plan(from, Event::SoundBegins);
            self.agenda.plan(to, Event::SoundEnds);
        }
    }
}
