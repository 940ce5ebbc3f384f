//! What callers and agents say. Names of callers and things of agents occur once in a call each, so that a checker can tell
//! where a word came from; it does not know who says what when.

const NAMES: &[&str] = &[
    "Abbott", "Adler", "Ahmed", "Archer", "Bailey", "Barton", "Becker", "Bishop", "Brandt", "Carver",
    "Castro", "Chandra", "Conrad", "Dalton", "Dawson", "Dubois", "Ellison", "Esposito", "Farrell", "Ferrari",
    "Foster", "Garcia", "Gibson", "Hansen", "Harper", "Hoffman", "Ibrahim", "Jansen", "Jordan", "Kaplan",
    "Keller", "Kowalski", "Lambert", "Larsen", "Lopez", "Marino", "Martin", "Meyer", "Morgan", "Nakamura",
    "Nolan", "Novak", "Olsen", "Palmer", "Pereira", "Quinn", "Ramirez", "Rossi", "Schmidt", "Silva",
    "Sullivan", "Tanaka", "Turner", "Ulrich", "Vargas", "Vogel", "Walker", "Weber", "Xavier", "Yamada",
    "Young", "Ziegler",
];

const THINGS: &[&str] = &[
    "anchor", "apron", "atlas", "bakery", "balcony", "barrel", "basket", "beacon", "biscuit", "blanket",
    "bottle", "bracelet", "bridge", "bucket", "cabin", "camera", "candle", "canvas", "carpet", "castle",
    "cellar", "chapel", "clarinet", "compass", "cottage", "curtain", "cushion", "dagger", "desert", "drawer",
    "engine", "envelope", "fabric", "falcon", "feather", "fiddle", "forest", "fountain", "furnace", "garage",
    "garden", "goblet", "guitar", "hammer", "harbour", "helmet", "hostel", "island", "jacket", "jungle",
    "kettle", "kitchen", "ladder", "lantern", "lemon", "library", "magnet", "marble", "meadow", "mirror",
    "museum", "napkin", "needle", "orchard", "oven", "paddle", "palace", "parcel", "pepper", "pillow",
    "planet", "pocket", "puzzle", "quarry", "radio", "ribbon", "river", "saddle", "sandal", "saucer",
    "scissors", "shadow", "shelter", "spoon", "stable", "statue", "sugar", "temple", "ticket", "timber",
    "tractor", "tunnel", "turbine", "umbrella", "valley", "vessel", "violin", "wagon", "wallet", "window",
];

/// Endings that make further words once all have been used.
const ENDINGS: &[&str] = &["", "ton", "wick", "field", "by", "stead", "worth", "dale"];

/// The `number`th name of a call.
pub(super) fn name(number: usize) -> String {
    let ending = ENDINGS[(number / NAMES.len()) % ENDINGS.len()];
    format!("{}{ending}", NAMES[number % NAMES.len()])
}

/// The `number`th thing of a call.
pub(super) fn thing(number: usize) -> String {
    let ending = ENDINGS[(number / THINGS.len()) % ENDINGS.len()];
    format!("{}{ending}", THINGS[number % THINGS.len()])
}

/// Whether only an agent says this word.
pub(super) fn is_agent_word(word: &str) -> bool {
    THINGS.iter().any(|thing| word.strip_prefix(thing).is_some_and(|ending| ENDINGS.contains(&ending)))
}

/// The names in a text, as often as they occur.
pub fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '.', ',', '?', '!']).filter(|word| is_name(word))
}

fn is_name(word: &str) -> bool {
    let Some(first) = word.bytes().next().filter(u8::is_ascii_uppercase) else { return false };
    let stem = |name: &&str| name.as_bytes()[0] == first && word.starts_with(*name);
    NAMES.iter().filter(|name| stem(name)).any(|name| ENDINGS.contains(&&word[name.len()..]))
}

/// Whether the caller takes their leave.
pub(super) fn is_farewell(text: &str) -> bool {
    text.contains("goodbye") || text.contains("bye now")
}

/// Whether words mean something by themselves: they are neither a hum nor a courtesy.
pub fn is_meant(text: &str) -> bool {
    names_in(text).next().is_some()
}

/// Sentences of a caller; `#` stands for a name, `|` for a place to pause.
pub(super) const SENTENCES: &[&str] = &[
    "I want to ask | about the order of #.",
    "Do you have a table | for # and #?",
    "Can you tell # | that I called?",
    "My name | is #.",
    "Yes, # is fine.",
    "could you check the order | of #",
    "No, | I meant the one of # and not the other.",
    "So the thing is | that # wanted to | come by tomorrow.",
    "#?",
    "I would like to | book it for # please",
    "Ähm, | ich heiße #.",
    "Well, | um, | I spoke to # yesterday. And # said no.",
];

/// What is said while a tool takes long.
pub(super) const TOOL_FILLER: &str = "Let me look that up.";

/// Numbers being dictated.
pub(super) const DICTATIONS: &[&str] = &[
    "The number of # is five five | one two | three four five.",
    "my number is # five five | nine one | two",
    "It is for #, | 4 1 5 | 5 5 5 | 0 1 2 3.",
];

pub(super) const HUMS: &[&str] = &["Mhm.", "yeah", "Okay.", "uh-huh", "right", "I see."];
pub(super) const FAREWELLS: &[&str] = &["Okay, thank you, goodbye.", "Great, bye now.", "goodbye"];
