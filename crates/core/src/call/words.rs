//! Small judgements about words: whether a sentence is finished, whether somebody only hums along, where a clause ends.
//! It knows English best and punctuation everywhere; it knows nothing of time.

use crate::Language;

/// How finished an utterance sounds by its words alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    /// A whole sentence.
    Complete,
    /// It could end here.
    Unsure,
    /// More must come: a dangling word, a number being dictated.
    Unfinished,
}

/// What fills a pause in most languages: the speaker goes on.
const HESITATIONS: &[&str] = &["um", "uh", "er", "erm", "uhm", "äh", "ähm", "öh", "euh", "eh"];

/// Words of a language that nobody ends a sentence with, whatever punctuation a recogniser puts behind them.
fn dangling(language: &Language) -> &'static [&'static str] {
    match language.primary() {
        "en" => &[
            "a", "an", "the", "and", "or", "but", "because", "if", "of", "to", "for", "from", "with", "at",
            "my", "your", "our", "his", "their", "its",
        ],
        "de" => &[
            "und", "oder", "aber", "weil", "wenn", "der", "die", "das", "den", "ein", "eine", "einen", "mein",
        ],
        "es" => &["y", "o", "pero", "el", "la", "un", "una", "de", "mi", "porque"],
        "fr" => &["et", "ou", "mais", "le", "les", "un", "une", "de", "mon", "parce"],
        _ => &[],
    }
}

/// Words of a language that end a sentence only where the recogniser hears its end.
fn often_dangling(language: &Language) -> &'static [&'static str] {
    match language.primary() {
        "en" => &[
            "so", "when", "that", "which", "who", "in", "on", "by", "about", "is", "are", "was", "were",
            "am", "be", "i", "im", "we", "you", "he", "she", "they", "can", "could", "would", "will",
            "should", "do", "does", "did", "want", "need", "like", "hmm", "well", "then", "please", "let",
            "lets",
        ],
        _ => &[],
    }
}

/// Whole utterances after which the caller has said what they wanted, although the last word dangles.
const SHORT_ANSWERS: &[&str] =
    &["please", "i do", "i am", "we are", "we do", "i would", "i can", "yes please"];

/// How a language says digits one by one.
fn digit_words(language: &Language) -> &'static [&'static str] {
    match language.primary() {
        "en" => &[
            "zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "double",
            "triple", "plus",
        ],
        "de" => &[
            "null", "eins", "zwei", "zwo", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "plus",
        ],
        "es" => &["cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"],
        "fr" => &["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"],
        _ => &[],
    }
}

/// What people say to show that they listen. Alone, it is no turn and no interruption.
const BACKCHANNEL: &[&str] = &[
    "mm", "mmm", "mhm", "mmhmm", "hm", "hmm", "uh", "huh", "uhhuh", "um", "ah", "oh", "yeah", "yep", "yes",
    "yup", "ok", "okay", "right", "sure", "i", "see", "got", "it", "good", "great", "cool", "nice", "aha",
    "ja", "genau", "oui", "si", "sí", "claro",
];

/// Backchannel words that mean nothing by themselves.
const BACKCHANNEL_PAIRS: &[(&str, &str)] = &[("i", "see"), ("got", "it")];

/// What is said over a goodbye without meaning to stop it.
const FAREWELL: &[&str] = &[
    "bye", "goodbye", "thanks", "thank", "you", "so", "much", "too", "have", "a", "day", "later", "tschüss",
    "adios",
];

/// How many digits in a row sound like a number that is being dictated, and when it has enough of them.
const DICTATED_DIGITS: std::ops::Range<usize> = 2..7;

/// The words of a text in lower case without punctuation.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| c.is_whitespace() || c == '-' || c == '…').filter_map(|raw| {
        let word: String = raw.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        (!word.is_empty()).then_some(word)
    })
}

/// A text reduced to what was said: two transcripts with the same value say the same.
pub(super) fn normalized(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in words(text) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&word);
    }
    out
}

