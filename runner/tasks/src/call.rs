//! Tensors in, tensors out: what any program can do.

use crate::array::{Array, Element};
use crate::element::{Scalar, convert, scalars};
use crate::json::number;
use crate::npy;
use crate::session::{Session, Value};
use crate::tensor::Tensor;
use crate::{Error, Result};
use nt_bundle::{Argument, Entry, Kind, Manifest, Variant};
use nt_device::TensorSpec;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// A program without a task of its own, as `Call` of namedtensor/tasks/_call.py declares it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The entry point to run when the caller names none.
    pub entry: Option<String>,
}

/// What an entry point returned, in its order. The axes of the inputs come first, as the inputs name them, then the
/// others by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    pub entry: String,
    pub tensors: Vec<(String, Tensor)>,
}

impl Call {
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<()> {
        match &self.entry {
            Some(entry) if manifest.entry(entry).is_none() => {
                Err(Error::Archive(format!("the task: there is no entry point {entry}")))
            }
            _ => Ok(()),
        }
    }

    /// The entry point that a call runs.
    ///
    /// # Errors
    /// [`Error::Usage`] where that is open, or there is none of the name.
    pub fn choose<'a>(&self, manifest: &'a Manifest, wanted: Option<&str>) -> Result<&'a Entry> {
        let names = |glue| manifest.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(glue);
        let model = &manifest.name;
        match (wanted.or(self.entry.as_deref()), manifest.entries.as_slice()) {
            (Some(name), _) => manifest
                .entry(name)
                .ok_or_else(|| Error::Usage(format!("{model} has no entry point '{name}': it has {}", names(", ")))),
            (None, [only]) => Ok(only),
            (None, _) => Err(Error::Usage(format!("{model} has several entry points: --entry {}", names(" or ")))),
        }
    }

    /// Runs an entry point on arrays by name, each in the order of its input's axes.
    ///
    /// # Errors
    /// [`Error::Input`] where an input is missing or does not fit; what the archive or the device refuses.
    pub fn run(
        &self,
        session: &mut Session<'_>,
        entry: &Entry,
        mut arrays: BTreeMap<String, Array>,
    ) -> Result<Outputs> {
        let mut given = BTreeMap::new();
        for input in inputs(entry) {
            let Some(array) = arrays.remove(&input.name) else {
                return Err(Error::Input(format!("{}: input '{}' is missing", entry.name, input.name)));
            };
            given.insert(input.name.clone(), tensor(&entry.name, input, array)?);
        }
        let variant = fitting(entry, &given)?;
        let order: Vec<&str> = {
            let mut seen = Vec::new();
            inputs(entry).iter().flat_map(|input| &input.axes).for_each(|axis| {
                if !seen.contains(&axis.as_str()) {
                    seen.push(axis.as_str());
                }
            });
            seen
        };
        let given = given.into_iter().map(|(name, tensor)| (name, Value::Host(tensor)));
        let mut results = session.run(variant, given.collect())?;
        let mut tensors = Vec::new();
        for result in &variant.results {
            let Some(placed) = results.remove(&result.name) else {
                return Err(Error::Archive(format!("{} returns {} twice", variant.name, result.name)));
            };
            tensors.push((result.name.clone(), ordered(&session.download(&placed)?, &order)));
        }
        Ok(Outputs { entry: entry.name.clone(), tensors })
    }
}

/// What a caller gives to an entry point: its inputs and states, sorted by the name of the whole that they belong to.
pub fn inputs(entry: &Entry) -> Vec<&Argument> {
    let arguments = entry.variants.first().map_or(&[][..], |variant| &variant.arguments);
    let mut found: Vec<&Argument> = arguments.iter().filter(|argument| argument.kind != Kind::Weight).collect();
    found.sort_by_key(|argument| argument.name.split('.').next());
    found
}

/// An argument as people see it: `(b=2, s=4) float32`.
pub fn describe(axes: &[String], spec: &TensorSpec) -> String {
    let sizes: Vec<String> = axes.iter().zip(&spec.shape).map(|(axis, size)| format!("{axis}={size}")).collect();
    format!("({}) {}", sizes.join(", "), spec.dtype)
}

