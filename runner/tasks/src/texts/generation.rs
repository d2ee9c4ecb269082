//! An answer, and what there is to tell about it.

use super::sampling::Sampling;
use crate::json::number;
use serde_json::{Value, json};

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// An id that ends answers.
    Eos,
    /// A stop string.
    Stop,
    /// The longest answer that was asked for.
    Length,
    /// No room left.
    Context,
}

/// An answer. `ids` are its tokens, with the one that ended it; `text` is None where there is no tokenizer. Times are in
/// seconds; `first_token_seconds` are those of the prompt and the first token.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    pub ids: Vec<u32>,
    pub text: Option<String>,
    pub finish_reason: Finish,
    pub prompt_ids: Vec<u32>,
    pub seed: u32,
    pub sampling: Sampling,
    pub first_token_seconds: f64,
    pub seconds: f64,
}

impl Finish {
    pub fn name(self) -> &'static str {
        match self {
            Finish::Eos => "eos",
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Context => "context",
        }
    }
}

impl Generation {
    /// Rate of the tokens after the first one; None where there are none.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let after = self.seconds - self.first_token_seconds;
        (self.ids.len() > 1 && after > 0.0).then(|| (self.ids.len() - 1) as f64 / after)
    }

    /// All numbers, for a machine.
    pub fn to_json(&self) -> Value {
        json!({
            "text": self.text,
            "ids": self.ids,
            "finish_reason": self.finish_reason.name(),
            "prompt_tokens": self.prompt_ids.len(),
            "prompt_ids": self.prompt_ids,
            "answer_tokens": self.ids.len(),
            "seed": self.seed,
            "sampling": self.sampling.to_json(),
            "first_token_seconds": number(self.first_token_seconds),
            "seconds": number(self.seconds),
            "tokens_per_second": self.tokens_per_second().map(number),
        })
    }
}
