//! An adaptive jitter buffer: packets of one source go in as they come, and leave in order, each at its moment. Pure: it
//! counts time in the frames that are taken from it, and knows nothing of sockets or codecs.

use crate::FRAME_MS;
use std::collections::VecDeque;

/// The least delay, in frames: a packet that came in time for the frame before is in time whatever its phase.
const LEAST_FRAMES: i64 = 1;
/// The delay that a source begins with, before its habits are known.
const FIRST_FRAMES: i64 = 2;
/// The most delay: 200 ms.
const MOST_FRAMES: i64 = 10;
/// A source whose timestamps move so far from where they were has begun anew.
const RESYNC_FRAMES: i64 = 100;
/// When so much has been filled in without a packet, the source is pausing.
const PAUSE_FRAMES: i64 = 10;
/// What is remembered of arrivals: blocks of a second. A frame is given up at most once in each, which is also as fast
/// as a differing clock is followed.
const BLOCK_FRAMES: u32 = 1_000 / FRAME_MS;
const BLOCKS: usize = 4;

/// The buffer. For every 20 ms: `push` what has come, `begin_frame`, then `pull` until the frame is full.
///
/// The delay grows where packets come too late, by filling in, and shrinks by at most one frame a second when no packet
/// of the last four seconds needed it.
#[derive(Clone, Debug)]
pub struct Jitter {
    /// Timestamps in a frame.
    frame: i64,
    /// In the order of their timestamps.
    waiting: VecDeque<Waiting>,
    /// Buffers to be used again.
    spent: Vec<Vec<u8>>,
    /// The timestamp that is pulled next; `None`: nothing has come yet.
    position: Option<i64>,
    /// The newest timestamp seen, from which 32-bit ones are extended.
    newest: i64,
    /// To wait before the next packet.
    hold: i64,
    /// Filled in since packets ran out: it is not known yet whether for lost or for late ones.
    owed: i64,
    /// Pulled and not yet played.
    ahead: i64,
    blocks: [Block; BLOCKS],
    frames: u32,
}

#[derive(Clone, Debug)]
struct Waiting {
    at: i64,
    length: i64,
    payload: Vec<u8>,
}

/// By how much the packets of a second came before they were needed.
#[derive(Clone, Copy, Debug)]
struct Block {
    least: i64,
    most: i64,
}

impl Block {
    const EMPTY: Block = Block { least: i64::MAX, most: i64::MIN };
}

/// What became of a packet that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits for its moment.
    Taken,
    /// Its moment is over: it is dropped.
    Late,
    /// It is there already.
    Twice,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// A packet, now in the buffer that was given.
    Packet,
    /// A packet that is lost: conceal so many timestamps.
    Lost(u32),
    /// Nothing yet: conceal what the frame still needs.
    Nothing,
}

impl Jitter {
    /// A buffer for a source whose timestamps run at this clock.
    pub fn new(clock_hz: u32) -> Jitter {
        Jitter {
            frame: i64::from(clock_hz * FRAME_MS / 1_000),
            waiting: VecDeque::new(),
            spent: Vec::new(),
            position: None,
            newest: 0,
            hold: 0,
            owed: 0,
            ahead: 0,
            blocks: [Block::EMPTY; BLOCKS],
            frames: 0,
        }
    }

    /// Takes a packet whose sound lasts `length` timestamps.
    pub fn push(&mut self, timestamp: u32, length: u32, payload: &[u8]) -> Pushed {
        let at = self.newest + i64::from(timestamp.wrapping_sub(self.newest as u32) as i32);
        let far = |position: i64| (at - position).abs() > RESYNC_FRAMES * self.frame;
        let pausing = self.waiting.is_empty() && self.owed >= PAUSE_FRAMES * self.frame;
        let position = match self.position {
            Some(position) if !far(position) && !pausing => position,
            known => self.begin(at, known.is_some()),
        };
        self.newest = self.newest.max(at);
        let early = at - position;
        self.note(early - early.min(self.owed).max(0) + self.ahead + self.hold);
        if at < position {
            // Its place was filled because later ones were there: the next of its kind shall find it open.
            if self.hold == 0 && self.delay(position) < MOST_FRAMES * self.frame {
                self.hold = self.frame;
            }
            return Pushed::Late;
        }
        let place = self.waiting.partition_point(|packet| packet.at < at);
        if self.waiting.get(place).is_some_and(|packet| packet.at == at) {
            return Pushed::Twice;
        }
        let mut buffer = self.spent.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(payload);
        self.waiting.insert(place, Waiting { at, length: i64::from(length.max(1)), payload: buffer });
        self.shorten();
        Pushed::Taken
    }

