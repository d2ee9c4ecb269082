//! The tasks that read or write text. They bring tokenizers and templates, which are half of a program that has them.

mod answer;
mod embed;
mod generate;
mod generation;
mod sampling;
mod template;
mod text;

pub use embed::{Embed, Embeddings, Match};
pub use generate::{Generate, Prompt, Settings, Tokens};
pub use generation::{Finish, Generation};
pub use sampling::Sampling;
pub use template::{ChatTemplate, Message};
pub use text::{Encoding, Tokenizer};
