//! Speech that spells itself: each byte of a text is one vowel of three formants, so whoever hears the audio can read the words back.
//! It knows nothing of sockets and providers: text in, samples out, and the other way round, at any rate.
//!
//! The voice has a pitch of 100 Hz. Of its harmonics three stand out, where a speaker's formants would be: the first
//! (300-600 Hz) says the byte's top bit and a clock that alternates from letter to letter, so that double letters stay
//! two; the second (700-1400 Hz) says the next three bits, the third (1500-3000 Hz) the last four. All of it lies
//! inside the telephone band and survives G.711, resampling, a few lost packets and cuts at any sample; voice activity
//! detectors take it for speech. A quieter space is spoken before every word and after the last.

use serde::Serialize;
use std::f64::consts::TAU;

/// A word that was read back from audio.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeardWord {
    /// The letters that were heard, with the punctuation that was spoken: the beginning or end is missing where the audio was cut.
    pub word: String,
    /// When its first letter sounded, in milliseconds from the first sample, to about 10 ms.
    pub start_ms: u64,
    /// When its last letter ended.
    pub end_ms: u64,
    /// Whether the speech went on to the end of the word: false for the word in which speech was cut off.
    pub complete: bool,
}

/// An easy pace of speech: letters a second, spaces included.
pub const LETTERS_PER_SECOND: f64 = 15.0;

/// Makes a caller's utterance of about `seconds`, at 8 kHz; longer where the text would be too fast to be understood.
pub fn utterance(text: &str, seconds: f64) -> Vec<i16> {
    let letters = spelling(text).len() as f64;
    speak(text, 8_000, letters / seconds.max(letters * SHORTEST_LETTER_S)).pcm
}

/// Reads back the words of whatever the phone heard, at 8 kHz, in the order of hearing.
pub fn heard_words(pcm_8k: &[i16]) -> Vec<HeardWord> {
    let mut ear = Ear::new(8_000);
    ear.hear(pcm_8k);
    ear.hear(&[0; WORD_END_MS as usize * 8 * 2]);
    ear.take_words()
}

/// A text as audio, and when each word of it sounds.
#[derive(Clone, Debug)]
pub(crate) struct Speech {
    pub pcm: Vec<i16>,
    pub words: Vec<HeardWord>,
    pub characters: Vec<SpokenCharacter>,
    pub duration_ms: u64,
}

/// One character of a spoken text, the spaces around the words included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpokenCharacter {
    pub character: char,
    pub start_ms: u64,
    pub end_ms: u64,
}

/// Speaks a text at a sampling rate and a pace in letters (bytes of UTF-8) a second.
pub(crate) fn speak(text: &str, rate_hz: u32, letters_per_second: f64) -> Speech {
    let letters = spelling(text);
    let pace = letters_per_second.min(1.0 / SHORTEST_LETTER_S);
    let sample_at = |letter: usize| (letter as f64 / pace * f64::from(rate_hz)).round() as usize;
    let ms_at = |letter: usize| (letter as f64 / pace * 1_000.0).round() as u64;

    let mut voice = Voice::new(rate_hz);
    let mut words = Vec::new();
    let mut word_start = 0;
    for (place, &byte) in letters.iter().enumerate() {
        voice.utter(Vowel { byte, clock: place % 2 }, sample_at(place + 1) - sample_at(place));
        if byte != SPACE {
            continue;
        }
        if place > word_start {
            let word = String::from_utf8_lossy(&letters[word_start..place]).into_owned();
            words.push(HeardWord { word, start_ms: ms_at(word_start), end_ms: ms_at(place), complete: true });
        }
        word_start = place + 1;
    }
    let text = String::from_utf8_lossy(&letters);
    let characters = text.char_indices().map(|(place, character)| SpokenCharacter {
        character,
        start_ms: ms_at(place),
        end_ms: ms_at(place + character.len_utf8()),
    });
    Speech { pcm: voice.pcm, words, characters: characters.collect(), duration_ms: ms_at(letters.len()) }
}

/// The bytes that are spoken for a text: a space before each word and after the last, nothing for nothing.
fn spelling(text: &str) -> Vec<u8> {
    let mut letters = Vec::with_capacity(text.len() + 2);
    for word in text.split_whitespace() {
        letters.push(SPACE);
        letters.extend(word.bytes());
    }
    if !letters.is_empty() {
        letters.push(SPACE);
    }
    letters
}

const SPACE: u8 = b' ';

