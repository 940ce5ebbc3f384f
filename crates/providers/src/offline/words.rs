//! Compares what a caller said with what they may have meant: contractions, plurals, synonyms, small misspellings.
//! It knows English words and no business.

/// Words that say nothing about the matter.
const FILLERS: &[&str] = &[
    "a", "an", "and", "any", "are", "at", "be", "can", "could", "do", "for", "get", "give", "have", "hello",
    "hey", "hi", "i", "in", "is", "it", "just", "know", "like", "me", "my", "of", "ok", "on", "or", "please",
    "so", "tell", "thank", "thanks", "that", "the", "then", "there", "this", "to", "uh", "um", "us", "want",
    "was", "we", "well", "what", "will", "would", "you", "your", "yes", "need", "am", "by", "with", "if",
    "about", "some", "wonder",
];

/// Words that mean the same here: all but the first are replaced by the first.
const SYNONYMS: &[&[&str]] = &[
    &["address", "located", "location", "direction", "situated"],
    &["appointment", "booking", "reservation", "slot"],
    &["card", "visa", "mastercard", "debit"],
    &["children", "child", "kid", "toddler"],
    &["close", "closing", "closed", "shut"],
    &["hair", "haircut", "trim"],
    &["hour", "schedule"],
    &["message", "voicemail", "note"],
    &["open", "opening", "opened"],
    &["park", "parking", "garage"],
    &["pay", "payment", "paying"],
    &[
        "person",
        "human",
        "somebody",
        "someone",
        "anybody",
        "anyone",
        "staff",
        "manager",
        "owner",
        "receptionist",
        "people",
    ],
    &["price", "cost", "charge", "fee", "expensive", "rate", "much"],
    &["reserve", "book"],
    &["robot", "machine", "computer", "bot", "ai", "automated", "recording", "real"],
    &["take", "accept"],
    &["talk", "speak", "speaking", "talking"],
];

const CONTRACTIONS: &[(&str, &str)] = &[
    ("can't", "can not"),
    ("won't", "will not"),
    ("n't", " not"),
    ("'re", " are"),
    ("'ll", " will"),
    ("'ve", " have"),
    ("'m", " am"),
    ("'d", " would"),
    ("let's", "let us"),
    ("what's", "what is"),
    ("that's", "that is"),
    ("it's", "it is"),
    ("where's", "where is"),
    ("when's", "when is"),
    ("there's", "there is"),
    ("name's", "name is"),
    ("number's", "number is"),
    ("how's", "how is"),
];

/// The words of a text in lower case: contractions written out, punctuation gone.
pub fn words(text: &str) -> Vec<String> {
    let mut text = text.to_lowercase().replace(['\u{2019}', '`'], "'");
    for (short, long) in CONTRACTIONS {
        text = text.replace(short, long);
    }
    text.split(|c: char| !c.is_alphanumeric() && c != '\'')
        .map(|word| word.replace('\'', ""))
        .filter(|word| !word.is_empty())
        .collect()
}

/// What a word stands for: its singular, and the first of its synonyms.
pub fn meaning(word: &str) -> String {
    let like = |word: &str| SYNONYMS.iter().find(|set| set.iter().any(|known| alike(word, known)));
    let set = like(word).or_else(|| like(singular(word)));
    set.map_or(singular(word), |set| set[0]).to_owned()
}

fn singular(word: &str) -> &str {
    match word {
        _ if word.len() < 4 || word.ends_with("ss") || word.ends_with("us") => word,
        _ if word.ends_with("shes") || word.ends_with("ches") => &word[..word.len() - 2],
        _ => word.strip_suffix('s').unwrap_or(word),
    }
}

/// Whether all words of a pattern were said, in its order, with anything between.
pub fn said(words: &[String], pattern: &str) -> bool {
    let mut heard = words.iter();
    pattern.split(' ').all(|wanted| heard.any(|word| word == wanted || meaning(word) == wanted))
}

/// Whether one of several patterns was said.
pub fn said_any(words: &[String], patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| said(words, pattern))
}

/// Whether nothing but these words was said, and at least one of them.
pub fn only(words: &[String], allowed: &[&str]) -> bool {
    !words.is_empty() && words.iter().all(|word| allowed.contains(&word.as_str()))
}

