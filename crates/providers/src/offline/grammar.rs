//! What a caller may say next, as a JSGF grammar for the recogniser. It knows the receptionist's script and state, and
//! nothing of sound.

use super::brain::Expects;
use super::script::Script;
use offhook_sphinx::contains_word;

/// A grammar of what can be said to this receptionist in this state. Phrases with a word that the recogniser cannot
/// know are left out.
pub fn grammar(script: &Script, expects: Expects) -> String {
    // Digits are short: a hesitation before them would be heard in the first of them.
    let turn = match expects {
        Expects::Number => "<said>".to_owned(),
        _ => format!("{} <said> {}", seldom("<lead>"), seldom("<tail>")),
    };
    let mut rules = vec![format!("public <turn> = {turn}")];
    let said = match expects {
        Expects::Question => "<question> | <talk>",
        Expects::YesOrNo => "<answer> | <question> | <talk>",
        Expects::Name => "<name> | <command> | <talk>",
        Expects::Number => "<number> | <command> | <talk>",
        Expects::Message => "<note> [and <note>] | <command>",
    };
    rules.push(format!("<said> = {said}"));
    rules.push(rule("lead", LEADS));
    rules.push(rule("tail", TAILS));
    match expects {
        Expects::Question | Expects::YesOrNo => {
            rules.extend([questions(script), rule("talk", TALK), rule("answer", ANSWERS), rule("day", DAYS)]);
            rules.push(rule("time", TIMES));
        }
        Expects::Name => {
            rules
                .push("<name> = [my name is | this is | it is | i am | the name is] <first> [<last>]".into());
            rules.extend([rule("first", FIRST_NAMES), rule("last", LAST_NAMES), rule("command", COMMANDS)]);
            rules.push(rule("talk", NAME_TALK));
        }
        Expects::Number => {
            rules.push(
                "<number> = [my number is | the number is | it is | sure it is] [plus] <digit>+".into(),
            );
            rules.extend([rule("digit", DIGITS), rule("command", COMMANDS), rule("talk", NUMBER_TALK)]);
        }
        Expects::Message => {
            let own = script.messages.iter().map(String::as_str);
            rules.push(rule_of("note", NOTES.iter().copied().chain(own)));
            rules.extend([rule("command", COMMANDS), rule("day", DAYS)]);
        }
    }
    format!("#JSGF V1.0;\ngrammar receptionist;\n{};\n", rules.join(";\n"))
}

fn questions(script: &Script) -> String {
    let own = script.questions.iter().flat_map(|question| &question.ask).map(String::as_str);
    let hours: &[&str] = if script.hours.is_some() { HOURS } else { &[] };
    let phrases = rule_of("asked", hours.iter().copied().chain(own));
    format!("<question> = {} <asked>;\n{};\n{phrases}", seldom("<opener>"), rule("opener", OPENERS))
}

/// What may be said besides, but mostly is not: at even odds it would be heard in every breath.
fn seldom(rule: &str) -> String {
    format!("(/0.9/ <NULL> | /0.1/ {rule})")
}

fn rule(name: &str, phrases: &[&str]) -> String {
    rule_of(name, phrases.iter().copied())
}

fn rule_of<'a>(name: &str, phrases: impl Iterator<Item = &'a str>) -> String {
    let mut alternatives: Vec<String> = phrases.filter_map(speakable).collect();
    alternatives.sort();
    alternatives.dedup();
    if alternatives.is_empty() {
        alternatives.push("hello".into());
    }
    format!("<{name}> = {}", alternatives.join(" | "))
}

/// A phrase as the recogniser wants it: lower case, no punctuation, rules kept; `None` with a word it cannot know.
fn speakable(phrase: &str) -> Option<String> {
    let tidy: String = phrase
        .to_lowercase()
        .chars()
        .map(|c| if c.is_alphanumeric() || "'<>()[]|".contains(c) { c } else { ' ' })
        .collect();
    let spaced =
        ["(", ")", "[", "]", "|"].iter().fold(tidy, |text, mark| text.replace(mark, &format!(" {mark} ")));
    let known = |token: &str| token.starts_with('<') || "()[]|".contains(token) || contains_word(token);
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    match tokens.iter().find(|token| !known(token)) {
        Some(token) => {
            tracing::debug!(
                word = token,
                "A phrase is left out of the grammar: the recogniser does not know a word"
            );
            None
        }
        None => (!tokens.is_empty()).then(|| tokens.join(" ")),
    }
}

const LEADS: &[&str] = &[
    "(hi | hello | hey) [there]",
    "um",
    "uh",
    "yes",
    "okay",
    "so",
    "well",
    "hi um",
    "good (morning | afternoon | evening)",
];

const TAILS: &[&str] = &["please", "thanks", "thank you"];

const OPENERS: &[&str] = &[
    "can you tell me",
    "could you tell me",
    "i would like to know",
    "i wanted to ask",
    "do you know",
    "i was wondering",
    "tell me",
];