/// Below this the ear's window of 20 ms never sees one letter alone for long enough.
const SHORTEST_LETTER_S: f64 = 0.028;

/// One letter as it sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vowel {
    byte: u8,
    clock: usize,
}

impl Vowel {
    fn formants(self) -> [usize; 3] {
        let [f1, f2, f3] = FORMANTS.map(|range| range.0);
        [
            f1 + 2 * usize::from(self.byte >> 7) + self.clock,
            f2 + usize::from((self.byte >> 4) & 0b111),
            f3 + usize::from(self.byte & 0b1111),
        ]
    }

    fn of_formants(formants: [usize; 3]) -> Vowel {
        let [f1, f2, f3] = [0, 1, 2].map(|index| formants[index] - FORMANTS[index].0);
        Vowel { byte: ((f1 / 2) << 7 | f2 << 4 | f3) as u8, clock: f1 % 2 }
    }
}

const PITCH_HZ: u32 = 100;

/// First and last harmonic in which each formant may lie.
const FORMANTS: [(usize, usize); 3] = [(3, 6), (7, 14), (15, 30)];
const HARMONICS: usize = 31;
const LOWEST_TONE: usize = FORMANTS[0].0;
const TONES: usize = HARMONICS - LOWEST_TONE;

/// Speech falls off towards the high frequencies; so does the peak of each formant here, in units of a full sample.
const FORMANT_LEVEL: [f32; 3] = [0.16, 0.096, 0.056];
const OTHER_HARMONICS_LEVEL: f32 = 0.008;
const BREATH_LEVEL: f32 = 0.008;
const SPACE_GAIN: f32 = 0.6;
const GLIDE_S: f32 = 0.004;

/// Makes samples, letter after letter, without a click between them.
struct Voice {
    rate_hz: u32,
    /// Every harmonic over two periods of the pitch: whole numbers of samples at all the usual rates.
    waves: Vec<[f32; HARMONICS]>,
    levels: [f32; HARMONICS],
    breath: u32,
    pcm: Vec<i16>,
}

impl Voice {
    fn new(rate_hz: u32) -> Self {
        let samples = (2 * rate_hz / PITCH_HZ) as usize;
        let wave = |sample: usize, harmonic: usize| {
            let turn = 2.0 * sample as f64 / samples as f64;
            // The quadratic phase keeps the harmonics from peaking together.
            (TAU * harmonic as f64 * turn + 0.37 * (harmonic * harmonic) as f64).cos() as f32
        };
        let waves =
            (0..samples).map(|sample| std::array::from_fn(|harmonic| wave(sample, harmonic))).collect();
        Voice { rate_hz, waves, levels: [0.0; HARMONICS], breath: 1, pcm: Vec::new() }
    }

    fn utter(&mut self, vowel: Vowel, samples: usize) {
        let gain = if vowel.byte == SPACE { SPACE_GAIN } else { 1.0 };
        let mut target = [OTHER_HARMONICS_LEVEL * gain; HARMONICS];
        target[0] = 0.0;
        for (harmonic, level) in vowel.formants().into_iter().zip(FORMANT_LEVEL) {
            target[harmonic] = level * gain;
        }
        let from = self.levels;
        let glide = GLIDE_S * self.rate_hz as f32;
        for sample in 0..samples {
            let share = (sample as f32 / glide).min(1.0);
            let waves = &self.waves[self.pcm.len() % self.waves.len()];
            let voiced: f32 =
                (1..HARMONICS).map(|k| waves[k] * (from[k] + (target[k] - from[k]) * share)).sum();
            let value = voiced + self.breathe() * BREATH_LEVEL * gain;
            self.pcm.push((value * f32::from(i16::MAX)) as i16);
        }
        self.levels = target;
    }