    /// Begins 20 ms; says whether the buffer holds more than it needs, so that one frame's time should be left out.
    pub fn begin_frame(&mut self) -> bool {
        if self.position.is_some() {
            self.ahead -= self.frame;
        }
        self.frames += 1;
        if self.frames < BLOCK_FRAMES {
            return false;
        }
        self.frames = 0;
        let least = self.blocks.iter().map(|block| block.least).min().unwrap_or(i64::MAX);
        let known = self.blocks.iter().all(|block| block.least != i64::MAX);
        let slip = known && least >= (LEAST_FRAMES + 1) * self.frame;
        if slip {
            for block in &mut self.blocks {
                block.least -= self.frame;
                block.most -= self.frame;
            }
            self.ahead -= self.frame;
        }
        self.blocks.rotate_right(1);
        self.blocks[0] = Block::EMPTY;
        slip
    }

    /// What comes next, of which the frame still needs `need` timestamps; a packet is put in place of what is in `payload`.
    pub fn pull(&mut self, need: u32, payload: &mut Vec<u8>) -> Pulled {
        let need = i64::from(need);
        let Some(position) = self.position else { return Pulled::Nothing };
        if self.hold > 0 {
            // What is waited for is not missing: the time stands still for it.
            self.hold = (self.hold - need).max(0);
            self.ahead += need;
            return Pulled::Nothing;
        }
        let Some(first) = self.waiting.front() else {
            self.owed += need;
            self.ahead += need;
            return Pulled::Nothing;
        };
        let gap = first.at - position;
        let missing = gap - gap.min(std::mem::take(&mut self.owed)).max(0);
        if missing > 0 {
            let filled = missing.min(need.max(1));
            self.position = Some(first.at - missing + filled);
            self.ahead += filled;
            return Pulled::Lost(filled as u32);
        }
        let Some(mut first) = self.waiting.pop_front() else { return Pulled::Nothing };
        std::mem::swap(payload, &mut first.payload);
        self.spent.push(first.payload);
        self.position = Some(first.at + first.length);
        self.ahead += first.length;
        Pulled::Packet
    }

    /// The packet that comes right after what was pulled last, if it is there: after a loss, some codecs find in it what was
    /// lost.
    pub fn peek(&self) -> Option<&[u8]> {
        let first = self.waiting.front().filter(|first| Some(first.at) == self.position)?;
        Some(&first.payload)
    }

    /// The delay that a packet has now, from its arrival to its moment, milliseconds.
    pub fn delay_ms(&self) -> u32 {
        let delay = self.position.map_or(0, |position| self.delay(position));
        (delay.max(0) * i64::from(FRAME_MS) / self.frame) as u32
    }

    /// From the end of the newest packet back to what is played next.
    fn delay(&self, position: i64) -> i64 {
        let (Some(first), Some(last)) = (self.waiting.front(), self.waiting.back()) else {
            return self.ahead + self.hold;
        };
        let filled = (first.at - position).min(self.owed);
        last.at + last.length - position - filled + self.ahead + self.hold
    }

    fn begin(&mut self, at: i64, again: bool) -> i64 {
        let least = self.blocks.iter().map(|block| block.least).min().unwrap_or(i64::MAX);
        let most = self.blocks.iter().map(|block| block.most).max().unwrap_or(i64::MIN);
        let known = if again && most >= least { (most - least) / self.frame + LEAST_FRAMES } else { 0 };
        self.hold = known.clamp(FIRST_FRAMES, MOST_FRAMES) * self.frame;
        while let Some(packet) = self.waiting.pop_front() {
            self.spent.push(packet.payload);
        }
        self.owed = 0;
        self.ahead = 0;
        self.newest = at;
        self.blocks = [Block::EMPTY; BLOCKS];
        self.position = Some(at);
        at
    }

    fn note(&mut self, spare: i64) {
        let block = &mut self.blocks[0];
        block.least = block.least.min(spare);
        block.most = block.most.max(spare);
    }

