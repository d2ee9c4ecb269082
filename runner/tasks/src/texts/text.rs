//! Texts to ids and back, with a tokenizer.json, as namedtensor/tasks/_text.py does it.

use crate::{Error, Result};
use nt_bundle::Bundle;
use tokenizers::utils::truncation::TruncationParams;

/// The largest tokenizers of today, of 256,000 pieces, are 35 MB of JSON.
const LARGEST: usize = 1 << 28;

/// A tokenizer.json, without padding.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

/// The ids of a text, which of its sequences each belongs to, and whether the text had more of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    pub ids: Vec<u32>,
    pub types: Vec<u32>,
    pub truncated: bool,
}

impl Tokenizer {
    /// Reads a file of an archive. Texts are cut to `longest` ids, whatever the file says.
    ///
    /// # Errors
    /// What the bundle refuses, and [`nt_bundle::Error::File`] where the file is not a tokenizer.
    pub fn read(bundle: &Bundle, path: &str, longest: Option<usize>) -> Result<Tokenizer> {
        let data = bundle.read(path)?;
        if data.len() > LARGEST {
            let problem = format!("{path}: {} bytes are no tokenizer; at most {LARGEST}", data.len());
            return Err(nt_bundle::Error::File(problem).into());
        }
        Tokenizer::parse(&data, longest)
            .map_err(|problem| nt_bundle::Error::File(format!("{path}: not a tokenizer ({problem})")).into())
    }

    fn parse(data: &[u8], longest: Option<usize>) -> std::result::Result<Tokenizer, String> {
        let mut inner = tokenizers::Tokenizer::from_bytes(data).map_err(line)?;
        inner.with_padding(None);
        let cut = longest.map(|max_length| TruncationParams { max_length, ..TruncationParams::default() });
        inner.with_truncation(cut).map_err(line)?;
        Ok(Tokenizer { inner })
    }

    /// The ids of a text; `special` has the tokenizer add its special tokens.
    ///
    /// # Errors
    /// [`Error::Input`] where the tokenizer has no ids for the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Encoding> {
        let encoded = self.inner.encode(text, special);
        let encoded = encoded.map_err(|e| Error::Input(format!("the text cannot be tokenized ({})", line(e))))?;
        Ok(Encoding {
            ids: encoded.get_ids().to_vec(),
            types: encoded.get_type_ids().to_vec(),
            truncated: !encoded.get_overflowing().is_empty(),
        })
    }

    /// The text of ids, without special tokens. Bytes that are no character give U+FFFD.
    ///
    /// # Errors
    /// [`Error::Archive`] where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|e| Error::Archive(format!("its tokenizer cannot decode ({})", line(e))))
    }
}

/// The first line of an error.
fn line(error: tokenizers::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/llama/chat");

    pub fn golden() -> (Tokenizer, Value) {
        let read = |name| std::fs::read(format!("{GOLDEN}/{name}")).unwrap();
        let reference = serde_json::from_slice(&read("reference.json")).unwrap();
        (Tokenizer::parse(&read("tokenizer.json"), None).unwrap(), reference)
    }

    #[test]
    #[cfg_attr(miri, ignore = "a tokenizer takes Miri minutes")]
    fn texts_have_the_ids_of_the_reference_and_come_back() {
        let (tokenizer, reference) = golden();
        let texts = reference["texts"].as_array().unwrap();
        assert!(texts.len() > 5);
        for case in texts {
            let encoded = tokenizer.encode(case["text"].as_str().unwrap(), true).unwrap();
            assert_eq!(serde_json::json!(encoded.ids), case["ids"]);
            assert!(!encoded.truncated);
            assert_eq!(tokenizer.decode(&encoded.ids).unwrap(), case["decoded_without_special"].as_str().unwrap());
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a tokenizer takes Miri minutes")]
    fn long_texts_are_cut() {
        let file = std::fs::read(format!("{GOLDEN}/tokenizer.json")).unwrap();
        let tokenizer = Tokenizer::parse(&file, Some(4)).unwrap();
        let whole = golden().0.encode("The river is wide.", true).unwrap();
        let cut = tokenizer.encode("The river is wide.", true).unwrap();
        assert!(whole.ids.len() > 4);
        assert_eq!(cut.ids, whole.ids[..4]);
        assert!(cut.truncated);
    }

    #[test]
    fn what_is_no_tokenizer_is_refused_in_one_line() {
        let deep = [b"[".repeat(1 << 20), b"]".repeat(1 << 20)].concat();
        let broken: [&[u8]; 6] = [b"", b"{}", b"[1]", b"\xff", b"{\"model\":\n{\"type\":\"BPE\"", &deep];
        for data in broken {
            let problem = Tokenizer::parse(data, None).unwrap_err();
            assert!(!problem.is_empty() && !problem.contains('\n'), "{problem:?}");
        }
    }
}