/// How many words two texts begin with in common.
pub(super) fn shared_beginning(one: &str, other: &str) -> usize {
    words(one).zip(words(other)).take_while(|(a, b)| a == b).count()
}

/// The text after its first `count` words.
pub(super) fn after_words(text: &str, count: usize) -> &str {
    let mut rest = text.trim_start();
    let mut passed = 0;
    while passed < count && !rest.is_empty() {
        let end = rest.find(|c: char| c.is_whitespace() || c == '-' || c == '…').unwrap_or(rest.len());
        passed += usize::from(rest[..end].chars().any(char::is_alphanumeric));
        rest = rest[end..].trim_start_matches(|c: char| c.is_whitespace() || c == '-' || c == '…');
    }
    rest
}

/// Judges by words and punctuation whether more is to come.
pub(super) fn finished(text: &str, language: &Language) -> Finished {
    let trimmed = text.trim_end();
    let all: Vec<String> = words(trimmed).collect();
    let Some(last) = all.last() else { return Finished::Unsure };
    if trimmed.ends_with("...") || trimmed.ends_with(['…', ',', '-', '—', ':']) {
        return Finished::Unfinished;
    }
    let punctuated = trimmed.ends_with(['.', '?', '!', '。', '？', '！', '।', '؟']);
    let is_number = |w: &str| w.bytes().all(|b| b.is_ascii_digit());
    let is_digits = |w: &str| is_number(w) || digit_words(language).contains(&w);
    let spoken: Vec<&String> = all.iter().rev().take_while(|w| is_digits(w)).collect();
    let digits: usize = spoken.iter().map(|w| if is_number(w) { w.len() } else { 1 }).sum();
    if DICTATED_DIGITS.contains(&digits) && all.len() > 1 {
        // One number at the end of a sentence is an hour or a price as often as a part of something longer.
        let sentence = punctuated && spoken.len() == 1;
        return if sentence { Finished::Unsure } else { Finished::Unfinished };
    }
    let whole = all.join(" ");
    let short = SHORT_ANSWERS.contains(&whole.as_str()) || is_backchannel(&whole);
    let hesitates =
        HESITATIONS.contains(&last.as_str()) && all.iter().all(|w| HESITATIONS.contains(&w.as_str()));
    let dangles = HESITATIONS.contains(&last.as_str())
        || dangling(language).contains(&last.as_str())
        || (!punctuated && often_dangling(language).contains(&last.as_str()));
    if hesitates || (dangles && !short && !trimmed.ends_with('?')) {
        return Finished::Unfinished;
    }
    if short || punctuated { Finished::Complete } else { Finished::Unsure }
}

/// Whether the words only show that the caller listens.
pub(super) fn is_backchannel(text: &str) -> bool {
    let all: Vec<String> = words(text).collect();
    if all.is_empty() || all.len() > 4 || !all.iter().all(|w| BACKCHANNEL.contains(&w.as_str())) {
        return false;
    }
    all.iter().enumerate().all(|(i, word)| {
        BACKCHANNEL_PAIRS.iter().all(|(first, second)| {
            (word != first || all.get(i + 1).is_some_and(|n| n == second))
                && (word != second || (i > 0 && all[i - 1] == *first))
        })
    })
}

/// What takes a call, said by a person who is asked to.
const YES: &[&str] = &[
    "yes",
    "yeah",
    "yep",
    "yup",
    "ok",
    "okay",
    "sure",
    "accept",
    "fine",
    "absolutely",
    "certainly",
    "connect",
    "ja",
    "jawohl",
    "gerne",
    "klar",
    "sí",
    "si",
    "claro",
    "vale",
    "oui",
    "daccord",
    "da",
    "tak",
    "sim",
];

/// What refuses it.
const NO: &[&str] = &[
    "no", "nope", "nah", "not", "dont", "cant", "cannot", "never", "decline", "reject", "later", "busy",
    "nein", "nicht", "non", "pas", "não", "nie",
];

/// A person who is asked answers in so many words; a mailbox talks on.
const CONSENT_WORDS: usize = 7;

