//! Texts in, vectors out, and which of them mean the same.

use super::text::{Encoding, Tokenizer};
use crate::batch;
use crate::json::number;
use crate::session::Session;
use crate::tensor::Tensor;
use crate::{Error, Result};
use nt_bundle::{Entry, Manifest};
use nt_device::{DType, TensorSpec};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Ids that are run at once, at most.
const LARGEST: usize = 1 << 28;

/// A program that turns texts into vectors, as `Embed` of namedtensor/tasks/_embed.py declares it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embed {
    pub tokenizer: String,
    /// Texts are cut to so many ids, special ones included.
    pub max_length: usize,
    pub vocab_size: u32,
    pub pad_id: i32,
    pub lower: bool,
    pub entry: String,
}

/// What was found for each text, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    pub texts: Vec<String>,
    /// How many ids were read, special ones included.
    pub tokens: Vec<usize>,
    pub truncated: Vec<bool>,
    pub vectors: Vec<Vec<f32>>,
}

/// One text that was compared: its place among those given, and the cosine of its angle to the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match<'a> {
    pub index: usize,
    pub text: &'a str,
    pub similarity: f64,
}

/// As Python has them; Rust does not count the separators of ASCII.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

impl Embed {
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<()> {
        if manifest.entry(&self.entry).is_none() {
            return Err(Error::Archive(format!("the task: there is no entry point {}", self.entry)));
        }
        Ok(())
    }

    /// Embeds texts, together with others of about their length.
    ///
    /// # Errors
    /// [`Error::Input`] where there are no texts, or one of them is empty; what the archive or the device refuses.
    pub fn run(&self, session: &mut Session<'_>, texts: Vec<String>) -> Result<Embeddings> {
        let bundle = session.bundle();
        let Some(entry) = bundle.manifest().entry(&self.entry) else {
            return Err(Error::Archive(format!("the task: there is no entry point {}", self.entry)));
        };
        let encoded = self.encode(session, &texts)?;
        let lengths = batch::sizes(entry, "ids", "s");
        let mut groups = BTreeMap::<usize, Vec<usize>>::new();
        for (place, encoding) in encoded.iter().enumerate() {
            let length = batch::holding(&lengths, encoding.ids.len()).filter(|&length| length >= encoding.ids.len());
            let Some(length) = length else {
                let count = encoding.ids.len();
                return Err(Error::Archive(format!("{}: it takes no text of {count} tokens", entry.name)));
            };
            groups.entry(length).or_default().push(place);
        }
        let mut vectors = vec![Vec::new(); texts.len()];
        let rows = batch::sizes(entry, "ids", "b");
        for (length, members) in groups {
            let mut rest = members.as_slice();
            while !rest.is_empty() {
                let size = batch::holding(&rows, rest.len()).unwrap_or(1);
                let (now, later) = rest.split_at(size.min(rest.len()));
                let chosen: Vec<&Encoding> = now.iter().map(|&place| &encoded[place]).collect();
                for (&place, vector) in now.iter().zip(self.batch(session, entry, &chosen, size, length)?) {
                    vectors[place] = vector;
                }
                rest = later;
            }
        }
        let tokens = encoded.iter().map(|encoding| encoding.ids.len()).collect();
        let truncated = encoded.iter().map(|encoding| encoding.truncated).collect();
        Ok(Embeddings { texts, tokens, truncated, vectors })
    }

    fn encode(&self, session: &Session<'_>, texts: &[String]) -> Result<Vec<Encoding>> {
        if texts.is_empty() {
            return Err(Error::Input("no text was given; give at least one".into()));
        }
        if let Some(place) = texts.iter().position(|text| text.chars().all(is_blank)) {
            return Err(Error::Input(format!("text {} is empty", place + 1)));
        }
        let tokenizer = Tokenizer::read(session.bundle(), &self.tokenizer, Some(self.max_length))?;
        let mut encoded = Vec::new();
        for text in texts {
            encoded.push(if self.lower {
                tokenizer.encode(&text.to_lowercase(), true)?
            } else {
                tokenizer.encode(text, true)?
            });
        }
        let highest = encoded.iter().flat_map(|encoding| &encoding.ids).max().copied().unwrap_or(0);
        if highest >= self.vocab_size {
            let known = self.vocab_size;
            return Err(Error::Archive(format!("its tokenizer gives id {highest}, the model knows {known}")));
        }
        Ok(encoded)
    }

