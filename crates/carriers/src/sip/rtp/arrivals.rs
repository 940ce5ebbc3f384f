//! The sequence numbers of one source (RFC 3550 A.1, A.3, A.8): what came twice, what never came, and how regularly. It
//! knows numbers and times, not packets.

use super::rtcp::Block;

/// A jump of more numbers is a new beginning, not loss (RFC 3550 A.1's MAX_DROPOUT).
const MAX_JUMP: i64 = 3_000;
/// Numbers that are known one by one.
const WINDOW: i64 = u128::BITS as i64;

/// What came of one source.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    /// Extended by the times that numbers began anew.
    first: i64,
    highest: i64,
    /// Of the numbers up to the highest, which came.
    seen: u128,
    received: i64,
    /// Lost before the last new beginning.
    lost_before: i64,
    /// In timestamps, times 16.
    jitter: i64,
    transit: Option<i64>,
    told_expected: i64,
    told_received: i64,
    last_report: Option<(u32, u64)>,
}

impl Arrivals {
    /// A source whose first packet has this number.
    pub fn new(sequence: u16) -> Arrivals {
        let first = (1 << 16) + i64::from(sequence);
        Arrivals {
            first,
            highest: first - 1,
            seen: 0,
            received: 0,
            lost_before: 0,
            jitter: 0,
            transit: None,
            told_expected: 0,
            told_received: 0,
            last_report: None,
        }
    }

    /// Takes a packet's number; says whether it comes for the first time.
    pub fn packet(&mut self, sequence: u16) -> bool {
        let ahead = i64::from(sequence.wrapping_sub(self.highest as u16) as i16);
        if ahead.abs() > MAX_JUMP {
            let (lost_before, jitter, last_report) = (self.lost(), self.jitter, self.last_report);
            *self = Arrivals { lost_before, jitter, last_report, ..Arrivals::new(sequence) };
            return self.packet(sequence);
        }
        let is_new = if ahead > 0 {
            self.seen = if ahead < WINDOW { self.seen << ahead | 1 } else { 1 };
            self.highest += ahead;
            true
        } else {
            let bit = 1_u128.checked_shl(ahead.unsigned_abs() as u32).unwrap_or(0);
            let is_new = bit != 0 && self.seen & bit == 0;
            self.seen |= bit;
            // What came before the first was sent before it.
            self.first = if is_new { self.first.min(self.highest + ahead) } else { self.first };
            is_new
        };
        self.received += i64::from(is_new);
        is_new
    }

    /// Notes when sound came, in timestamps of any beginning.
    pub fn sound(&mut self, timestamp: u32, arrived: u64) {
        let transit = i64::from((arrived as u32).wrapping_sub(timestamp));
        if let Some(before) = self.transit.replace(transit) {
            let change = i64::from((transit as u32).wrapping_sub(before as u32) as i32).abs();
            self.jitter += change - (self.jitter + 8) / 16;
        }
    }

    /// Packets that never came, or have not yet.
    pub fn lost(&self) -> i64 {
        self.lost_before + (self.highest - self.first + 1 - self.received).max(0)
    }

    /// How irregularly sound comes, in timestamps.
    pub fn jitter(&self) -> u32 {
        (self.jitter / 16) as u32
    }

    /// The source has sent a report.
    pub fn reported(&mut self, middle: u32, at_us: u64) {
        self.last_report = Some((middle, at_us));
    }

    /// What is to be told of this source now.
    pub fn block(&mut self, ssrc: u32, now_us: u64) -> Block {
        let expected = self.highest - self.first + 1;
        let new = expected - self.told_expected;
        let lost = (new - (self.received - self.told_received)).max(0);
        self.told_expected = expected;
        self.told_received = self.received;
        let since = |at_us: u64| (now_us.saturating_sub(at_us) * 65_536 / 1_000_000) as u32;
        Block {
            ssrc,
            fraction_lost: if new > 0 { (lost * 256 / new).min(255) as u8 } else { 0 },
            lost: self.lost() as i32,
            highest_sequence: (self.highest - (1 << 16)) as u32,
            jitter: self.jitter(),
            last_report: self.last_report.map_or(0, |(middle, _)| middle),
            since_last_report: self.last_report.map_or(0, |(_, at_us)| since(at_us)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(numbers: impl IntoIterator<Item = u16>) -> (Arrivals, usize) {
        let mut numbers = numbers.into_iter().peekable();
        let mut arrivals = Arrivals::new(*numbers.peek().unwrap());
        let again = numbers.filter(|number| !arrivals.packet(*number)).count();
        (arrivals, again)
    }

    #[test]
    fn loss_and_repeats_are_counted_across_the_end_of_numbers() {
        let numbers = (65_500..=65_535).chain(0..100).filter(|n| n % 10 != 7);
        let (mut arrivals, again) = after(numbers.flat_map(|n| [n, n]));
        assert_eq!(arrivals.lost(), 13);
        assert_eq!(again, 123);
        let block = arrivals.block(9, 0);
        assert_eq!((block.lost, block.highest_sequence), (13, 65_536 + 99));
        assert_eq!(block.fraction_lost, (13 * 256 / 136) as u8);
        assert_eq!(arrivals.block(9, 0).fraction_lost, 0, "since the last report");
    }

    #[test]
    fn what_is_only_reordered_is_not_lost() {
        let (arrivals, again) = after([10, 8, 9, 12, 11, 14, 13]);
        assert_eq!((arrivals.lost(), again), (0, 0));
    }

    #[test]
    fn a_jump_is_a_new_beginning() {
        let (arrivals, _) = after([1, 2, 4, 30_000, 30_001]);
        assert_eq!(arrivals.lost(), 1);
        assert_eq!(arrivals.received, 2);
    }

    #[test]
    fn jitter_is_what_the_rfc_computes() {
        let mut arrivals = Arrivals::new(0);
        for n in 0..2_000_u32 {
            arrivals.sound(n * 160, u64::from(n * 160 + 50 * (n % 2)));
        }
        assert!((48..=50).contains(&arrivals.jitter()), "{}", arrivals.jitter());
        let mut arrivals = Arrivals::new(0);
        for n in 0..500_u32 {
            arrivals.sound((n * 160).wrapping_sub(9_999), u64::from(n * 160));
        }
        assert_eq!(arrivals.jitter(), 0);
    }

    #[test]
    fn the_time_since_a_report_is_told() {
        let mut arrivals = Arrivals::new(0);
        arrivals.reported(77, 1_000_000);
        let block = arrivals.block(1, 1_500_000);
        assert_eq!((block.last_report, block.since_last_report), (77, 32_768));
    }
}
