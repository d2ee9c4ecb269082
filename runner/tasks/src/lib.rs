//! What a bundle's program does for its user: the host's side of each task, the same as `namedtensor run` does it.

mod answer;
mod array;
mod backend;
mod batch;
mod call;
mod classify;
mod element;
mod embed;
mod files;
mod generate;
mod generation;
mod image;
mod json;
mod literal;
mod npy;
mod npz;
mod preprocess;
mod resample;
mod safetensors;
mod sampling;
mod session;
mod template;
mod tensor;
mod text;

pub use array::{Array, Layout, READABLE, Stored, has_suffix, stored};
pub use backend::{Backend, Compiled, Weights};
pub use call::{Call, Outputs, check_shape, describe, inputs};
pub use classify::{Classification, Classify, ImageLabels, Label};
pub use element::{Scalar, is_float, scalars};
pub use embed::{Embed, Embeddings, Match};
pub use files::{write, write_npy};
pub use generate::{Generate, Prompt, Settings, Tokens};
pub use generation::{Finish, Generation};
pub use literal::{Problem, parse as parse_array};
pub use preprocess::ImagePreprocess;
pub use sampling::Sampling;
pub use session::{Placed, Session, Value};
pub use template::{ChatTemplate, Message};
pub use tensor::Tensor;
pub use text::{Encoding, Tokenizer};

use serde::Deserialize;

/// Why a task fails, in one line for a person.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Error {
    /// What was given is missing, damaged or does not fit.
    #[error("{0}")]
    Input(String),
    /// The command was not understood.
    #[error("{0}")]
    Usage(String),
    /// A result cannot be written.
    #[error("{0}")]
    Output(String),
    /// The archive contradicts itself.
    #[error("{0}")]
    Archive(String),
    #[error(transparent)]
    Bundle(#[from] nt_bundle::Error),
    #[error(transparent)]
    Device(#[from] nt_device::Error),
}

pub type Result<T> = std::result::Result<T, Error>;

/// A bundle's task.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "task", rename_all = "lowercase")]
pub enum Task {
    Call(Call),
    Classify(Classify),
    Embed(Embed),
    Generate(Generate),
}

impl Task {
    /// The task that a bundle declares.
    ///
    /// # Errors
    /// [`Error::Archive`] where it is none that this program knows, or is not complete.
    pub fn of(manifest: &nt_bundle::Manifest) -> Result<Task> {
        let declared = serde_json::Value::Object(manifest.task.clone());
        let task = Task::deserialize(declared).map_err(|error| Error::Archive(format!("the task: {error}")))?;
        match &task {
            Task::Call(task) => task.check(manifest)?,
            Task::Classify(task) => task.check()?,
            Task::Embed(task) => task.check(manifest)?,
            Task::Generate(task) => task.check(manifest)?,
        }
        Ok(task)
    }
}