    /// The vectors of texts of at most `length` ids, of which `size` are run at once.
    fn batch(
        &self,
        session: &mut Session<'_>,
        entry: &Entry,
        texts: &[&Encoding],
        size: usize,
        length: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let Some(variant) = batch::variant(entry, "ids", &[("b", size), ("s", length)]) else {
            return Err(Error::Archive(format!("{}: it takes no {size} texts of {length} tokens", entry.name)));
        };
        if size.saturating_mul(length) > LARGEST {
            return Err(Error::Archive(format!("{}: its batch is too large", variant.name)));
        }
        let (mut ids, mut types, mut mask) = (Vec::new(), Vec::new(), Vec::new());
        // Rows that are left over hold padding only.
        for row in 0..size {
            let text = texts.get(row).copied();
            for place in 0..length {
                let id = text.and_then(|text| text.ids.get(place));
                let of = text.and_then(|text| text.types.get(place));
                ids.extend(id.map_or(self.pad_id, |&id| id as i32).to_le_bytes());
                types.extend(of.map_or(0, |&of| of as i32).to_le_bytes());
                mask.push(u8::from(id.is_some()));
            }
        }
        let input = |dtype, bytes| Tensor {
            axes: vec!["b".into(), "s".into()],
            spec: TensorSpec::new(dtype, [size, length]),
            bytes,
        };
        let given = [
            ("ids", input(DType::I32, ids)),
            ("token_types", input(DType::I32, types)),
            ("mask", input(DType::Pred, mask)),
        ];
        let found = session.call(variant, &given.map(|(name, tensor)| (name.to_string(), tensor)).into())?;
        let vectors = found.get("embedding").and_then(|tensor| tensor.ordered(&["b", "d"]));
        let vectors = vectors.filter(|vectors| vectors.spec.shape[0] == size && vectors.spec.shape[1] > 0);
        let values = vectors.as_ref().and_then(|vectors| Some((vectors.to_f32()?, vectors.spec.shape[1])));
        let Some((values, width)) = values else {
            return Err(Error::Archive(format!("{}: it returns no embedding for each text", variant.name)));
        };
        Ok(values.chunks_exact(width).take(texts.len()).map(<[f32]>::to_vec).collect())
    }
}

impl Embeddings {
    /// The other texts, the one closest to the first one first.
    pub fn ranking(&self) -> Vec<Match<'_>> {
        let unit: Vec<Vec<f64>> = self.vectors.iter().map(|vector| unit(vector)).collect();
        let cosine = |other: &[f64]| unit[0].iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
        let matches = unit.iter().zip(&self.texts).enumerate().skip(1);
        let mut found: Vec<Match<'_>> =
            matches.map(|(index, (other, text))| Match { index, text, similarity: cosine(other) }).collect();
        // What is no number comes last.
        let key = |found: &Match<'_>| if found.similarity.is_nan() { f64::NEG_INFINITY } else { found.similarity };
        found.sort_by(|a, b| key(b).partial_cmp(&key(a)).expect("numbers"));
        found
    }

    /// All numbers, for a machine: the vectors, and the other texts ranked against the first.
    pub fn to_json(&self) -> Value {
        let row = |place: usize| {
            let values: Vec<Value> = self.vectors[place].iter().map(|&value| number(value.into())).collect();
            json!({
                "text": self.texts[place],
                "tokens": self.tokens[place],
                "truncated": self.truncated[place],
                "embedding": values,
            })
        };
        let ranking = self
            .ranking()
            .into_iter()
            .map(|found| json!({"index": found.index, "text": found.text, "similarity": number(found.similarity)}));
        json!({
            "embeddings": (0..self.texts.len()).map(row).collect::<Vec<_>>(),
            "ranking": ranking.collect::<Vec<_>>(),
        })
    }
}

/// A vector of length one in the same direction; zeros stay zeros.
fn unit(vector: &[f32]) -> Vec<f64> {
    let length = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(1e-12);
    vector.iter().map(|&value| f64::from(value) / length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_ranked_by_their_angle_to_the_first() {
        let found = Embeddings {
            texts: ["query", "opposite", "nothing", "same", "near"].map(String::from).into(),
            tokens: vec![1; 5],
            truncated: vec![false; 5],
            vectors: vec![vec![2.0, 0.0], vec![-1.0, 0.0], vec![0.0, 0.0], vec![9.0, 0.0], vec![1.0, 1.0]],
        };
        let order: Vec<&str> = found.ranking().iter().map(|found| found.text).collect();
        assert_eq!(order, ["same", "near", "nothing", "opposite"]);
        assert_eq!(found.ranking()[0].similarity, 1.0);
        assert!((found.ranking()[1].similarity - 0.5_f64.sqrt()).abs() < 1e-12);
    }
}