/// Refuses an array in a file whose shape cannot be right, before it is read.
///
/// # Errors
/// [`Error::Input`].
pub fn check_shape(source: &str, entry: &Entry, input: &Argument, shape: &[usize]) -> Result<()> {
    let choices = |(axis, size): (&String, &usize)| entry.buckets.get(axis).cloned().unwrap_or(vec![*size]);
    let wanted: Vec<Vec<usize>> = input.axes.iter().zip(&input.shape).map(choices).collect();
    if wanted.len() == shape.len() && wanted.iter().zip(shape).all(|(choice, size)| choice.contains(size)) {
        return Ok(());
    }
    let shown = |(axis, choice): (&String, &Vec<usize>)| {
        format!("{axis}={}", choice.iter().map(usize::to_string).collect::<Vec<_>>().join(" or "))
    };
    let wanted: Vec<String> = input.axes.iter().zip(&wanted).map(shown).collect();
    let (name, found, wanted) = (&input.name, npy::shown(shape), wanted.join(", "));
    Err(Error::Input(format!("{source}: input '{name}' has shape {found}, not ({wanted})")))
}

/// An array with its axes named, and in the type of the input.
fn tensor(entry: &str, input: &Argument, array: Array) -> Result<Tensor> {
    let name = &input.name;
    let (found, wanted) = (array.shape.len(), input.axes.len());
    if found != wanted {
        return Err(Error::Input(format!("{entry}: input '{name}' has {found} axes, not {wanted}")));
    }
    let bytes = match array.element {
        Element::Number(dtype) => convert(dtype, array.bytes, input.dtype),
        Element::Opaque(size) if size == input.dtype.size() => Ok(array.bytes),
        opaque => Err(format!("holds {opaque} values, which do not become {}", input.dtype)),
    };
    let bytes = bytes.map_err(|problem| Error::Input(format!("{entry}: input '{name}' {problem}")))?;
    Ok(Tensor { axes: input.axes.clone(), spec: TensorSpec::new(input.dtype, array.shape), bytes })
}

/// The variant that the sizes of the inputs choose.
fn fitting<'a>(entry: &'a Entry, given: &BTreeMap<String, Tensor>) -> Result<&'a Variant> {
    let misfit = |variant: &'a Variant| {
        let inputs = variant.arguments.iter().filter(|argument| argument.kind != Kind::Weight);
        inputs.into_iter().find(|input| {
            given.get(&input.name).is_none_or(|tensor| tensor.axes != input.axes || tensor.spec.shape != input.shape)
        })
    };
    let mut first = None;
    for variant in &entry.variants {
        match misfit(variant) {
            None => return Ok(variant),
            Some(input) => first = first.or(Some(input)),
        }
    }
    let Some(input) = first else { return Err(Error::Archive(format!("{} has no variant", entry.name))) };
    let found = given.get(&input.name).map_or("nothing".into(), |tensor| describe(&tensor.axes, &tensor.spec));
    let mut text = format!("{}: input '{}' has other sizes than the entry point: ", entry.name, input.name);
    text += &format!("{found}, not {}", describe(&input.axes, &input.spec()));
    if entry.variants.len() > 1 {
        let names: Vec<&str> = entry.variants.iter().map(|variant| variant.name.as_str()).collect();
        text += &format!("; there are {}", names.join(", "));
    }
    Err(Error::Input(text))
}

/// The tensor with its axes in an order that does not depend on what the compiler found convenient.
fn ordered(tensor: &Tensor, known: &[&str]) -> Tensor {
    let mut axes = tensor.axes.clone();
    axes.sort_by_key(|axis| (known.iter().position(|known| known == axis).unwrap_or(known.len()), axis.clone()));
    tensor.ordered(&axes).unwrap_or_else(|| tensor.clone())
}

impl Outputs {
    /// All numbers, for a machine.
    pub fn to_json(&self) -> serde_json::Value {
        let output = |(name, tensor): &(String, Tensor)| {
            let mut values = scalars(tensor.spec.dtype, &tensor.bytes);
            let described = json!({
                "axes": tensor.axes,
                "shape": tensor.spec.shape,
                "dtype": tensor.spec.dtype.name(),
                "values": nested(&tensor.spec.shape, &mut values),
            });
            (name.clone(), described)
        };
        let outputs: serde_json::Map<_, _> = self.tensors.iter().map(output).collect();
        json!({"entry": self.entry, "outputs": outputs})
    }
}

/// Lists within lists, as the shape has it.
fn nested(shape: &[usize], values: &mut impl Iterator<Item = Scalar>) -> serde_json::Value {
    match shape.split_first() {
        Some((&size, inner)) => (0..size).map(|_| nested(inner, values)).collect(),
        None => match values.next() {
            Some(Scalar::Bool(value)) => value.into(),
            Some(Scalar::Int(value)) => {
                i64::try_from(value).map_or_else(|_| json!(value as u64), serde_json::Value::from)
            }
            Some(Scalar::Float(value)) => number(value),
            None => serde_json::Value::Null,
        },
    }
}
