//! What a bundle's program does for its user: the host's side of each task, the same as `namedtensor run` does it.

mod array;
mod backend;
mod batch;
mod call;
mod classify;
mod element;
mod files;
mod image;
mod json;
mod literal;
mod npy;
mod npz;
mod preprocess;
mod resample;
mod safetensors;
mod session;
mod tensor;
#[cfg(feature = "texts")]
mod texts;

pub use array::{Array, Layout, READABLE, Stored, has_suffix, stored};
pub use backend::{Backend, Compiled, Weights};
pub use call::{Call, Outputs, check_shape, describe, inputs};
pub use classify::{Classification, Classify, ImageLabels, Label};
pub use element::{Scalar, is_float, scalars};
pub use files::{write, write_npy};
pub use literal::{Problem, parse as parse_array};
pub use preprocess::ImagePreprocess;
pub use session::{Placed, Session, Value};
pub use tensor::Tensor;
#[cfg(feature = "texts")]
pub use texts::{
    ChatTemplate, Embed, Embeddings, Encoding, Finish, Generate, Generation, Match, Message, Prompt, Sampling,
    Settings, Tokenizer, Tokens,
};

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
    #[cfg(feature = "texts")]
    Embed(Embed),
    #[cfg(feature = "texts")]
    Generate(Generate),
}

impl Task {
    /// The task that a bundle declares.
    ///
    /// # Errors
    /// [`Error::Archive`] where it is none that this program knows or was built with, or is not complete.
    pub fn of(manifest: &nt_bundle::Manifest) -> Result<Task> {
        if let Some(name @ ("embed" | "generate")) = manifest.task.get("task").and_then(serde_json::Value::as_str)
            && !cfg!(feature = "texts")
        {
            return Err(Error::Archive(format!(
                "the task is {name}, which this program was built without; build the archive again, which packs one with it"
            )));
        }
        let declared = serde_json::Value::Object(manifest.task.clone());
        let task = Task::deserialize(declared).map_err(|error| Error::Archive(format!("the task: {error}")))?;
        match &task {
            Task::Call(task) => task.check(manifest)?,
            Task::Classify(task) => task.check()?,
            #[cfg(feature = "texts")]
            Task::Embed(task) => task.check(manifest)?,
            #[cfg(feature = "texts")]
            Task::Generate(task) => task.check(manifest)?,
        }
        Ok(task)
    }
}