    /// After a burst, gives up the oldest of what is more than the most delay.
    fn shorten(&mut self) {
        while let Some(position) = self.position.filter(|p| self.delay(*p) > MOST_FRAMES * self.frame) {
            self.hold = 0;
            let Some(first) = self.waiting.front() else { break };
            // What was filled in for late ones is time that has passed: only the rest is a gap.
            if first.at > position + self.owed {
                self.position = Some(first.at);
                continue;
            }
            if self.waiting.len() < 2 {
                break;
            }
            if let Some(first) = self.waiting.pop_front() {
                self.position = Some(first.at + first.length);
                self.owed = 0;
                self.spent.push(first.payload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a line hears, 20 ms a letter: the number of a packet, `.` for what was filled in.
    struct Line {
        jitter: Jitter,
        frame: usize,
        fifo: Vec<Option<u8>>,
        heard: Vec<Option<u8>>,
        slips: Vec<usize>,
        late: usize,
    }

    const TICKS: u32 = 160;

    impl Line {
        fn new() -> Line {
            Line { jitter: Jitter::new(8_000), frame: 0, fifo: vec![], heard: vec![], slips: vec![], late: 0 }
        }

        fn push(&mut self, number: u32) -> Pushed {
            let pushed =
                self.jitter.push(number.wrapping_mul(TICKS).wrapping_sub(3_000), TICKS, &[number as u8]);
            self.late += usize::from(pushed == Pushed::Late);
            pushed
        }

        fn pull(&mut self) {
            let mut payload = Vec::new();
            let frames = 1 + usize::from(self.jitter.begin_frame());
            if frames == 2 {
                self.slips.push(self.frame);
            }
            while self.fifo.len() < frames {
                match self.jitter.pull(TICKS, &mut payload) {
                    Pulled::Packet => self.fifo.push(Some(payload[0])),
                    Pulled::Lost(ticks) => {
                        assert_eq!(ticks, TICKS);
                        self.fifo.push(None);
                    }
                    Pulled::Nothing => self.fifo.push(None),
                }
            }
            self.heard.push(self.fifo.remove(0));
            self.fifo.truncate(self.fifo.len() + 1 - frames);
            self.frame += 1;
        }

        /// Pushes packet `n` before frame `arrivals(n)`, and plays so many frames.
        fn run(&mut self, frames: u32, packets: u32, arrives: impl Fn(u32) -> Option<u32>) {
            for frame in 0..frames {
                let mut now: Vec<u32> = (0..packets).filter(|n| arrives(*n) == Some(frame)).collect();
                now.sort_by_key(|n| (n % 3, *n));
                for number in now {
                    self.push(number);
                }
                self.pull();
            }
        }

        fn text(&self) -> String {
            let letter = |heard: &Option<u8>| heard.map_or('.', |n| char::from(b'a' + n % 26));
            self.heard.iter().map(letter).collect()
        }
    }

    #[test]
    fn packets_come_out_in_order_after_the_first_delay() {
        let mut line = Line::new();
        line.run(8, 20, Some);
        assert_eq!(line.text(), "..abcdef");
    }

    #[test]
    fn a_lost_packet_is_filled_in_and_the_rest_keeps_its_time() {
        let mut line = Line::new();
        line.run(10, 20, |n| (n != 3).then_some(n));
        assert_eq!(line.text(), "..abc.efgh");
    }

    #[test]
    fn reordered_packets_that_are_in_time_are_heard_in_order() {
        let mut line = Line::new();
        line.run(10, 20, |n| Some(if n == 3 { 5 } else { n }));
        assert_eq!((line.text().as_str(), line.late), ("..abcdefgh", 0));
    }

    #[test]
    fn a_packet_that_comes_after_its_moment_is_dropped_and_the_delay_grows() {
        let mut line = Line::new();
        line.run(12, 30, |n| Some(if n == 3 { 6 } else { n }));
        assert_eq!(
            (line.text().as_str(), line.late),
            ("..abc..efghi", 1),
            "one frame is waited for the next"
        );
    }

    #[test]
    fn what_is_only_late_is_heard_late_and_not_lost() {
        let mut line = Line::new();
        line.run(14, 30, |n| Some(if n >= 3 { n + 4 } else { n }));
        assert_eq!((line.text().as_str(), line.late), ("..abc..defghij".to_owned().as_str(), 0));
    }

    #[test]
    fn a_pause_of_the_sender_begins_anew_with_a_delay() {
        let mut line = Line::new();
        let jitter = &mut line;
        jitter.run(6, 3, Some);
        for _ in 0..40 {
            jitter.pull();
        }
        // Silence was not sent: timestamps have gone on.
        jitter.push(50);
        jitter.pull();
        jitter.push(51);
        jitter.pull();
        jitter.pull();
        assert!(line.text().starts_with("..abc...") && line.text().ends_with("..y"), "{}", line.text());
    }

    #[test]
    fn a_burst_keeps_two_hundred_milliseconds() {
        let mut line = Line::new();
        line.run(3, 1, Some);
        for number in 1..40 {
            line.push(number);
        }
        assert_eq!(line.jitter.delay_ms(), 200);
        line.pull();
        assert_eq!(line.heard.last(), Some(&Some(30)));
    }

    #[test]
    fn delay_that_is_not_needed_goes_by_one_frame_a_second_at_most() {
        let mut line = Line::new();
        // A stall of 160 ms in the third second, and none after it.
        line.run(1_000, 1_200, |n| Some(if (100..108).contains(&n) { 108 } else { n }));
        assert_eq!(line.late, 0);
        let least = line.slips.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
        assert!(least >= 50, "{:?}", line.slips);
        assert!(line.slips.len() >= 6 && line.jitter.delay_ms() <= 40, "{:?}", line.slips);
    }

    #[test]
    fn a_differing_clock_is_followed_without_loss_of_more_than_it_differs() {
        for (every, fast) in [(400, true), (400, false)] {
            let mut line = Line::new();
            // One packet more, or one less, in 8 s.
            let arrives = |n: u32| Some(if fast { n - n / every } else { n + n / every });
            line.run(8_000, 9_000, arrives);
            let heard = line.heard.iter().flatten().count();
            let filled = line.heard.len() - heard;
            if fast {
                assert!(filled <= 3 && (17..=22).contains(&line.slips.len()), "{filled} {:?}", line.slips);
            } else {
                assert!((17..=23).contains(&filled) && line.slips.len() <= 1, "{filled} {:?}", line.slips);
            }
            assert!(line.jitter.delay_ms() <= 60, "{}", line.jitter.delay_ms());
        }
    }

    #[test]
    fn timestamps_that_jump_begin_anew() {
        let mut line = Line::new();
        line.run(6, 20, Some);
        for number in 0..4 {
            line.push(1_000_000 + number);
            line.pull();
        }
        assert!(line.text().ends_with("..mn"), "{}", line.text());
    }

    proptest! {
        #[test]
        fn any_packets_leave_in_order_and_within_the_most_delay(
            events in prop::collection::vec((any::<u32>(), 1_u32..960, 0_u8..4, any::<bool>()), 1..200),
        ) {
            let mut jitter = Jitter::new(8_000);
            let mut payload = Vec::new();
            let (mut base, mut fifo) = (0_u32, 0);
            for (timestamp, length, pulls, near) in events {
                base = if near { base.wrapping_add(timestamp % 2_000).wrapping_sub(500) } else { timestamp };
                jitter.push(base, length, &length.to_be_bytes());
                prop_assert!(jitter.delay_ms() <= 200 + 120 + 20, "{}", jitter.delay_ms());
                for _ in 0..pulls {
                    jitter.begin_frame();
                    while fifo < 160 {
                        fifo += match jitter.pull(160 - fifo, &mut payload) {
                            Pulled::Packet => u32::from_be_bytes(payload[..].try_into().unwrap()),
                            Pulled::Lost(ticks) => { prop_assert!(ticks > 0); ticks }
                            Pulled::Nothing => 160 - fifo,
                        };
                    }
                    fifo -= 160;
                }
            }
        }

        #[test]
        fn with_jitter_below_the_most_delay_nothing_is_lost_for_long(seed in prop::collection::vec(0_u32..8, 400)) {
            let mut line = Line::new();
            line.run(420, 400, |n| Some(n + seed[n as usize]));
            let after: Vec<u8> = line.heard[200..400].iter().flatten().copied().collect();
            prop_assert!(after.len() >= 195, "{}", line.text());
            prop_assert!(after.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) < 20));
        }
    }
}
