//! A bundle's program on a device: its weights there, its executables prepared as they are needed.

use crate::tensor::Tensor;
use crate::{Error, Result};
use nt_bundle::{Bundle, Kind, Target, Variant, WeightFile};
use nt_device::{Arg, Buffer, Bytes, Device, Executable};
use std::collections::{BTreeMap, HashMap};

pub struct Session<'a> {
    bundle: &'a Bundle,
    device: &'a dyn Device,
    target: &'a Target,
    source: WeightFile,
    weights: HashMap<String, Buffer>,
    executables: HashMap<String, Box<dyn Executable>>,
}

impl<'a> Session<'a> {
    /// Nothing is put onto the device before a call needs it.
    pub fn new(bundle: &'a Bundle, device: &'a dyn Device, target: &'a Target, weights: WeightFile) -> Session<'a> {
        Session { bundle, device, target, source: weights, weights: HashMap::new(), executables: HashMap::new() }
    }

    pub fn bundle(&self) -> &'a Bundle {
        self.bundle
    }

    /// Runs a variant on inputs by name, in any order of axes; returns its results by name.
    ///
    /// # Errors
    /// [`Error::Input`] where an input is missing or has other axes, sizes or another type; what the archive or the
    /// device refuses.
    pub fn call(&mut self, variant: &Variant, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        self.prepare(variant)?;
        let mut given = Vec::new();
        for argument in variant.arguments.iter().filter(|argument| argument.kind != Kind::Weight) {
            let name = &argument.name;
            let entry = &variant.name;
            let Some(tensor) = inputs.get(name) else {
                return Err(Error::Input(format!("{entry}: input {name} is missing")));
            };
            let ordered = tensor.ordered(&argument.axes).filter(|tensor| tensor.spec == argument.spec());
            let Some(tensor) = ordered else {
                let (found, wanted) = (&tensor.spec, argument.spec());
                return Err(Error::Input(format!("{entry}: input {name} is {found}, not {wanted}")));
            };
            given.push(self.device.upload(&tensor.spec, Bytes::from(tensor.bytes))?);
        }
        let mut given = given.into_iter();
        let args = variant.arguments.iter().map(|argument| match argument.kind {
            Kind::Weight => Arg::Borrow(&self.weights[&argument.name]),
            Kind::State | Kind::Input => Arg::Donate(given.next().expect("one for each")),
        });
        let args = args.collect();
        let results = self.executables[&variant.name].run(args)?;
        let results = results.iter().zip(&variant.results).map(|(buffer, result)| {
            let bytes = self.device.download(buffer)?;
            let tensor = Tensor { axes: result.axes.clone(), spec: buffer.spec().clone(), bytes };
            Ok((result.name.clone(), tensor))
        });
        results.collect()
    }

    fn prepare(&mut self, variant: &Variant) -> Result<()> {
        if self.executables.contains_key(&variant.name) {
            return Ok(());
        }
        let Some(path) = self.target.executables.get(&variant.name) else {
            return Err(Error::Archive(format!("{} has no executable for {}", self.target.name, variant.name)));
        };
        let executable = self.device.load(self.bundle.read(path)?, &variant.signature())?;
        self.executables.insert(variant.name.clone(), executable);
        for argument in variant.arguments.iter().filter(|argument| argument.kind == Kind::Weight) {
            if !self.weights.contains_key(&argument.name) {
                let buffer = self.device.upload(&argument.spec(), self.source.tensor(argument)?)?;
                self.weights.insert(argument.name.clone(), buffer);
            }
        }
        Ok(())
    }
}
