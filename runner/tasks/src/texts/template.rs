//! Chat templates: messages to the text of a prompt, as namedtensor/tasks/_template.py does it.

mod confined;
mod environment;
mod python_json;

use crate::{Error, Result};
use confined::confined;
use minijinja::{Value, context};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Characters of a text that a template may make.
const LONGEST: usize = 16 << 20;

/// A Jinja template as checkpoints bring it, and the special tokens that it may mention, such as `bos_token`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatTemplate {
    pub source: String,
    pub tokens: BTreeMap<String, String>,
}

/// What one side of a conversation said.
#[derive(Clone, Debug)]
pub struct Message {
    /// `system`, `user`, `assistant`.
    pub role: String,
    pub content: String,
}

impl ChatTemplate {
    /// The conversation as one text, special tokens included: to be tokenized without adding any. It ends where the
    /// assistant is to go on.
    ///
    /// The template runs in a process of its own with little memory and time.
    ///
    /// # Errors
    /// [`Error::Input`] with the template's own words where it refuses the messages, or fails.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        self.rendered(messages, true)
    }

    fn rendered(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let text = confined(|| {
            let text = environment::render(&self.source, self.values(messages, add_generation_prompt))?;
            match text.chars().count() {
                count if count > LONGEST => Err(format!("it makes a text of {count} characters")),
                _ => Ok(text),
            }
        })?;
        text.map_err(|problem| Error::Input(format!("the chat template refuses the messages: {problem}")))
    }

    fn values(&self, messages: &[Message], add_generation_prompt: bool) -> Value {
        let messages = messages.iter().map(|message| context! { role => &message.role, content => &message.content });
        let mut values: BTreeMap<String, Value> =
            self.tokens.iter().map(|(name, token)| (name.clone(), token.into())).collect();
        values.insert("messages".into(), messages.collect());
        values.insert("add_generation_prompt".into(), add_generation_prompt.into());
        for absent in ["tools", "documents"] {
            values.insert(absent.into(), ().into());
        }
        values.into()
    }
}

#[cfg(test)]
mod tests;
