//! A bundle's program on a device: its weights there, its executables prepared as they are needed.

use crate::backend::{Backend, Weights};
use crate::tensor::Tensor;
use crate::{Error, Result};
use nt_bundle::{Argument, Bundle, Kind, Variant};
use nt_device::{Arg, Buffer, Bytes, Executable};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

pub struct Session<'a> {
    bundle: &'a Bundle,
    backend: &'a dyn Backend,
    source: Weights,
    weights: HashMap<String, Buffer>,
    executables: HashMap<String, Box<dyn Executable>>,
}

/// A tensor on a session's device.
#[derive(Debug)]
pub struct Placed {
    pub axes: Vec<String>,
    pub buffer: Buffer,
}

/// What a variant is given for an input or a state: a tensor of the host in any order of axes, or one that is on the
/// device already, such as a result of another call.
#[derive(Debug)]
pub enum Value {
    Host(Tensor),
    Placed(Placed),
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Value {
        Value::Host(tensor)
    }
}

impl From<Placed> for Value {
    fn from(placed: Placed) -> Value {
        Value::Placed(placed)
    }
}

impl<'a> Session<'a> {
    /// Nothing is put onto the device before a call needs it.
    pub fn new(bundle: &'a Bundle, backend: &'a dyn Backend, weights: Weights) -> Session<'a> {
        Session { bundle, backend, source: weights, weights: HashMap::new(), executables: HashMap::new() }
    }

    pub fn bundle(&self) -> &'a Bundle {
        self.bundle
    }

    /// Runs a variant on tensors by name, and brings its results back.
    ///
    /// # Errors
    /// As for [`Session::run`].
    pub fn call(&mut self, variant: &Variant, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        let given = inputs.iter().map(|(name, tensor)| (name.clone(), Value::Host(tensor.clone())));
        let results = self.run(variant, given.collect())?;
        results.into_iter().map(|(name, placed)| Ok((name, self.download(&placed)?))).collect()
    }

    /// Runs a variant on what is given for its inputs and states, by name, and that is given up to it. Results stay on
    /// the device.
    ///
    /// # Errors
    /// [`Error::Input`] where something is missing, or has other axes, sizes or another type; what the archive or the
    /// device refuses.
    pub fn run(&mut self, variant: &Variant, mut given: BTreeMap<String, Value>) -> Result<BTreeMap<String, Placed>> {
        self.prepare(variant)?;
        let mut buffers = Vec::new();
        for argument in variant.arguments.iter().filter(|argument| argument.kind != Kind::Weight) {
            let Some(value) = given.remove(&argument.name) else {
                return Err(Error::Input(format!("{}: input {} is missing", variant.name, argument.name)));
            };
            buffers.push(self.place(variant, argument, value)?);
        }
        let mut buffers = buffers.into_iter();
        let args = variant.arguments.iter().map(|argument| match argument.kind {
            Kind::Weight => Arg::Borrow(&self.weights[&argument.name]),
            Kind::State | Kind::Input => Arg::Donate(buffers.next().expect("one for each")),
        });
        let args = args.collect();
        let results = self.executables[&variant.name].run(args)?;
        let results = results.into_iter().zip(&variant.results);
        Ok(results
            .map(|(buffer, result)| (result.name.clone(), Placed { axes: result.axes.clone(), buffer }))
            .collect())
    }

    /// Copies a tensor from the device.
    ///
    /// # Errors
    /// What the device reports.
    pub fn download(&self, placed: &Placed) -> Result<Tensor> {
        let bytes = self.backend.device().download(&placed.buffer)?;
        Ok(Tensor { axes: placed.axes.clone(), spec: placed.buffer.spec().clone(), bytes })
    }

    /// Zeros on the device, as an argument of that kind: an empty state.
    ///
    /// # Errors
    /// [`nt_device::Error::Memory`].
    pub fn zeros(&self, argument: &Argument) -> Result<Placed> {
        Ok(Placed { axes: argument.axes.clone(), buffer: self.backend.device().zeros(&argument.spec())? })
    }

    /// An input where and as the program takes it.
    fn place(&self, variant: &Variant, argument: &Argument, value: Value) -> Result<Buffer> {
        let tensor = match value {
            Value::Placed(placed) if placed.axes == argument.axes && *placed.buffer.spec() == argument.spec() => {
                return Ok(placed.buffer);
            }
            Value::Placed(placed) => self.download(&placed)?,
            Value::Host(tensor) => tensor,
        };
        let ordered = tensor.ordered(&argument.axes).filter(|tensor| tensor.spec == argument.spec());
        let Some(tensor) = ordered else {
            let (found, wanted) = (&tensor.spec, argument.spec());
            let (entry, name) = (&variant.name, &argument.name);
            return Err(Error::Input(format!("{entry}: input {name} is {found}, not {wanted}")));
        };
        Ok(self.backend.device().upload(&tensor.spec, Bytes::from(tensor.bytes))?)
    }

    /// Has a variant's executable and weights ready before its first run: puts the weights onto the device while the
    /// executable is being prepared.
    ///
    /// # Errors
    /// What the archive or the device refuses.
    pub fn prepare(&mut self, variant: &Variant) -> Result<()> {
        if self.executables.contains_key(&variant.name) {
            return Ok(());
        }
        let weights = variant.arguments.iter().filter(|argument| argument.kind == Kind::Weight);
        let missing: Vec<&Argument> = weights.filter(|weight| !self.weights.contains_key(&weight.name)).collect();
        let (backend, source) = (self.backend, Mutex::new(&mut self.source));
        let upload = &|| -> Result<Vec<(String, Buffer)>> {
            if missing.is_empty() {
                return Ok(Vec::new());
            }
            let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
            let file = source.get()?;
            let device = backend.device();
            let put =
                |weight: &&Argument| Ok((weight.name.clone(), device.upload(&weight.spec(), file.tensor(weight)?)?));
            missing.iter().map(put).collect()
        };
        let (executable, uploaded) = std::thread::scope(|scope| {
            let uploading = Builder::new().spawn_scoped(scope, upload);
            let executable = backend.prepare(variant);
            // Where there may be no more threads, one after the other.
            let uploaded = match uploading {
                Ok(thread) => thread.join().unwrap_or_else(|fault| std::panic::resume_unwind(fault)),
                Err(_) => upload(),
            };
            (executable, uploaded)
        });
        self.executables.insert(variant.name.clone(), executable?);
        self.weights.extend(uploaded?);
        Ok(())
    }
}