    fn breathe(&mut self) -> f32 {
        self.breath = self.breath.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.breath >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Reads words out of a stream of samples, and says when there was any voice at all.
pub(crate) struct Ear {
    rate_hz: u32,
    /// A Hann window over two periods of the pitch: neighbouring harmonics fall exactly into each other's zeros.
    window: Vec<f32>,
    /// Cosines and sines of all formant harmonics at each sample of one period.
    circle: Vec<[[f32; TONES]; 2]>,
    unread: Vec<i16>,
    samples_read: u64,
    letter: Option<Stretch>,
    next_letter: Option<Stretch>,
    word: Option<HeardLetters>,
    words: Vec<HeardWord>,
    voiced_ms: Option<u64>,
}

/// One vowel heard without a break.
#[derive(Clone, Copy)]
struct Stretch {
    vowel: Vowel,
    first_ms: u64,
    last_ms: u64,
}

struct HeardLetters {
    bytes: Vec<u8>,
    start_ms: u64,
    end_ms: u64,
}

enum Sound {
    Silence,
    Noise,
    Vowel(Vowel),
}

const HOP_MS: u64 = 5;

/// A letter goes on across a gap of this length: packets get lost.
const LETTER_GAP_MS: u64 = 60;

/// After this long without a letter a word is over, although no space was heard.
const WORD_END_MS: u64 = 150;

/// Root mean square below which a frame is silence, in sample steps.
const SILENCE_LEVEL: f32 = 60.0;

/// The share of its range that a formant's strongest harmonic must hold, and the share of everything that the three must.
const FORMANT_CLARITY: f32 = 0.6;
const VOWEL_CLARITY: f32 = 0.5;

/// How much weaker (as power) the weakest of the three may be than the strongest.
const FORMANT_BALANCE: f32 = 1.0 / 400.0;

impl Ear {
    pub fn new(rate_hz: u32) -> Self {
        let period = (rate_hz / PITCH_HZ) as usize;
        let angle = |sample: usize| TAU * sample as f64 / period as f64;
        let tones = |sample: usize, of: fn(f64) -> f64| {
            std::array::from_fn(|tone| of(angle(sample) * (LOWEST_TONE + tone) as f64) as f32)
        };
        Ear {
            rate_hz,
            window: (0..2 * period).map(|n| 0.5 - 0.5 * (angle(n) / 2.0).cos() as f32).collect(),
            circle: (0..period).map(|n| [tones(n, f64::cos), tones(n, f64::sin)]).collect(),
            unread: Vec::new(),
            samples_read: 0,
            letter: None,
            next_letter: None,
            word: None,
            words: Vec::new(),
            voiced_ms: None,
        }
    }

    pub fn hear(&mut self, pcm: &[i16]) {
        self.unread.extend_from_slice(pcm);
        let hop = self.rate_hz as usize * HOP_MS as usize / 1_000;
        let mut start = 0;
        while start + self.window.len() <= self.unread.len() {
            let middle = self.samples_read + (start + self.window.len() / 2) as u64;
            let sound = self.classify(&self.unread[start..start + self.window.len()]);
            self.note(middle * 1_000 / u64::from(self.rate_hz), sound);
            start += hop;
        }
        self.unread.drain(..start);
        self.samples_read += start as u64;
    }

    /// The words that are over, oldest first; each is handed out once.
    pub fn take_words(&mut self) -> Vec<HeardWord> {
        std::mem::take(&mut self.words)
    }

    /// Ends the word that is being spoken, as when nothing more will come.
    pub fn end_word(&mut self) {
        self.end_letter();
        self.close_word(false);
    }

    /// When anything louder than silence was last heard.
    pub fn voiced_ms(&self) -> Option<u64> {
        self.voiced_ms
    }

    /// How much has been heard.
    pub fn now_ms(&self) -> u64 {
        (self.samples_read + self.unread.len() as u64) * 1_000 / u64::from(self.rate_hz)
    }

    fn classify(&self, samples: &[i16]) -> Sound {
        let energy: f32 = samples.iter().map(|&sample| f32::from(sample) * f32::from(sample)).sum();
        if energy < SILENCE_LEVEL * SILENCE_LEVEL * samples.len() as f32 {
            return Sound::Silence;
        }
        let period = self.circle.len();
        let windowed = |n: usize| self.window[n] * f32::from(samples[n]);
        let (mut real, mut imaginary) = ([0.0; TONES], [0.0; TONES]);
        for (n, [cosines, sines]) in self.circle.iter().enumerate() {
            let folded = windowed(n) + windowed(n + period);
            for tone in 0..TONES {
                real[tone] += folded * cosines[tone];
                imaginary[tone] += folded * sines[tone];
            }
        }
        let power = |harmonic: usize| {
            real[harmonic - LOWEST_TONE].powi(2) + imaginary[harmonic - LOWEST_TONE].powi(2)
        };

        let mut formants = [0; 3];
        let mut peaks = [0.0_f32; 3];
        for (index, (first, last)) in FORMANTS.into_iter().enumerate() {
            let mut range_power = 0.0;
            for harmonic in first..=last {
                let power = power(harmonic);
                range_power += power;
                if power > peaks[index] {
                    (formants[index], peaks[index]) = (harmonic, power);
                }
            }
            if peaks[index] < FORMANT_CLARITY * range_power || range_power == 0.0 {
                return Sound::Noise;
            }
        }
        // A sine of amplitude A has |X| = A/2 Σw after the transform, and A²/2 = 2|X|² / (Σw)² as power.
        let vowel_power = 2.0 * peaks.iter().sum::<f32>() / self.window.iter().sum::<f32>().powi(2);
        let window_power: f32 = self.window.iter().map(|weight| weight * weight).sum();
        let all_power = (0..samples.len()).map(|n| windowed(n).powi(2)).sum::<f32>() / window_power;
        let (weakest, strongest) =
            peaks.iter().fold((f32::MAX, 0.0_f32), |(low, high), &p| (low.min(p), high.max(p)));
        if vowel_power < VOWEL_CLARITY * all_power || weakest < FORMANT_BALANCE * strongest {
            return Sound::Noise;
        }
        Sound::Vowel(Vowel::of_formants(formants))
    }

    fn note(&mut self, at_ms: u64, sound: Sound) {
        if !matches!(sound, Sound::Silence) {
            self.voiced_ms = Some(at_ms);
        }
        if self.letter.is_some_and(|letter| letter.last_ms + WORD_END_MS < at_ms) {
            self.end_word();
        }
        let Sound::Vowel(vowel) = sound else { return };
        let goes_on =
            |stretch: &&mut Stretch, gap_ms| stretch.vowel == vowel && at_ms <= stretch.last_ms + gap_ms;
        if let Some(letter) = self.letter.as_mut().filter(|letter| goes_on(letter, LETTER_GAP_MS)) {
            letter.last_ms = at_ms;
            self.next_letter = None;
        } else if let Some(next) = self.next_letter.as_mut().filter(|next| goes_on(next, 2 * HOP_MS)) {
            // Heard twice: one frame alone may be a mixture of two letters.
            let letter = Stretch { last_ms: at_ms, ..*next };
            self.begin_letter(letter);
        } else {
            self.next_letter = Some(Stretch { vowel, first_ms: at_ms, last_ms: at_ms });
        }
    }

    fn begin_letter(&mut self, letter: Stretch) {
        self.end_letter();
        if letter.vowel.byte == SPACE {
            self.close_word(true);
        }
        self.letter = Some(letter);
        self.next_letter = None;
    }

    fn end_letter(&mut self) {
        let Some(letter) = self.letter.take().filter(|letter| letter.vowel.byte != SPACE) else { return };
        let word = self.word.get_or_insert_with(|| HeardLetters {
            bytes: Vec::new(),
            start_ms: letter.first_ms,
            end_ms: letter.last_ms,
        });
        word.bytes.push(letter.vowel.byte);
        word.end_ms = letter.last_ms;
    }

    fn close_word(&mut self, complete: bool) {
        let Some(letters) = self.word.take() else { return };
        self.words.push(HeardWord {
            word: String::from_utf8_lossy(&letters.bytes).into_owned(),
            start_ms: letters.start_ms.saturating_sub(HOP_MS / 2),
            end_ms: letters.end_ms + HOP_MS / 2,
            complete,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offhook_media::g711::Law;

    const SENTENCE: &str = "Hello, I'd like a table for 12 at Zoë's café, 8:30 — really!";

    #[test]
    fn words_are_read_back_through_both_laws() {
        for law in [Law::Mu, Law::A] {
            let (mut coded, mut pcm) = (Vec::new(), Vec::new());
            law.encode(&utterance(SENTENCE, 4.5), &mut coded);
            law.decode(&coded, &mut pcm);
            assert_eq!(text_of(&heard_words(&pcm)), SENTENCE, "{law:?}");
        }
    }

    #[test]
    fn words_are_read_back_at_every_rate_and_pace() {
        for rate_hz in [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000] {
            for pace in [LETTERS_PER_SECOND, 1_000.0] {
                let speech = speak(SENTENCE, rate_hz, pace);
                let mut ear = Ear::new(rate_hz);
                ear.hear(&speech.pcm);
                ear.end_word();
                assert_eq!(text_of(&ear.take_words()), SENTENCE, "{rate_hz} Hz, {pace} letters a second");
            }
        }
    }

    #[test]
    fn words_survive_going_to_16_khz_and_back_by_the_crudest_resampler() {
        let speech = utterance(SENTENCE, 5.0);
        let doubled: Vec<i16> =
            speech.windows(2).flat_map(|pair| [pair[0], midpoint(pair[0], pair[1])]).collect();
        let halved: Vec<i16> =
            doubled.chunks(2).map(|pair| midpoint(pair[0], pair[pair.len() - 1])).collect();
        assert_eq!(text_of(&heard_words(&halved)), SENTENCE);
    }

    #[test]
    fn words_survive_noise_and_a_neighbour_in_the_background() {
        let mut voice = Voice::new(8_000);
        let noisy: Vec<i16> = utterance(SENTENCE, 5.0)
            .into_iter()
            .zip(utterance("and somebody else says something further away all the while", 5.0))
            .map(|(near, far)| near + far / 10 + (voice.breathe() * 300.0) as i16)
            .collect();
        assert_eq!(text_of(&heard_words(&noisy)), SENTENCE);
    }

    #[test]
    fn timings_say_when_each_word_sounded() {
        let speech = speak("one two three", 8_000, LETTERS_PER_SECOND);
        assert_eq!(speech.duration_ms, 1_000);
        let heard = heard_words(&speech.pcm);
        assert_eq!(heard.len(), 3);
        for (heard, spoken) in heard.iter().zip(&speech.words) {
            assert!(heard.start_ms.abs_diff(spoken.start_ms) <= 10, "{heard:?} for {spoken:?}");
            assert!(heard.end_ms.abs_diff(spoken.end_ms) <= 10, "{heard:?} for {spoken:?}");
        }
    }

    #[test]
    fn speech_cut_anywhere_yields_a_prefix_of_what_was_said() {
        let text = "we are open from nine to five";
        let pcm = utterance(text, 2.0);
        for cut in (0..pcm.len()).step_by(331) {
            let heard = heard_words(&pcm[..cut]);
            assert!(text.starts_with(&text_of(&heard)), "{heard:?} after {cut} samples");
            let whole = heard.iter().filter(|word| word.complete).count();
            assert!(whole + 1 >= heard.len(), "only the last may be cut: {heard:?}");
        }
    }

    #[test]
    fn a_reply_straight_after_a_cut_is_another_word() {
        let mut pcm = utterance("I can offer Tuesday", 1.5);
        pcm.truncate(pcm.len() - 2_000);
        pcm.extend(utterance("sorry", 0.5));
        let heard = heard_words(&pcm);
        assert_eq!(heard.last().map(|word| word.word.as_str()), Some("sorry"));
        assert!("Tuesday".starts_with(&heard[3].word));
    }

    #[test]
    fn a_hole_of_one_packet_neither_splits_nor_doubles_a_letter() {
        let pcm = utterance("call me tomorrow", 16.0 / 15.0);
        for hole in (0..pcm.len() - 160).step_by(449) {
            let mut holed = pcm.clone();
            holed[hole..hole + 160].fill(0);
            assert_eq!(text_of(&heard_words(&holed)), "call me tomorrow", "hole at {hole}");
        }
    }

    #[test]
    fn silence_noise_and_tones_hold_no_words() {
        let mut voice = Voice::new(8_000);
        let noise: Vec<i16> = (0..16_000).map(|_| (voice.breathe() * 8_000.0) as i16).collect();
        let tone = |hz: f64, n: usize| (TAU * hz * n as f64 / 8_000.0).sin() * 8_000.0;
        let dtmf: Vec<i16> = (0..8_000).map(|n| (tone(770.0, n) + tone(1_336.0, n)) as i16).collect();
        for pcm in [vec![0; 8_000], noise, dtmf] {
            assert_eq!(heard_words(&pcm), []);
        }
    }

    #[test]
    fn a_voice_activity_detector_takes_it_for_speech() {
        let speech =
            speak("I would like to book a table for two on Tuesday evening", 16_000, LETTERS_PER_SECOND);
        let mut detector = earshot::Detector::default();
        let scores: Vec<f32> =
            speech.pcm.chunks_exact(256).map(|frame| detector.predict_i16(frame)).collect();
        let voiced = scores.iter().filter(|score| **score >= 0.5).count();
        assert!(voiced * 100 >= scores.len() * 95, "{voiced} of {} frames", scores.len());
    }

    fn midpoint(a: i16, b: i16) -> i16 {
        ((i32::from(a) + i32::from(b)) / 2) as i16
    }

    fn text_of(words: &[HeardWord]) -> String {
        words.iter().map(|word| word.word.as_str()).collect::<Vec<_>>().join(" ")
    }
}
