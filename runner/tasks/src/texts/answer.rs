//! An answer's text piece by piece, and the strings at which it stops, as namedtensor/tasks/_text.py has them.

use super::text::Tokenizer;
use crate::Result;

/// Text of ids that come one after another, in pieces that put together are the text of them all.
///
/// A piece never ends within a character: the ids of its first bytes wait for those of its last.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// The text of the ids between these two places is known already. They are decoded again with what follows, because
    /// some tokenizers write an id's text differently at the start, without its space.
    anchor: usize,
    known: usize,
}

impl<'a> TextStream<'a> {
    pub fn new(tokenizer: &'a Tokenizer) -> TextStream<'a> {
        TextStream { tokenizer, ids: Vec::new(), anchor: 0, known: 0 }
    }

    /// The text that one more id completes; often empty.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let (before, text) = self.texts()?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        Ok(self.advance(&before, &text))
    }

    /// The text that is left when no more ids come. Bytes that are no character end as U+FFFD.
    pub fn finish(&mut self) -> Result<String> {
        let (before, text) = self.texts()?;
        Ok(self.advance(&before, &text))
    }

    fn texts(&self) -> Result<(String, String)> {
        let known = self.tokenizer.decode(&self.ids[self.anchor..self.known])?;
        Ok((known, self.tokenizer.decode(&self.ids[self.anchor..])?))
    }

    fn advance(&mut self, before: &str, text: &str) -> String {
        // In characters: what was known may have other bytes now that more follows.
        match text.char_indices().nth(before.chars().count()) {
            Some((at, _)) => {
                (self.anchor, self.known) = (self.known, self.ids.len());
                text[at..].into()
            }
            None => String::new(),
        }
    }
}

/// Passes text on up to the first of some strings, holding back what may become one of them.
pub struct StopStrings {
    strings: Vec<String>,
    held: String,
    found: bool,
}

impl StopStrings {
    pub fn new(strings: &[String]) -> StopStrings {
        StopStrings { strings: strings.to_vec(), held: String::new(), found: false }
    }

    /// Whether one of the strings is complete.
    pub fn found(&self) -> bool {
        self.found
    }

    /// What of the text so far can be shown.
    pub fn push(&mut self, text: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held += text;
        if let Some(place) = self.strings.iter().filter_map(|string| self.held.find(string)).min() {
            self.found = true;
            self.held.truncate(place);
            return std::mem::take(&mut self.held);
        }
        let rest = self.held.split_off(self.held.len() - self.undecided());
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of the longest end of the text that a string begins with.
    fn undecided(&self) -> usize {
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let ends = self.held.char_indices().map(|(at, _)| &self.held[at..]).filter(|end| end.len() < longest);
        ends.filter(|end| self.strings.iter().any(|string| string.starts_with(end))).map(str::len).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::texts::text::tests::golden;

    /// What is shown after each piece and at the end, and whether a string was found.
    fn shown(strings: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut stops = StopStrings::new(&strings.iter().map(|&string| string.into()).collect::<Vec<_>>());
        let mut shown: Vec<String> = pieces.iter().map(|piece| stops.push(piece)).collect();
        shown.push(stops.finish());
        (shown, stops.found())
    }

    #[test]
    fn text_stops_before_a_string_that_comes_in_pieces() {
        assert_eq!(shown(&["stop"], &["ab s", "t", "op c"]), (["ab ", "", "", ""].map(String::from).to_vec(), true));
        assert_eq!(shown(&["stop"], &["ab s", "t", "ep"]), (["ab ", "", "step", ""].map(String::from).to_vec(), false));
        assert_eq!(shown(&["aab"], &["aaa", "b"]), (["a", "", ""].map(String::from).to_vec(), true));
        assert_eq!(shown(&["aab"], &["aa"]), (["", "aa"].map(String::from).to_vec(), false));
    }

    #[test]
    fn the_first_of_several_strings_counts() {
        assert_eq!(shown(&["yz", "xy"], &["wxyz"]).0, ["w", ""]);
        assert_eq!(shown(&["long one", "no"], &["a long ", "day"]).0, ["a ", "long day", ""]);
        assert_eq!(shown(&["é", "日本"], &["caf", "日", "é!"]).0, ["caf", "", "日", ""]);
    }

    #[test]
    fn without_strings_nothing_is_held_back() {
        assert_eq!(shown(&[], &["a", "b"]), (["a", "b", ""].map(String::from).to_vec(), false));
    }

    #[test]
    #[cfg_attr(miri, ignore = "a tokenizer takes Miri minutes")]
    fn pieces_end_between_characters_and_are_the_text_together() {
        let (tokenizer, reference) = golden();
        for case in reference["texts"].as_array().unwrap() {
            let ids = tokenizer.encode(case["text"].as_str().unwrap(), true).unwrap().ids;
            let mut stream = TextStream::new(&tokenizer);
            let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            assert!(pieces.iter().all(|piece| !piece.contains(char::REPLACEMENT_CHARACTER)));
            pieces.push(stream.finish().unwrap());
            assert_eq!(pieces.concat(), case["decoded_without_special"].as_str().unwrap());
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a tokenizer takes Miri minutes")]
    fn bytes_of_half_a_character_wait_and_end_as_a_replacement() {
        let (tokenizer, _) = golden();
        let ids = tokenizer.encode("🙂", false).unwrap().ids;
        assert!(ids.len() > 1);
        let mut stream = TextStream::new(&tokenizer);
        for &id in &ids[..ids.len() - 1] {
            assert_eq!(stream.push(id).unwrap(), "");
        }
        assert!(stream.finish().unwrap().starts_with(char::REPLACEMENT_CHARACTER));
    }
}
