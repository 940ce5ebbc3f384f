//! What of each reply's audio has gone to the carrier and what has come back as played. Pure: it does not know the socket,
//! the carrier's words or what is said.

use offhook_core::call::ReplyId;
use offhook_media::coding::Coding;
use std::collections::VecDeque;

/// A mark is set after so much audio: often enough to know what was heard, seldom enough to cost nothing.
/// No message to the carrier holds more, but for a piece that would be too short.
const MARK_EVERY_MS: usize = 400;
/// No piece of audio that goes to the carrier is shorter, but the end of a reply: some carriers fill up what is with silence.
const PIECE_MS: usize = 20;
/// Audio kept of one reply at most: ten minutes. More is a voice gone mad.
const MAX_REPLY_MS: usize = 600_000;
/// Audio that is known to be played is given back when it is at least this much.
const TRIM_MS: usize = 4_000;

/// The next thing to send to the carrier.
#[derive(Debug, PartialEq, Eq)]
pub enum Outgoing<'a> {
    /// Audio.
    Audio(&'a [u8]),
    /// A mark, to come back when everything before it has been played.
    Mark(Mark),
}

/// "So much of this reply has been played."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Grows with every `clear`: marks of an older epoch come back although nothing was played.
    epoch: u32,
    /// Which reply.
    pub reply: ReplyId,
    /// Milliseconds of its audio.
    pub ms: u32,
    /// It is the end.
    pub done: bool,
}

impl Mark {
    /// The mark's name at the carrier.
    pub fn name(self) -> String {
        let end = if self.done { "!" } else { "" };
        format!("{}.{}.{}{end}", self.epoch, self.reply.0, self.ms)
    }

    /// Reads a name that came back; `None` if it is not one of ours.
    pub fn read(name: &str) -> Option<Mark> {
        let (name, done) = name.strip_suffix('!').map_or((name, false), |n| (n, true));
        let mut parts = name.splitn(3, '.');
        let mut number = || parts.next()?.parse::<u32>().ok();
        Some(Mark { epoch: number()?, reply: ReplyId(number()?), ms: number()?, done })
    }
}

/// The audio of one reply.
#[derive(Debug)]
struct ReplyAudio {
    id: ReplyId,
    /// Audio from byte `trimmed` on.
    audio: Vec<u8>,
    trimmed: usize,
    /// No more will come.
    complete: bool,
    /// It may be played.
    playing: bool,
    /// Bytes that went to the carrier.
    sent: usize,
    /// Where the last mark was set; `None`: not even the one at the beginning.
    marked: Option<usize>,
    end_marked: bool,
    played_ms: u32,
}

impl ReplyAudio {
    fn len(&self) -> usize {
        self.trimmed + self.audio.len()
    }
}

/// Everything that is or will be played, in the coding of the call.
#[derive(Debug)]
pub struct Playout {
    bytes_per_ms: usize,
    epoch: u32,
    paused: bool,
    replies: VecDeque<ReplyAudio>,
}

impl Playout {
    /// Nothing to play yet.
    pub fn new(coding: Coding) -> Self {
        Playout { bytes_per_ms: coding.bytes_per_ms(), epoch: 0, paused: false, replies: VecDeque::new() }
    }

    fn reply(&mut self, id: ReplyId) -> Option<&mut ReplyAudio> {
        self.replies.iter_mut().find(|r| r.id == id)
    }

    /// Makes room for a reply, silent until [`Playout::play`].
    pub fn begin(&mut self, id: ReplyId) {
        if self.reply(id).is_none() {
            self.replies.push_back(ReplyAudio {
                id,
                audio: Vec::new(),
                trimmed: 0,
                complete: false,
                playing: false,
                sent: 0,
                marked: None,
                end_marked: false,
                played_ms: 0,
            });
        }
    }

    /// Adds audio of a reply; returns how much of it there is in ms, or `None` if the reply is no more.
    pub fn audio(&mut self, id: ReplyId, coded: &[u8]) -> Option<u32> {
        let bytes_per_ms = self.bytes_per_ms;
        let reply = self.reply(id)?;
        let room = (MAX_REPLY_MS * bytes_per_ms).saturating_sub(reply.len());
        reply.audio.extend_from_slice(&coded[..coded.len().min(room)]);
        Some((reply.len() / bytes_per_ms) as u32)
    }

