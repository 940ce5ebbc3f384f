//! Reads a JSGF grammar as far as is needed to know its words before PocketSphinx sees it.
//! It does not know what the grammar means: PocketSphinx compiles it.

use crate::{Error, dictionary};
use std::collections::BTreeSet;

/// The phones of the model, silence and noise left out.
pub(crate) const PHONES: [&str; 39] = [
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY",
    "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y",
    "Z", "ZH",
];

/// The grammar of any speech, whose words are the phones.
pub(crate) fn any_phones() -> String {
    format!("#JSGF V1.0; grammar phones; public <speech> = ({})+;", PHONES.join(" | "))
}

/// The words of a grammar, each once, all of them in the dictionary.
pub(crate) fn words(jsgf: &str) -> Result<BTreeSet<&str>, Error> {
    let mut words = BTreeSet::new();
    let mut public = false;
    let mut rule_starts = true;
    let mut tokens = Tokens(header_removed(jsgf)?);
    while let Some(token) = tokens.next()? {
        match token {
            Token::Word("import") if rule_starts => return Err(Error::Grammar("imports are not supported")),
            Token::Word("public") if rule_starts => public = true,
            Token::Word("grammar") if rule_starts => _ = tokens.next()?,
            Token::Word(word) => _ = words.insert(word),
            Token::Rule | Token::Mark(_) => {}
        }
        rule_starts = matches!(token, Token::Mark(';'));
    }
    if !public {
        return Err(Error::Grammar("it has no public rule"));
    }
    let strangers: Vec<_> = words.iter().filter(|word| !dictionary::contains_word(word)).collect();
    if !strangers.is_empty() {
        return Err(Error::UnknownWords(strangers.into_iter().map(|word| (*word).to_owned()).collect()));
    }
    Ok(words)
}

fn header_removed(jsgf: &str) -> Result<&str, Error> {
    let rest =
        jsgf.trim_start().strip_prefix("#JSGF").ok_or(Error::Grammar("it does not begin with #JSGF"))?;
    if rest.contains('\0') {
        return Err(Error::Grammar("it contains a zero byte"));
    }
    let (_version, rest) =
        rest.split_once(';').ok_or(Error::Grammar("the header does not end with a semicolon"))?;
    Ok(rest)
}

#[derive(Clone, Copy)]
enum Token<'a> {
    Rule,
    Word(&'a str),
    Mark(char),
}

struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Result<Option<Token<'a>>, Error> {
        loop {
            let text = self.0.trim_start();
            let Some(first) = text.chars().next() else { return Ok(None) };
            return Ok(Some(match first {
                '/' | '{' => {
                    self.skip_aside(text)?;
                    continue;
                }
                '"' => return Err(Error::Grammar("quoted tokens are not supported")),
                '<' => {
                    self.until(text, 1, ">")?;
                    Token::Rule
                }
                '=' | ';' | '|' | '*' | '+' | '(' | ')' | '[' | ']' | '>' | '}' => {
                    self.0 = &text[1..];
                    Token::Mark(first)
                }
                _ => {
                    let end = text.find(|c: char| c.is_ascii_whitespace() || "=;|*+<>()[]{}/\"".contains(c));
                    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
                    self.0 = rest;
                    Token::Word(word)
                }
            }));
        }
    }

    /// Comments, weights and tags.
    fn skip_aside(&mut self, text: &'a str) -> Result<(), Error> {
        match text.as_bytes() {
            [b'/', b'/', ..] => self.until(text, 2, "\n"),
            [b'/', b'*', ..] => self.until(text, 2, "*/"),
            [b'/', ..] => self.until(text, 1, "/"),
            _ => self.until(text, 1, "}"),
        }
    }

    /// Skips everything up to and with `end`, looked for after the first `skip` bytes.
    fn until(&mut self, text: &'a str, skip: usize, end: &str) -> Result<(), Error> {
        let open = Error::Grammar("a rule name, tag, weight or comment is left open");
        let length = text[skip..].find(end).ok_or(open)?;
        self.0 = &text[skip + length + end.len()..];
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_from_everything_else() {
        let jsgf = "#JSGF V1.0;\n grammar menu; // hours\n public <menu> = /0.9/ [please] (open|closed)* {tag: x} <day>;\
                    \n/* days */ <day> = monday | tuesday+;";
        let words: Vec<_> = words(jsgf).unwrap().into_iter().collect();
        assert_eq!(words, ["closed", "monday", "open", "please", "tuesday"]);
    }

    #[test]
    fn what_cannot_be_recognised_is_refused_by_name() {
        let refusal =
            |rules: &str| words(&format!("#JSGF V1.0; grammar g; {rules}")).unwrap_err().to_string();
        assert_eq!(
            refusal("public <a> = hello offhook | Monday;"),
            "words without a known pronunciation: Monday, offhook"
        );
        assert_eq!(refusal("<a> = hello;"), "not a usable grammar: it has no public rule");
        assert_eq!(
            refusal("import <com.acme.dates>; public <a> = hello;"),
            "not a usable grammar: imports are not supported"
        );
        assert_eq!(
            refusal("public <a> = hello {;"),
            "not a usable grammar: a rule name, tag, weight or comment is left open"
        );
        assert!(words("public <a> = hello;").is_err());
    }
}