/// Whether a person who is asked to take a call takes it; `None`: the words say neither.
pub(super) fn consents(text: &str) -> Option<bool> {
    // "Yes?" is said into a phone that rings.
    if asks(text) {
        return None;
    }
    let all: Vec<String> = words(text).take(CONSENT_WORDS + 1).collect();
    let says = |list: &[&str]| all.iter().any(|w| list.contains(&w.as_str()));
    if all.len() > CONSENT_WORDS {
        return None;
    }
    match (says(YES), says(NO)) {
        (true, false) => Some(true),
        (false, true) => Some(all.join(" ") == "no problem"),
        // "Yes, why not."
        (true, true) | (false, false) => None,
    }
}

/// Whether the words only answer a goodbye.
pub(super) fn is_farewell(text: &str) -> bool {
    let mut any = false;
    words(text).all(|w| {
        any = true;
        FAREWELL.contains(&w.as_str()) || BACKCHANNEL.contains(&w.as_str())
    }) && any
}

/// Whether a text ends in a question: then "yes" is an answer to it and not a hum.
pub(super) fn asks(text: &str) -> bool {
    text.trim_end().ends_with(['?', '？', '؟'])
}

/// Whether a word ends at this byte of a text. Chinese, Japanese and Thai put no spaces between words: there every
/// character may end one.
pub(super) fn ends_word(text: &str, at: usize) -> bool {
    if !text.is_char_boundary(at) {
        return false;
    }
    let (before, after) = text.split_at(at);
    let after = after.chars().next();
    // Signs that belong to the letter before them.
    let joined = matches!(
        after,
        Some('\u{e31}' | '\u{e34}'..='\u{e3a}' | '\u{e47}'..='\u{e4e}' | '\u{3099}' | '\u{309a}')
    );
    after.is_none_or(char::is_whitespace)
        || (!joined
            && (before.chars().next_back().is_some_and(is_unspaced) || after.is_some_and(is_unspaced)))
}

fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3000}'..='\u{30ff}'
        | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ff60}' | '\u{20000}'..='\u{3ffff}')
}

/// Whether a text stops where a speaker may breathe.
pub(super) fn ends_clause(text: &str) -> bool {
    text.trim_end().ends_with(['.', ',', '?', '!', ';', ':', '—', '。', '？', '！', '，', '、', '।', '؟'])
}

/// Where the next clause of a reply being written ends, in bytes of `text`; `None`: wait for more text.
/// The first clause may be short so that the caller hears something soon; later ones are longer so that they sound whole.
pub(super) fn clause_end(text: &str, first: bool) -> Option<usize> {
    const LATER_COMMA_CHARS: usize = 40;
    const LONGEST_CHARS: usize = 180;
    let mut previous = ' ';
    let mut last_space = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let end = at + c.len_utf8();
        let next = chars.peek().map(|(_, n)| *n);
        let wide = matches!(c, '。' | '？' | '！' | '，' | '、' | '।' | '؟');
        let sentence =
            matches!(c, '.' | '?' | '!' | ';' | ':' | '\n') || matches!(c, '。' | '？' | '！' | '।' | '؟');
        let comma = matches!(c, ',' | '—' | '，' | '、') && (first || at >= LATER_COMMA_CHARS);
        if sentence || comma {
            // "1,000", "9:30", "3.5" and "e.g." go on; what follows a digit is not known before it is there.
            let settled = match next {
                Some(n) => wide || n.is_whitespace() || c == '\n',
                None => !previous.is_ascii_digit(),
            };
            if settled
                && text[..at].chars().any(char::is_alphanumeric)
                && !(c == '.' && is_abbreviation(&text[..at]))
            {
                return Some(end);
            }
        }
        if c.is_whitespace() {
            last_space = Some(end);
        }
        if at >= LONGEST_CHARS {
            return Some(last_space.unwrap_or(end));
        }
        previous = c;
    }
    None
}