    /// A reply's audio is all there; returns its length in ms.
    pub fn complete(&mut self, id: ReplyId) -> Option<u32> {
        let bytes_per_ms = self.bytes_per_ms;
        let reply = self.reply(id)?;
        reply.complete = true;
        Some((reply.len() / bytes_per_ms) as u32)
    }

    /// Lets a reply be heard, after those before it.
    pub fn play(&mut self, id: ReplyId) {
        let Some(index) = self.replies.iter().position(|r| r.id == id && !r.playing) else { return };
        let Some(mut reply) = self.replies.remove(index) else { return };
        reply.playing = true;
        let place = self.replies.iter().position(|r| !r.playing).unwrap_or(self.replies.len());
        self.replies.insert(place, reply);
    }

    /// Falls silent; says whether the carrier holds audio that must be cleared.
    pub fn pause(&mut self) -> bool {
        self.paused = true;
        self.clear()
    }

    /// Forgets what the carrier was sent and has not played; says whether there was any.
    fn clear(&mut self) -> bool {
        self.epoch += 1;
        self.replies.iter().any(|r| r.playing && r.sent > 0)
    }

    /// Goes on with a reply from a moment of its audio.
    pub fn resume(&mut self, id: ReplyId, from_ms: u32) {
        self.paused = false;
        let from = from_ms as usize * self.bytes_per_ms;
        if let Some(reply) = self.reply(id) {
            let from = from.clamp(reply.trimmed, reply.len());
            reply.rewind(from);
        }
    }

    /// Drops a reply; says whether the carrier holds audio that must be cleared.
    pub fn cancel(&mut self, id: ReplyId) -> bool {
        let Some(index) = self.replies.iter().position(|r| r.id == id) else { return false };
        let heard = self.replies.remove(index).is_some_and(|r| r.playing && r.sent > 0);
        if self.replies.iter().all(|r| !r.playing) {
            self.paused = false;
        }
        if !heard {
            return false;
        }
        self.epoch += 1;
        // Clearing drops the audio of the others too: they go on from what is known to have been played.
        for reply in self.replies.iter_mut().filter(|r| r.playing && r.sent > 0) {
            let from = (reply.played_ms as usize * self.bytes_per_ms).clamp(reply.trimmed, reply.len());
            reply.rewind(from);
        }
        true
    }

    /// Drops every reply; says whether the carrier holds audio that must be cleared.
    pub fn cancel_all(&mut self) -> bool {
        self.paused = false;
        let heard = self.clear();
        self.replies.clear();
        heard
    }

    /// The media socket is a new one: nothing that was sent before will be played or reported.
    pub fn reconnected(&mut self) {
        self.epoch += 1;
        self.paused = self.replies.iter().any(|r| r.playing && r.sent > 0);
    }

    /// A mark came back; `None` if it says nothing any more.
    pub fn marked(&mut self, mark: Mark) -> Option<Mark> {
        if mark.epoch != self.epoch || self.paused {
            return None;
        }
        let bytes_per_ms = self.bytes_per_ms;
        let reply = self.reply(mark.reply)?;
        // More than was sent cannot have been played, whatever a mark says that we did not send.
        let played = (mark.ms as usize * bytes_per_ms).min(reply.sent);
        let mark = Mark { ms: (played / bytes_per_ms) as u32, ..mark };
        reply.played_ms = mark.ms;
        if mark.done {
            self.replies.retain(|r| r.id != mark.reply);
        } else if played >= reply.trimmed + TRIM_MS * bytes_per_ms {
            reply.audio.drain(..played - reply.trimmed);
            reply.trimmed = played;
        }
        Some(mark)
    }