const DAYS: &[&str] = &[
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "today",
    "tomorrow",
    "the weekend",
];

const TIMES: &[&str] = &[
    "(one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve) [thirty] [a m | p m]",
    "noon",
];

const HOURS: &[&str] = &[
    "what are your [opening | business] hours",
    "what are the opening hours",
    "when are you open",
    "are you open [on] <day>",
    "are you closed [on] <day>",
    "are you open",
    "are you open now",
    "are you still open",
    "are you open right now",
    "(when | what time) do you (open | close) [[on] <day>]",
    "when are you open [on] <day>",
    "how late are you open [[on] <day>]",
    "until when are you open [[on] <day>]",
    "are you open (at | until | after) <time> [[on] <day>]",
    "what about <day>",
    "and [on] <day>",
    "are you open tonight",
];

const TALK: &[&str] = &[
    "hello",
    "goodbye",
    "bye",
    "bye bye",
    "okay bye",
    "thanks bye",
    "thank you goodbye",
    "that is all",
    "that's all",
    "thank you",
    "thanks",
    "thank you very much",
    "have a nice day",
    "i want to leave a message",
    "i would like to leave a message",
    "can i leave a message",
    "could you take a message",
    "leave a message",
    "take a message",
    "can someone call me back",
    "please call me back",
    "can i (speak | talk) to (someone | somebody | a person | a human | the manager | the owner)",
    "i want to (speak | talk) to (someone | somebody | a person | a human | the manager | the owner)",
    "a real person",
    "operator",
    "are you a (robot | machine | computer)",
    "are you (real | a real person | human)",
    "am i talking to a (robot | machine | computer)",
    "who are you",
    "what can you do",
    "what can i ask",
    "help",
    "how are you",
    "repeat that",
    "please repeat that",
    "can you (say | repeat) that [again]",
    "say that again",
    "pardon",
    "never mind",
];

const ANSWERS: &[&str] = &[
    "yes",
    "yes please",
    "yeah",
    "sure",
    "of course",
    "that is (right | correct)",
    "that's (right | correct)",
    "yes that is (right | correct)",
    "correct",
    "right",
    "okay",
    "fine",
    "no",
    "no thank you",
    "no thanks",
    "not now",
    "no that is all",
    "no that's all",
    "that is wrong",
    "that's not right",
    "no that is wrong",
    "no that's wrong",
    "nothing else",
];

const COMMANDS: &[&str] = &[
    "goodbye",
    "bye",
    "never mind",
    "forget it",
    "cancel",
    "repeat that",
    "please repeat that",
    "can you (say | repeat) that again",
    "say that again",
    "pardon",
];

const NAME_TALK: &[&str] = &["no", "no name", "what are your hours", "when are you open", "are you a robot"];

const NUMBER_TALK: &[&str] = &[
    "this number",
    "use this number",
    "the same number",
    "this one",
    "you have my number",
    "the number i am calling from",
    "the number i'm calling from",
    "you can use this number",
    "i do not have a number",
    "i don't have a number",
    "no number",
    "no",
];

const DIGITS: &[&str] = &[
    "zero",
    "oh",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "double (zero | oh | one | two | three | four | five | six | seven | eight | nine)",
];

const NOTES: &[&str] = &[
    "[please] call me [back]",
    "[please] call me [back] (as soon as possible | today | tomorrow | in the morning | this afternoon | this evening)",
    "[please] call me [back] [on] <day>",
    "i (will | am going to) be (late | a few minutes late)",
    "i'll be late",
    "i am running late",
    "i can not come [today | tomorrow]",
    "i can't come [today | tomorrow]",
    "i want to make an appointment",
    "i would like [to make] an appointment",
    "i would like an appointment [on | for] <day>",
    "i need an appointment [[on | for] <day>]",
    "i want to (cancel | change | move) my appointment",
    "i need to (cancel | change | move) my appointment",
    "i have a question",
    "i have a question about (my appointment | the price | my bill | my order)",
    "it is (urgent | important)",
    "it's (urgent | important)",
    "i need help",
    "i want to speak to the manager",
    "i have a complaint",
    "thank you for your help",
    "tell them i called",
    "just tell them i called",
    "i will call again [later | tomorrow]",
    "i'll call again [later | tomorrow]",
];