fn is_abbreviation(before: &str) -> bool {
    const ABBREVIATIONS: &[&str] =
        &["dr", "mr", "mrs", "ms", "st", "no", "e.g", "i.e", "vs", "prof", "approx"];
    let word = before.rsplit(char::is_whitespace).next().unwrap_or_default().to_lowercase();
    let initial = word.chars().count() == 1 && word != "i" && word.chars().all(char::is_alphabetic);
    initial || ABBREVIATIONS.contains(&word.as_str()) || (word.ends_with("a.m") || word.ends_with("p.m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_judged_by_their_words() {
        for complete in [
            "yeah.",
            "Yes.",
            "ok",
            "What time do you open?",
            "I want to cancel my order.",
            "My number is 415 555 0123.",
        ] {
            assert_eq!(finished(complete, &Language::english()), Finished::Complete, "{complete}");
        }
        for unfinished in [
            "my number is five five",
            "I would like to",
            "and um",
            "Well,",
            "It is 41 5",
            "Um.",
            "uh",
            "My number is five five.",
            "could you check the",
        ] {
            assert_eq!(finished(unfinished, &Language::english()), Finished::Unfinished, "{unfinished}");
        }
        for unsure in ["could you check my order", "", "book a table", "Tomorrow at 7:30.", "A table for 10."]
        {
            assert_eq!(finished(unsure, &Language::english()), Finished::Unsure, "{unsure}");
        }
    }

    #[test]
    fn texts_are_compared_by_their_words() {
        assert_eq!(shared_beginning("My uh-huh number", "my uh huh, name"), 3);
        assert_eq!(after_words("Well, um - I spoke to Quinn.", 3), "spoke to Quinn.");
        assert_eq!(after_words("Yes.", 4), "");
    }

    #[test]
    fn humming_along_is_no_interruption() {
        for hum in ["mm-hm", "Mhm.", "uh-huh", "yeah, okay", "I see.", "right", "Got it!"] {
            assert!(is_backchannel(hum), "{hum}");
        }
        for turn in ["", "I", "see", "got", "no", "wait", "yes I do", "okay but what about Sunday", "stop"] {
            assert!(!is_backchannel(turn), "{turn}");
        }
        assert!(is_farewell("Thank you, bye!") && !is_farewell("wait, one more thing") && !is_farewell(""));
    }

    #[test]
    fn a_person_takes_a_call_by_saying_so() {
        for yes in ["Yes.", "yeah, okay", "Sure, put them through.", "Ja, gerne.", "No problem."] {
            assert_eq!(consents(yes), Some(true), "{yes}");
        }
        for no in ["No.", "no thanks", "Not now.", "I can't, sorry."] {
            assert_eq!(consents(no), Some(false), "{no}");
        }
        for neither in [
            "",
            "Yes?",
            "Who is it",
            "Yes, you have reached the mailbox of Ada Lovelace, please leave a message",
        ] {
            assert_eq!(consents(neither), None, "{neither}");
        }
    }

    #[test]
    fn a_word_dangles_in_its_own_language_only() {
        let german: Language = "de".parse().unwrap();
        assert_eq!(finished("Did the flowers die.", &Language::english()), Finished::Complete);
        assert_eq!(finished("Ich suche die.", &german), Finished::Unfinished);
        assert_eq!(finished("meine Nummer ist fünf fünf", &german), Finished::Unfinished);
    }

    #[test]
    fn clauses_end_where_a_speaker_breathes() {
        let first = |t| clause_end(t, true).map(|e| &t[..e]);
        assert_eq!(first("Sure,"), Some("Sure,"));
        assert_eq!(first("Sure"), None);
        assert_eq!(first("It costs 1,"), None);
        assert_eq!(first("It costs 1,000 dollars"), None);
        assert_eq!(first("We open at 9:30 and"), None);
        assert_eq!(first("Dr. Smith is in."), Some("Dr. Smith is in."));
        assert_eq!(first("We open at 9 a.m. on"), None);
        assert_eq!(first("はい。明日"), Some("はい。"));
        assert_eq!(clause_end("we have it, right here", false), None);
        let long = "x".repeat(60) + ", and";
        assert_eq!(clause_end(&long, false), Some(61));
        assert_eq!(clause_end(&"word ".repeat(50), false), Some(180));
    }
}