    /// The next thing to send; `None`: nothing for now.
    pub fn next(&mut self) -> Option<Outgoing<'_>> {
        if self.paused {
            return None;
        }
        let (epoch, bytes_per_ms) = (self.epoch, self.bytes_per_ms);
        let index = self.replies.iter().position(|r| r.playing && !r.end_marked)?;
        let reply = &mut self.replies[index];
        let mark = |reply: &ReplyAudio, done| {
            let ms = (reply.sent / bytes_per_ms) as u32;
            Some(Outgoing::Mark(Mark { epoch, reply: reply.id, ms, done }))
        };
        let left = reply.len() - reply.sent;
        match reply.marked {
            _ if left == 0 && reply.complete => {
                reply.end_marked = true;
                reply.marked = Some(reply.sent);
                mark(reply, true)
            }
            _ if left == 0 => None,
            // What is too short for a piece waits for more.
            _ if left < PIECE_MS * bytes_per_ms && !reply.complete => None,
            None => {
                reply.marked = Some(reply.sent);
                mark(reply, false)
            }
            Some(marked) if reply.sent >= marked + MARK_EVERY_MS * bytes_per_ms => {
                reply.marked = Some(reply.sent);
                mark(reply, false)
            }
            Some(marked) => {
                let to_mark = marked + MARK_EVERY_MS * bytes_per_ms - reply.sent;
                let start = reply.sent - reply.trimmed;
                let length = left.min(to_mark.max(PIECE_MS * bytes_per_ms));
                reply.sent += length;
                Some(Outgoing::Audio(&reply.audio[start..start + length]))
            }
        }
    }

    /// The audio of a reply from byte `at` on, `length` bytes at most.
    pub fn heard_at(&self, id: ReplyId, at: usize, length: usize) -> &[u8] {
        let Some(reply) = self.replies.iter().find(|r| r.id == id) else { return &[] };
        let start = at.saturating_sub(reply.trimmed).min(reply.audio.len());
        &reply.audio[start..(start + length).min(reply.audio.len())]
    }
}

