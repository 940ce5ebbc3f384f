//! What every voice double does with text: turns it into encoded audio, in messages, each at its time, faults included.
//! It knows no provider's messages.

use super::program::{Moment, Program};
use super::records::Entry;
use super::socket::Outgoing;
use super::spelled::{HeardWord, SpokenCharacter, speak};
use super::{Agenda, Fault, Service, Shared, VoiceSettings};
use axum::body::Bytes;
use offhook_media::g711::Law;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How samples become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Mulaw,
    Alaw,
    /// Signed, 16 bits, little end first.
    Linear16,
    /// IEEE 754, little end first.
    Float32,
}

impl Encoding {
    pub fn sample_bytes(self) -> usize {
        match self {
            Encoding::Mulaw | Encoding::Alaw => 1,
            Encoding::Linear16 => 2,
            Encoding::Float32 => 4,
        }
    }

    pub fn encode(self, pcm: &[i16]) -> Bytes {
        let mut bytes = Vec::with_capacity(pcm.len() * self.sample_bytes());
        match self {
            Encoding::Mulaw => Law::Mu.encode(pcm, &mut bytes),
            Encoding::Alaw => Law::A.encode(pcm, &mut bytes),
            Encoding::Linear16 => bytes.extend(pcm.iter().flat_map(|sample| sample.to_le_bytes())),
            Encoding::Float32 => {
                bytes.extend(pcm.iter().flat_map(|sample| (f32::from(*sample) / FULL_SCALE).to_le_bytes()));
            }
        }
        bytes.into()
    }

    /// Appends the samples of whole bytes.
    pub fn decode(self, bytes: &[u8], pcm: &mut Vec<i16>) {
        match self {
            Encoding::Mulaw => Law::Mu.decode(bytes, pcm),
            Encoding::Alaw => Law::A.decode(bytes, pcm),
            Encoding::Linear16 => {
                pcm.extend(bytes.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]])));
            }
            Encoding::Float32 => {
                let sample = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                pcm.extend(bytes.chunks_exact(4).map(|bytes| (sample(bytes) * FULL_SCALE) as i16));
            }
        }
    }
}

const FULL_SCALE: f32 = 32_768.0;

/// An encoding at a rate, without any container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AudioFormat {
    pub encoding: Encoding,
    pub rate_hz: u32,
}

/// One text as it will be sent.
pub(super) struct Delivery {
    /// How long the whole of it sounds.
    pub audio_ms: u64,
    /// Each piece with the time from the first audio of this text.
    pub pieces: Vec<(Duration, Piece)>,
}

/// One step of a delivery.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Audio(Chunk),
    /// A message that is not JSON.
    NotJson,
    /// The connection breaks.
    Cut,
    /// All of it was sent.
    Done,
}

/// One message of audio.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub bytes: Bytes,
    /// Where it lies in the audio of its text.
    pub from_ms: u64,
    pub to_ms: u64,
    /// The words and characters that begin in it, timed from the beginning of the text.
    pub words: Vec<HeardWord>,
    pub characters: Vec<SpokenCharacter>,
}

/// What an endless voice says stops after this long all the same, so that memory does not.
const ENDLESS_MS: u64 = 600_000;

impl Delivery {
    pub fn of(text: &str, format: AudioFormat, program: &Program, fault: Option<Fault>) -> Delivery {
        let voice = &program.voice;
        let speech = speak(text, format.rate_hz, voice.letters_per_second);
        let samples_per_chunk = (u64::from(format.rate_hz) * voice.chunk_ms.max(1) / 1_000).max(1) as usize;
        let ms = |samples: usize| samples as u64 * 1_000 / u64::from(format.rate_hz);

        let chunks = speech.pcm.chunks(samples_per_chunk).enumerate().map(|(place, pcm)| {
            let (from_ms, to_ms) = (ms(place * samples_per_chunk), ms(place * samples_per_chunk + pcm.len()));
            let within = |start_ms: u64| (from_ms..to_ms).contains(&start_ms);
            Chunk {
                bytes: format.encoding.encode(pcm),
                from_ms,
                to_ms,
                words: speech.words.iter().filter(|word| within(word.start_ms)).cloned().collect(),
                characters: speech
                    .characters
                    .iter()
                    .filter(|spoken| within(spoken.start_ms))
                    .copied()
                    .collect(),
            }
        });
        let mut pieces: Vec<(Duration, Piece)> =
            chunks.map(|chunk| (sent_after(chunk.from_ms, voice), Piece::Audio(chunk))).collect();
        let end = pieces.last().map_or(Duration::ZERO, |(at, _)| *at);
        let half = pieces.len() / 2;
        let late = Duration::from_millis(program.delays.late_ms);
        match fault {
            Some(Fault::Stall) => pieces.clear(),
            Some(Fault::StallMidStream) => pieces.truncate(half),
            Some(Fault::Cut) => {
                let at = pieces.get(half).map_or(end, |(at, _)| *at);
                pieces.truncate(half);
                pieces.push((at, Piece::Cut));
            }
            Some(Fault::MalformedJson) => {
                let at = pieces.get(half).map_or(end, |(at, _)| *at);
                pieces.insert(half, (at, Piece::NotJson));
                pieces.push((end, Piece::Done));
            }
            Some(Fault::Endless) => repeat(&mut pieces, speech.duration_ms, voice),
            Some(Fault::Empty) => pieces = vec![(Duration::ZERO, Piece::Done)],
            Some(Fault::Late) => {
                if let Some((at, _)) = pieces.last_mut() {
                    *at += late;
                }
                pieces.push((end + late, Piece::Done));
            }
            Some(Fault::Duplicate) => pieces.extend([(end, Piece::Done), (end, Piece::Done)]),
            Some(Fault::WrongOrder) => pieces.insert(pieces.len().saturating_sub(1), (end, Piece::Done)),
            _ => pieces.push((end, Piece::Done)),
        }
        Delivery { audio_ms: speech.duration_ms, pieces }
    }
}

