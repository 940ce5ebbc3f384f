//! The pronouncing dictionary: 126,000 English words in the program itself, looked up without loading anything.
//! It does not know which of them a recogniser has been taught.

/// `word<TAB>phones` lines sorted by word; see build.rs.
static LINES: &str = include_str!(concat!(env!("OUT_DIR"), "/en-us.dict"));

/// Whether a word can be recognised. Words are in lower case: `"don't"`, `"monday"`.
pub fn contains_word(word: &str) -> bool {
    pronunciations(word).next().is_some()
}

/// The pronunciations of a word, the usual one first, each as phones with a space between.
pub(crate) fn pronunciations(word: &str) -> impl Iterator<Item = &'static str> {
    entries_from(first_line_not_before(word)).take_while(move |(w, _)| *w == word).map(|(_, phones)| phones)
}

fn entries_from(line_start: usize) -> impl Iterator<Item = (&'static str, &'static str)> {
    LINES[line_start..].lines().filter_map(|line| line.split_once('\t'))
}

fn first_line_not_before(word: &str) -> usize {
    let (mut low, mut high) = (0, LINES.len());
    while low < high {
        let middle = line_start((low + high) / 2);
        let Some((found, _)) = entries_from(middle).next() else { break };
        if found < word {
            low = middle + LINES[middle..].find('\n').map_or(LINES.len() - middle, |length| length + 1);
        } else {
            high = middle;
        }
    }
    low
}

fn line_start(position: usize) -> usize {
    LINES.as_bytes()[..position].iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_found_by_its_word() {
        let mut previous = "";
        for (word, _) in entries_from(0) {
            assert!(previous <= word, "{previous} {word}");
            if previous != word {
                assert!(contains_word(word), "{word}");
            }
            previous = word;
        }
    }

    #[test]
    fn variants_come_in_order_and_strangers_not_at_all() {
        assert_eq!(pronunciations("tomorrow").collect::<Vec<_>>(), ["T AH M AA R OW", "T UW M AA R OW"]);
        for stranger in ["", "offhook", "Monday", "a(2)", "zzzzz", "\u{e9}", "\t"] {
            assert!(!contains_word(stranger), "{stranger}");
        }
    }
}