impl ReplyAudio {
    fn rewind(&mut self, to: usize) {
        self.sent = to;
        self.marked = None;
        self.end_marked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplyId = ReplyId(1);
    const B: ReplyId = ReplyId(2);

    /// Everything there is to send, as a word each: `a800` for audio, the name for a mark.
    fn drain(playout: &mut Playout) -> String {
        let mut out = Vec::new();
        while let Some(next) = playout.next() {
            out.push(match next {
                Outgoing::Audio(audio) => format!("a{}", audio.len()),
                Outgoing::Mark(mark) => mark.name(),
            });
        }
        out.join(" ")
    }

    fn playing(replies: &[(ReplyId, usize)]) -> Playout {
        let mut playout = Playout::new(Coding::MU_LAW);
        for (id, bytes) in replies {
            playout.begin(*id);
            playout.audio(*id, &vec![7; *bytes]);
            playout.complete(*id);
            playout.play(*id);
        }
        playout
    }

    #[test]
    fn audio_goes_out_between_marks_in_the_order_of_play() {
        let mut playout = Playout::new(Coding::MU_LAW);
        playout.begin(A);
        playout.begin(B);
        playout.audio(A, &[7; 800]);
        assert_eq!(drain(&mut playout), "", "nothing before the order to play");
        playout.play(B);
        playout.play(A);
        playout.audio(B, &[7; 4_000]);
        assert_eq!(drain(&mut playout), "0.2.0 a3200 0.2.400 a800");
        playout.complete(B);
        assert_eq!(drain(&mut playout), "0.2.500! 0.1.0 a800");
    }

    #[test]
    fn no_piece_is_too_short_but_the_last() {
        let mut playout = Playout::new(Coding::MU_LAW);
        playout.begin(A);
        playout.play(A);
        let mut sent = Vec::new();
        let mut add = |playout: &mut Playout, bytes: usize| {
            playout.audio(A, &vec![7; bytes]);
            sent.push(drain(playout));
        };
        for bytes in [100, 100, 2_900, 60, 140, 3_300] {
            add(&mut playout, bytes);
        }
        playout.complete(A);
        add(&mut playout, 0);
        assert_eq!(sent, ["", "0.1.0 a200", "a2900", "", "a160", "0.1.407 a3200", "0.1.807 a140 0.1.825!"]);
    }

    #[test]
    fn a_pause_goes_on_from_where_it_was_heard() {
        let mut playout = playing(&[(A, 4_000)]);
        drain(&mut playout);
        assert!(playout.pause());
        assert_eq!(drain(&mut playout), "");
        let old = Mark::read("0.1.400").unwrap();
        assert_eq!(playout.marked(old), None, "marks of cleared audio mean nothing");
        playout.resume(A, 100);
        assert_eq!(drain(&mut playout), "1.1.100 a3200 1.1.500!");
        assert_eq!(playout.marked(Mark::read("1.1.500!").unwrap()).map(|m| m.done), Some(true));
        assert_eq!(playout.next(), None);
    }

    #[test]
    fn cancelling_one_reply_does_not_lose_another() {
        let mut playout = playing(&[(A, 1_600), (B, 1_600)]);
        drain(&mut playout);
        playout.marked(Mark::read("0.1.0").unwrap());
        assert!(playout.cancel(B));
        assert_eq!(drain(&mut playout), "1.1.0 a1600 1.1.200!");
        assert!(playout.cancel(A));
        assert!(!playout.cancel(A));
        assert_eq!(playout.audio(A, &[1]), None, "late audio of a dropped reply");
    }

    #[test]
    fn a_new_socket_waits_for_the_order_to_go_on() {
        let mut playout = playing(&[(A, 1_600)]);
        drain(&mut playout);
        playout.reconnected();
        assert_eq!(drain(&mut playout), "");
        playout.resume(A, 150);
        assert_eq!(drain(&mut playout), "1.1.150 a400 1.1.200!");
    }

    #[test]
    fn what_is_said_after_all_else_was_dropped_is_heard_at_once() {
        let mut playout = playing(&[(A, 4_000)]);
        drain(&mut playout);
        playout.pause();
        assert!(playout.cancel_all());
        playout.begin(B);
        playout.audio(B, &[7; 800]);
        playout.complete(B);
        playout.play(B);
        assert_eq!(drain(&mut playout), "2.2.0 a800 2.2.100!");
        assert_eq!(playout.audio(A, &[1]), None);
    }

    #[test]
    fn names_that_are_not_ours_are_no_marks() {
        for name in ["", "u7.3", "1.2", "1.2.x", "1.2.3!!", "-1.2.3", "99999999999.1.1"] {
            assert_eq!(Mark::read(name), None, "{name}");
        }
    }

    #[test]
    fn a_mark_that_claims_more_than_was_sent_is_not_believed() {
        let mut playout = playing(&[(A, 100_000)]);
        drain(&mut playout);
        let mark = playout.marked(Mark::read("0.1.4294967295").unwrap()).unwrap();
        assert_eq!((mark.ms, playout.replies[0].audio.len()), (12_500, 0));
        playout.pause();
        playout.resume(A, 12_000);
        assert_eq!(drain(&mut playout), "1.1.12500!");
    }

    #[test]
    fn marks_tell_the_same_moments_in_wideband() {
        let mut playout = Playout::new(Coding::WIDE);
        playout.begin(A);
        assert_eq!(playout.audio(A, &[7; 16_000]), Some(500));
        playout.complete(A);
        playout.play(A);
        assert_eq!(drain(&mut playout), "0.1.0 a12800 0.1.400 a3200 0.1.500!");
        assert_eq!(playout.marked(Mark::read("0.1.400").unwrap()).unwrap().ms, 400);
        playout.pause();
        playout.resume(A, 450);
        assert_eq!(drain(&mut playout), "1.1.450 a1600 1.1.500!");
    }

    #[test]
    fn what_was_played_is_given_back() {
        let mut playout = playing(&[(A, 100_000)]);
        drain(&mut playout);
        playout.marked(Mark::read("0.1.8000").unwrap());
        assert_eq!(playout.replies[0].audio.len(), 36_000);
        playout.pause();
        playout.resume(A, 8_200);
        assert!(drain(&mut playout).starts_with("1.1.8200 a3200"));
    }
}