/// The words that matter, as meanings.
pub fn content(words: &[String]) -> Vec<String> {
    words.iter().filter(|word| !FILLERS.contains(&word.as_str())).map(|word| meaning(word)).collect()
}

/// How much of a known phrasing was said: 1 is all that matters in it, more than 1 that it was said word by word, the
/// more the longer it is.
pub fn likeness(said: &[String], phrasing: &[String]) -> f32 {
    const PER_WORD: f32 = 0.01;
    if !phrasing.is_empty() && said.windows(phrasing.len()).any(|window| window == phrasing) {
        return 1.0 + PER_WORD * phrasing.len() as f32;
    }
    let (said, phrasing) = (content(said), content(phrasing));
    let found = phrasing.iter().filter(|wanted| said.iter().any(|word| alike(word, wanted))).count();
    let strange = said.iter().filter(|word| !phrasing.iter().any(|wanted| alike(word, wanted))).count();
    // What was said besides counts little: callers tell stories around their question.
    found as f32 / (phrasing.len().max(1) as f32 + 0.1 * strange.min(4) as f32)
}

/// Equal, or a long word that is no word and but for one letter would be the other.
fn alike(said: &str, known: &str) -> bool {
    const LONG: usize = 5;
    if said == known {
        return true;
    }
    if said.len().min(known.len()) < LONG || said.len().abs_diff(known.len()) > 1 || !said.is_ascii() {
        return false;
    }
    let start = said.bytes().zip(known.bytes()).take_while(|(a, b)| a == b).count();
    let rest = said.bytes().skip(start).rev().zip(known.bytes().skip(start).rev());
    let end = rest.take_while(|(a, b)| a == b).count();
    said.len().max(known.len()) - start - end <= 1 && !offhook_sphinx::contains_word(said)
}

/// The digits in what was said: `4`, `four`, `oh`, `double five`, `twenty three`.
pub fn digits(words: &[String]) -> String {
    const ONES: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    let value = |word: &str| ONES.iter().position(|one| *one == word);
    let mut digits = String::new();
    let mut times = 1;
    let mut tens: Option<usize> = None;
    for word in words {
        let ten = TENS.iter().position(|ten| ten == word).map(|index| (index + 2) * 10);
        let spoken = match word.as_str() {
            "oh" | "o" => Some(0),
            word => value(word),
        };
        if let (Some(ten), Some(one @ 1..=9)) = (tens, spoken) {
            digits.push_str(&(ten + one).to_string());
            tens = None;
            continue;
        }
        digits.extend(tens.take().map(|ten| ten.to_string()));
        match word.as_str() {
            "double" => times = 2,
            "triple" => times = 3,
            _ if ten.is_some() => tens = ten,
            _ => {
                let text = spoken.map(|value| value.to_string());
                let text = text.or_else(|| word.bytes().all(|b| b.is_ascii_digit()).then(|| word.clone()));
                digits.push_str(&text.unwrap_or_default().repeat(times));
                times = 1;
            }
        }
    }
    digits.extend(tens.map(|ten| ten.to_string()));
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_known_in_other_words() {
        let like = |said: &str, phrasing: &str| likeness(&words(said), &words(phrasing));
        assert!(like("What\u{2019}s the cost of a trim?", "how much is a haircut") > 0.6);
        assert!(like("I was wondering whether you've got any parkng", "is there parking") > 0.6);
        assert!(like("my dog ate the blue shoes", "is there parking") < 0.1);
        assert_eq!(like("anything", "is it"), 0.0);
    }

    #[test]
    fn numbers_are_heard_in_words_and_figures() {
        let heard = |text: &str| digits(&words(text));
        assert_eq!(heard("my number is four one five, double five five oh one two three"), "4155550123");
        assert_eq!(heard("+1 (415) 555-0123"), "14155550123");
        assert_eq!(heard("twenty three forty"), "2340");
        assert_eq!(heard("it is nineteen ninety nine"), "1999");
        assert_eq!(heard("call me maybe"), "");
    }

    #[test]
    fn patterns_allow_words_between() {
        let heard = words("Could I leave, uh, a short message?");
        assert!(said(&heard, "leave message") && !said(&heard, "message leave"));
        assert!(only(&words("yes, please!"), &["yes", "please"]) && !only(&[], &["yes"]));
    }
}