/// Common first names of the United States that the dictionary has.
const FIRST_NAMES: &[&str] = &[
    "adam",
    "alan",
    "albert",
    "alex",
    "alice",
    "amanda",
    "amy",
    "andrea",
    "andrew",
    "angela",
    "ann",
    "anna",
    "anthony",
    "barbara",
    "ben",
    "betty",
    "bill",
    "bob",
    "brenda",
    "brian",
    "bruce",
    "carl",
    "carlos",
    "carol",
    "catherine",
    "charles",
    "chris",
    "christine",
    "christopher",
    "cynthia",
    "dan",
    "daniel",
    "david",
    "deborah",
    "dennis",
    "diana",
    "donald",
    "donna",
    "dorothy",
    "douglas",
    "edward",
    "elena",
    "elizabeth",
    "emily",
    "emma",
    "eric",
    "eva",
    "frank",
    "gary",
    "george",
    "grace",
    "greg",
    "hannah",
    "harry",
    "helen",
    "henry",
    "isabel",
    "jack",
    "jacob",
    "james",
    "jane",
    "janet",
    "jason",
    "jean",
    "jeff",
    "jennifer",
    "jerry",
    "jessica",
    "jim",
    "joan",
    "joe",
    "john",
    "jonathan",
    "jose",
    "joseph",
    "joshua",
    "juan",
    "judy",
    "julia",
    "julie",
    "karen",
    "kate",
    "katherine",
    "kathy",
    "keith",
    "kelly",
    "ken",
    "kevin",
    "kim",
    "larry",
    "laura",
    "linda",
    "lisa",
    "louis",
    "lucy",
    "luis",
    "margaret",
    "maria",
    "marie",
    "mark",
    "martha",
    "martin",
    "mary",
    "matthew",
    "melissa",
    "michael",
    "michelle",
    "mike",
    "nancy",
    "nicholas",
    "nicole",
    "olivia",
    "oliver",
    "oscar",
    "pamela",
    "patricia",
    "patrick",
    "paul",
    "peter",
    "philip",
    "rachel",
    "ralph",
    "raymond",
    "rebecca",
    "richard",
    "robert",
    "roger",
    "ronald",
    "rose",
    "roy",
    "ruth",
    "ryan",
    "sam",
    "samantha",
    "samuel",
    "sandra",
    "sara",
    "sarah",
    "scott",
    "sharon",
    "shirley",
    "simon",
    "sophia",
    "stephanie",
    "stephen",
    "steve",
    "steven",
    "susan",
    "teresa",
    "terry",
    "thomas",
    "tim",
    "timothy",
    "tom",
    "tony",
    "victor",
    "victoria",
    "virginia",
    "walter",
    "wayne",
    "william",
];

/// Common last names of the United States that the dictionary has.
const LAST_NAMES: &[&str] = &[
    "adams",
    "allen",
    "anderson",
    "bailey",
    "baker",
    "bell",
    "brown",
    "campbell",
    "carter",
    "chen",
    "clark",
    "collins",
    "cook",
    "cooper",
    "cox",
    "davis",
    "diaz",
    "edwards",
    "evans",
    "fisher",
    "flores",
    "foster",
    "garcia",
    "gomez",
    "gonzalez",
    "gray",
    "green",
    "hall",
    "harris",
    "hernandez",
    "hill",
    "howard",
    "hughes",
    "jackson",
    "james",
    "johnson",
    "jones",
    "kelly",
    "kim",
    "king",
    "lee",
    "lewis",
    "long",
    "lopez",
    "martin",
    "martinez",
    "miller",
    "mitchell",
    "moore",
    "morgan",
    "morris",
    "murphy",
    "nelson",
    "nguyen",
    "parker",
    "patel",
    "perez",
    "peterson",
    "phillips",
    "ramirez",
    "reed",
    "reyes",
    "richardson",
    "rivera",
    "roberts",
    "robinson",
    "rodriguez",
    "rogers",
    "ross",
    "russell",
    "sanchez",
    "sanders",
    "scott",
    "shaw",
    "simpson",
    "singh",
    "smith",
    "stewart",
    "taylor",
    "thomas",
    "thompson",
    "torres",
    "turner",
    "walker",
    "wang",
    "ward",
    "watson",
    "west",
    "white",
    "williams",
    "wilson",
    "wood",
    "wright",
    "young",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phrase_of_ours_can_be_said() {
        let lists: &[&[&str]] = &[
            LEADS,
            TAILS,
            OPENERS,
            DAYS,
            TIMES,
            HOURS,
            TALK,
            ANSWERS,
            COMMANDS,
            NAME_TALK,
            NUMBER_TALK,
            DIGITS,
            NOTES,
            FIRST_NAMES,
            LAST_NAMES,
        ];
        for phrase in lists.iter().flat_map(|list| list.iter()) {
            assert!(speakable(phrase).is_some(), "{phrase}");
        }
        let script = Script::parse(super::super::RECEPTIONIST).unwrap();
        for phrase in script.questions.iter().flat_map(|question| &question.ask) {
            assert!(speakable(phrase).is_some(), "{phrase}");
        }
    }

    #[test]
    fn a_strange_word_costs_only_its_phrase() {
        let script = Script::parse(
            "business = 'A'\n[[questions]]\nabout='x'\nask=['do you sell xyzzy', 'Do you sell tea?']\nanswer='y'",
        );
        let grammar = grammar(&script.unwrap(), Expects::Question);
        assert!(grammar.contains("<asked> = do you sell tea;") && !grammar.contains("opening"), "{grammar}");
    }
}
