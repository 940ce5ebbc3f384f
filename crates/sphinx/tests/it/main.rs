//! Speech made by Flite, sent through a telephone's band, and recognised.

use offhook_media::resample::Resampler;
use offhook_sphinx::{Error, Hypothesis, Model, Recogniser, SAMPLE_RATE_HZ, TRUSTED, contains_word};
use std::sync::OnceLock;

const HOURS: &str = "#JSGF V1.0; grammar hours; \
    public <question> = [hello | hi] (when are you open | are you open on <day> | what time do you close [on <day>]) [please]; \
    <day> = monday | tuesday | wednesday | thursday | friday | saturday | sunday;";

const YES_NO: &str = "#JSGF V1.0; grammar answer; public <answer> = yes | no;";

#[test]
fn sentences_of_the_grammar_are_understood_on_a_telephone() {
    let mut recogniser = recogniser(HOURS);
    for sentence in
        ["are you open on saturday", "hi when are you open", "what time do you close on friday please"]
    {
        let heard = hear(&mut recogniser, sentence).expect(sentence);
        assert_eq!(heard.text, sentence);
        assert!(heard.confidence >= TRUSTED, "{heard:?}");
    }
}

#[test]
fn other_speech_is_not_trusted() {
    let mut recogniser = recogniser(HOURS);
    for sentence in
        ["my dog ate the blue shoes", "please order two large pizzas", "she plays the violin very well"]
    {
        let heard = hear(&mut recogniser, sentence);
        assert!(heard.as_ref().is_none_or(|heard| heard.confidence < TRUSTED), "{sentence}: {heard:?}");
    }
}

#[test]
fn words_appear_while_they_are_spoken() {
    let mut recogniser = recogniser(HOURS);
    recogniser.start();
    let mut partials = vec![];
    for frame in telephone("what time do you close on friday").chunks(frame()) {
        recogniser.feed(frame);
        partials.extend(recogniser.partial().map(|heard| heard.text));
    }
    assert!(partials.iter().any(|text| text == "what time"), "{partials:?}");
    assert_eq!(recogniser.finish().unwrap().text, "what time do you close on friday");
    assert_eq!(recogniser.finish(), None, "an utterance ends once");
}

#[test]
fn the_grammar_can_change_between_utterances() {
    let mut recogniser = recogniser(HOURS);
    recogniser.set_grammar(YES_NO).unwrap();
    assert_eq!(hear(&mut recogniser, "yes").unwrap().text, "yes");
    let refusal = recogniser.set_grammar("#JSGF V1.0; grammar g; public <a> = hello offhook;").unwrap_err();
    assert!(matches!(&refusal, Error::UnknownWords(words) if words == &["offhook"]), "{refusal}");
    assert_eq!(hear(&mut recogniser, "no").unwrap().text, "no", "the former grammar stays");
}

#[test]
fn odd_orders_and_sounds_do_no_harm() {
    let mut recogniser = recogniser(YES_NO);
    recogniser.feed(&[1; 100]);
    assert_eq!((recogniser.partial(), recogniser.finish()), (None, None));
    recogniser.start();
    recogniser.start();
    assert_eq!(recogniser.finish(), None, "nothing was said");
    for sound in [vec![0; 16_000], vec![i16::MIN; 16_000], vec![7; 1]] {
        recogniser.start();
        recogniser.feed(&sound);
        recogniser.feed(&[]);
        let heard = recogniser.finish();
        assert!(heard.as_ref().is_none_or(|heard| heard.confidence < TRUSTED), "{heard:?}");
    }
    // Noise may sound like a word: to keep it away is the business of voice activity detection.
    recogniser.start();
    recogniser.feed(&noise(48_000));
    recogniser.finish();
    recogniser.forget_voice();
    assert_eq!(hear(&mut recogniser, "yes").unwrap().text, "yes");
}

#[test]
fn many_voices_are_heard_at_once() {
    let threads: Vec<_> = ["are you open on monday", "when are you open", "are you open on saturday please"]
        .map(|sentence| (sentence, recogniser(HOURS)))
        .into_iter()
        .map(|(sentence, mut recogniser)| {
            std::thread::spawn(move || assert_eq!(hear(&mut recogniser, sentence).unwrap().text, sentence))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn the_dictionary_knows_what_callers_say() {
    for word in ["appointment", "o'clock", "wednesday", "don't", "maria"] {
        assert!(contains_word(word), "{word}");
    }
}

fn recogniser(jsgf: &str) -> Recogniser {
    static CACHE: OnceLock<(tempfile::TempDir, Model)> = OnceLock::new();
    let (_folder, model) = CACHE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let model = Model::unpack(folder.path()).unwrap();
        (folder, model)
    });
    Recogniser::new(model, jsgf).unwrap()
}

fn hear(recogniser: &mut Recogniser, sentence: &str) -> Option<Hypothesis> {
    recogniser.start();
    for frame in telephone(sentence).chunks(frame()) {
        recogniser.feed(frame);
    }
    recogniser.finish()
}

/// A sentence as it arrives by telephone: 8 kHz, doubled again for the recogniser, with a little silence around it.
fn telephone(sentence: &str) -> Vec<i16> {
    let speech = offhook_flite::speak(sentence).unwrap();
    let line = resampled(&speech.samples, speech.rate_hz, 8_000);
    let silence = vec![0; 2_400];
    resampled(&[&silence[..], &line, &silence].concat(), 8_000, SAMPLE_RATE_HZ)
}

fn resampled(pcm: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    let mut out = vec![];
    let mut resampler = Resampler::new(from_hz, to_hz).unwrap();
    resampler.push(pcm, &mut out);
    resampler.flush(&mut out);
    out
}

fn frame() -> usize {
    SAMPLE_RATE_HZ as usize / 50
}

fn noise(samples: usize) -> Vec<i16> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 18) as i16 - 8_192
    };
    (0..samples).map(|_| next()).collect()
}
