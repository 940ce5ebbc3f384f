//! Speaks American English with the voice slt of Flite 2.2, on this machine alone: a safe binding to its C library.
//! It knows text and samples; it does not know how people write what is to be said on a telephone.
#![allow(unsafe_code, reason = "calls a C library; every unsafe block says why it holds")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::Mutex;

/// The longest text spoken at once, in bytes; Flite holds a whole text in memory as it works.
pub const MAX_TEXT_BYTES: usize = 2_000;

/// What was spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speech {
    /// Signed 16-bit samples, mono.
    pub samples: Vec<i16>,
    /// Samples a second: 16,000 with this voice.
    pub rate_hz: u32,
}

/// Why a text cannot be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Split it at a sentence.
    #[error("the text is longer than {MAX_TEXT_BYTES} bytes")]
    TooLong,
    /// Flite made no audio of it.
    #[error("flite could not speak the text")]
    Failed,
}

/// Speaks a text: plain ASCII with punctuation; other characters are left out. A text without a letter or digit is
/// silent. It takes 10 to 40 ms a sentence, and one text at a time is worked on in the whole program, because Flite's
/// voice counts references without locks.
///
/// # Errors
/// [`Error::TooLong`] and [`Error::Failed`].
pub fn speak(text: &str) -> Result<Speech, Error> {
    static VOICE: Mutex<()> = Mutex::new(());
    if text.len() > MAX_TEXT_BYTES {
        return Err(Error::TooLong);
    }
    let text: Vec<u8> = text.bytes().filter(|byte| (b' '..=b'~').contains(byte)).collect();
    if !text.iter().any(u8::is_ascii_alphanumeric) {
        return Ok(Speech { samples: Vec::new(), rate_hz: 16_000 });
    }
    let text = CString::new(text).expect("only printable characters are left");
    let _one_at_a_time = VOICE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // SAFETY: the lock is held; Flite copies the text; the wave is ours until `delete_wave`, and its samples are as
    // many as it says.
    unsafe {
        // The voice's breath is noise from the C library's generator: seeded, the same text sounds the same.
        srand(1);
        flite_init();
        let voice = register_cmu_us_slt(std::ptr::null());
        let wave = flite_text_to_wave(text.as_ptr(), voice);
        if wave.is_null() {
            return Err(Error::Failed);
        }
        let count = usize::try_from((*wave).num_samples).unwrap_or(0);
        let samples =
            if count == 0 { Vec::new() } else { std::slice::from_raw_parts((*wave).samples, count).to_vec() };
        let rate_hz = u32::try_from((*wave).sample_rate);
        delete_wave(wave);
        Ok(Speech { samples, rate_hz: rate_hz.map_err(|_| Error::Failed)? })
    }
}

/// `cst_wave` of cst_wave.h.
#[repr(C)]
struct Wave {
    kind: *const c_char,
    sample_rate: c_int,
    num_samples: c_int,
    num_channels: c_int,
    samples: *mut i16,
}

unsafe extern "C" {
    fn flite_init() -> c_int;
    fn register_cmu_us_slt(folder: *const c_char) -> *mut c_void;
    fn flite_text_to_wave(text: *const c_char, voice: *mut c_void) -> *mut Wave;
    fn delete_wave(wave: *mut Wave);
    fn srand(seed: c_uint);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_heard_and_silence_is_not() {
        let speech = speak("We are open from nine to five.").unwrap();
        assert_eq!(speech.rate_hz, 16_000);
        let seconds = speech.samples.len() as f32 / 16_000.0;
        assert!((1.5..3.0).contains(&seconds), "{seconds}");
        assert!(speech.samples.iter().any(|sample| sample.unsigned_abs() > 5_000));
        for silent in ["", " ", "...", "\u{4f60}\u{597d}", "\0\n\t"] {
            assert!(speak(silent).unwrap().samples.is_empty(), "{silent:?}");
        }
    }

    #[test]
    fn the_same_text_sounds_the_same_from_many_threads() {
        let first = speak("One moment please.").unwrap();
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(|| speak("One moment please.").unwrap())).collect();
        for thread in threads {
            assert!(thread.join().unwrap() == first, "it sounds otherwise");
        }
    }

    #[test]
    fn no_text_is_too_odd() {
        assert_eq!(speak(&"a ".repeat(1_001)), Err(Error::TooLong));
        speak(&"a".repeat(100)).unwrap();
        let mut state = 1_u32;
        for _ in 0..100 {
            let odd: String = (0..30)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    char::from(b' ' + (state >> 16) as u8 % 95)
                })
                .collect();
            speak(&odd).unwrap();
        }
    }
}