fn sent_after(audio_ms: u64, voice: &VoiceSettings) -> Duration {
    if voice.times_real_time <= 0.0 {
        return Duration::ZERO;
    }
    Duration::from_secs_f64(audio_ms as f64 / 1_000.0 / voice.times_real_time)
}

/// Says it again and again. Endless audio comes at a finite rate even where all audio comes at once.
fn repeat(pieces: &mut Vec<(Duration, Piece)>, duration_ms: u64, voice: &VoiceSettings) {
    const ENDLESS_TIMES_REAL_TIME: f64 = 20.0;
    let times = if voice.times_real_time > 0.0 { voice.times_real_time } else { ENDLESS_TIMES_REAL_TIME };
    let once = std::mem::take(pieces);
    let rounds = ENDLESS_MS.checked_div(duration_ms).unwrap_or(0);
    for round in 0..rounds {
        let again = once.iter().filter_map(|(_, piece)| match piece {
            Piece::Audio(chunk) => Some(chunk.clone()),
            _ => None,
        });
        pieces.extend(again.map(|mut chunk| {
            let later_ms = round * duration_ms;
            let words = chunk.words.iter_mut().map(|word| (&mut word.start_ms, &mut word.end_ms));
            let characters =
                chunk.characters.iter_mut().map(|spoken| (&mut spoken.start_ms, &mut spoken.end_ms));
            let chunk_itself = std::iter::once((&mut chunk.from_ms, &mut chunk.to_ms));
            for (from_ms, to_ms) in words.chain(characters).chain(chunk_itself) {
                *from_ms += later_ms;
                *to_ms += later_ms;
            }
            (Duration::from_secs_f64(chunk.from_ms as f64 / 1_000.0 / times), Piece::Audio(chunk))
        }));
    }
}

/// What a voice socket will do: steps of deliveries, and messages of its own between them.
pub(super) enum Due {
    /// A step of the delivery with this number.
    Piece(usize, Piece),
    /// Something to send as it is.
    Send(Outgoing),
    /// A look at this context, which asked for it.
    Wake(String),
}

/// A text to be spoken.
pub(super) struct Text<'a> {
    /// The client's name for what it belongs to.
    pub context: &'a str,
    pub text: &'a str,
    pub format: AudioFormat,
}

/// The deliveries of one socket, each begun when the one before it in the same context is sent.
pub(super) struct Voice {
    service: Service,
    shared: Arc<Shared>,
    agenda: Agenda<Due>,
}

impl Voice {
    pub fn new(service: Service, shared: Arc<Shared>) -> Voice {
        Voice { service, shared, agenda: Agenda::new() }
    }

    pub async fn due(&mut self) -> Due {
        self.agenda.due().await
    }

    pub fn push(&mut self, at: Instant, outgoing: Outgoing) {
        self.agenda.push(at, Due::Send(outgoing));
    }

    pub fn wake(&mut self, at: Instant, context: &str) {
        self.agenda.push(at, Due::Wake(context.to_owned()));
    }

    /// Speaks a text, not before `busy_until`. Hands out the delivery's number (which is also its place in
    /// the record), when the last of it will be sent, and how long it sounds.
    pub fn speak(&mut self, text: &Text, busy_until: Instant, entry: &Entry) -> (usize, Instant, u64) {
        let fault = self.shared.draw(self.service, Moment::Answer, entry);
        let program = self.shared.program();
        let delivery = Delivery::of(text.text, text.format, &program, fault);
        let began = busy_until.max(Instant::now() + Duration::from_millis(program.delays.first_audio_ms));
        drop(program);
        let number = entry.speaks(text.context, text.text, delivery.audio_ms);
        let delivery_ms = delivery.audio_ms;
        let mut ends = began;
        for (after, piece) in delivery.pieces {
            ends = ends.max(began + after);
            self.agenda.push(began + after, Due::Piece(number, piece));
        }
        (number, ends, delivery_ms)
    }

    /// Drops whole deliveries.
    pub fn discard(&mut self, numbers: &BTreeSet<usize>) {
        self.agenda.retain(|_, due| !matches!(due, Due::Piece(number, _) if numbers.contains(number)));
    }

    /// Drops what is still to be sent of these deliveries, but for the late chunks that were programmed; hands out when
    /// the last of those will be sent.
    pub fn cancel(&mut self, numbers: &[usize], entry: &Entry) -> Instant {
        let mut late_chunks = self.shared.program().voice.late_chunks;
        let mut last_sent = Instant::now();
        self.agenda.retain(|at, due| {
            let Due::Piece(number, piece) = due else { return true };
            if !numbers.contains(number) {
                return true;
            }
            let audio = matches!(piece, Piece::Audio(_));
            if audio {
                entry.cancelled(*number);
            }
            let stays = audio && late_chunks > 0;
            if stays {
                late_chunks -= 1;
                last_sent = last_sent.max(at);
            }
            stays
        });
        last_sent
    }
}
