//! Image files in, labels out.

use crate::batch;
use crate::json::number;
use crate::preprocess::ImagePreprocess;
use crate::session::Session;
use crate::tensor::Tensor;
use crate::{Error, Result};
use nt_bundle::{Entry, Variant};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A program that labels images, as `Classify` of namedtensor/tasks/_classify.py declares it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classify {
    pub preprocess: ImagePreprocess,
    pub labels: Vec<String>,
    /// How many labels are reported unless the caller says otherwise.
    pub top: usize,
    pub entry: String,
}

/// One answer: the label, its position in the model's output, its probability (0 to 1) and its logit.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    pub label: String,
    pub index: usize,
    pub probability: f32,
    pub logit: f32,
}

/// What was found in one image: the likeliest labels, best first, and the logits of all.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageLabels {
    pub file: String,
    pub labels: Vec<Label>,
    pub logits: Vec<f32>,
}

/// One entry for each file, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    pub images: Vec<ImageLabels>,
}

impl Classify {
    pub(crate) fn check(&self) -> Result<()> {
        if self.top == 0 || self.labels.is_empty() {
            return Err(Error::Archive("the task: it reports no labels".into()));
        }
        self.preprocess.check()
    }

    /// Labels image files; `top` of them for each, where given.
    ///
    /// # Errors
    /// [`Error::Input`] where a file is not an image; what the archive or the device refuses.
    pub fn run<P: AsRef<Path>>(
        &self,
        session: &mut Session<'_>,
        files: &[P],
        top: Option<usize>,
    ) -> Result<Classification> {
        let bundle = session.bundle();
        let Some(entry) = bundle.manifest().entry(&self.entry) else {
            return Err(Error::Archive(format!("the task: there is no entry point {}", self.entry)));
        };
        let mut images = Vec::new();
        let mut rest = files;
        while !rest.is_empty() {
            let (variant, size) = fitting(entry, rest.len())?;
            let (now, later) = rest.split_at(size.min(rest.len()));
            images.extend(self.batch(session, variant, size, now, top.unwrap_or(self.top))?);
            rest = later;
        }
        Ok(Classification { images })
    }

    fn batch<P: AsRef<Path>>(
        &self,
        session: &mut Session<'_>,
        variant: &Variant,
        size: usize,
        files: &[P],
        top: usize,
    ) -> Result<Vec<ImageLabels>> {
        let ImagePreprocess { height, width, channels, .. } = self.preprocess;
        let mut pixels = Vec::new();
        for file in files {
            pixels.extend(self.preprocess.read(file.as_ref())?);
        }
        // Places in the batch that are left over hold black images.
        let all = size.checked_mul(height * width * channels).filter(|&all| all <= 1 << 34);
        pixels.resize(all.ok_or_else(|| Error::Archive(format!("{}: its batch is too large", variant.name)))?, 0.0);
        let images = Tensor::f32(&["b", "h", "w", "c"], &[size, height, width, channels], &pixels);
        let found = session.call(variant, &BTreeMap::from([("images".into(), images)]))?;
        let classes = self.labels.len();
        let [logits, probabilities] = ["logits", "probabilities"].map(|name| {
            let tensor = found.get(name).and_then(|tensor| tensor.ordered(&["b", "label"]));
            let tensor = tensor.filter(|tensor| tensor.spec.shape == [size, classes]);
            tensor.and_then(|tensor| tensor.to_f32()).ok_or_else(|| {
                Error::Archive(format!("{}: it returns no {name} of {classes} labels for each image", variant.name))
            })
        });
        let (logits, probabilities) = (logits?, probabilities?);
        let rows = logits.chunks_exact(classes).zip(probabilities.chunks_exact(classes));
        let labels = files.iter().zip(rows).map(|(file, (logits, probabilities))| ImageLabels {
            file: file.as_ref().to_string_lossy().into_owned(),
            labels: self.best(logits, probabilities, top),
            logits: logits.to_vec(),
        });
        Ok(labels.collect())
    }

    fn best(&self, logits: &[f32], probabilities: &[f32], top: usize) -> Vec<Label> {
        // By logit: probabilities that round to the same number keep their order. What is no number comes last.
        let mut order: Vec<usize> = (0..logits.len()).collect();
        let key = |index: usize| if logits[index].is_nan() { f32::NEG_INFINITY } else { logits[index] };
        order.sort_by(|&a, &b| {
            key(b).partial_cmp(&key(a)).expect("numbers").then(logits[a].is_nan().cmp(&logits[b].is_nan()))
        });
        let label = |&index: &usize| Label {
            label: self.labels[index].clone(),
            index,
            probability: probabilities[index],
            logit: logits[index],
        };
        order.iter().take(top).map(label).collect()
    }
}

/// The variant for a batch of at most `count`, and its size: the smallest that holds all, or the largest there is.
fn fitting(entry: &Entry, count: usize) -> Result<(&Variant, usize)> {
    let size = batch::holding(&batch::sizes(entry, "images", "b"), count);
    let found = size.and_then(|size| Some((batch::variant(entry, "images", &[("b", size)])?, size)));
    found.ok_or_else(|| Error::Archive(format!("the task: {} takes no images (b, h, w, c)", entry.name)))
}

impl ImageLabels {
    fn to_json(&self) -> Value {
        let label = |found: &Label| {
            json!({
                "label": found.label,
                "index": found.index,
                "probability": number(found.probability.into()),
                "logit": number(found.logit.into()),
            })
        };
        let logits: Vec<Value> = self.logits.iter().map(|&logit| number(logit.into())).collect();
        json!({"file": self.file, "labels": self.labels.iter().map(label).collect::<Vec<_>>(), "logits": logits})
    }
}

impl Classification {
    /// All numbers, for a machine.
    pub fn to_json(&self) -> Value {
        json!({"images": self.images.iter().map(ImageLabels::to_json).collect::<Vec<_>>()})
    }
}
