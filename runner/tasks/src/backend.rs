//! Where a session's programs run, and how they get there.

use crate::{Error, Result};
use nt_bundle::{Bundle, Target, Variant, WeightFile};
use nt_device::{Device, Executable};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// A device, and what it runs for each variant of a program.
pub trait Backend: Send + Sync {
    fn device(&self) -> &dyn Device;

    /// # Errors
    /// What the archive or the device refuses.
    fn prepare(&self, variant: &Variant) -> Result<Box<dyn Executable>>;
}

/// The executables that an archive has for one target.
pub struct Compiled<'a> {
    bundle: &'a Bundle,
    device: &'a dyn Device,
    target: &'a Target,
}

impl<'a> Compiled<'a> {
    pub fn new(bundle: &'a Bundle, device: &'a dyn Device, target: &'a Target) -> Compiled<'a> {
        Compiled { bundle, device, target }
    }
}

impl Backend for Compiled<'_> {
    fn device(&self) -> &dyn Device {
        self.device
    }

    fn prepare(&self, variant: &Variant) -> Result<Box<dyn Executable>> {
        let Some(path) = self.target.executables.get(&variant.name) else {
            return Err(Error::Archive(format!("{} has no executable for {}", self.target.name, variant.name)));
        };
        Ok(self.device.load(self.bundle.read(path)?, &variant.signature())?)
    }
}

/// Weights that are being read and checked, in a thread of its own, while the device and its programs are prepared.
pub struct Weights(State);

enum State {
    Opening(JoinHandle<Result<WeightFile>>),
    Done(Result<WeightFile>),
}

impl Weights {
    /// Begins to open them.
    pub fn open(how: impl Fn() -> Result<WeightFile> + Send + Sync + 'static) -> Weights {
        let how = Arc::new(how);
        let there = Arc::clone(&how);
        Weights(match Builder::new().spawn(move || there()) {
            Ok(thread) => State::Opening(thread),
            // Where there may be no more threads it takes longer.
            Err(_) => State::Done(how()),
        })
    }

    /// The weights, as soon as they are there.
    ///
    /// # Errors
    /// Why they cannot be had.
    pub fn get(&mut self) -> Result<&WeightFile> {
        if let State::Opening(_) = self.0 {
            let failed = State::Done(Err(Error::Archive("the weights' reader has a fault".into())));
            if let State::Opening(thread) = std::mem::replace(&mut self.0, failed)
                && let Ok(outcome) = thread.join()
            {
                self.0 = State::Done(outcome);
            }
        }
        match &self.0 {
            State::Done(outcome) => outcome.as_ref().map_err(Clone::clone),
            State::Opening(_) => unreachable!("joined above"),
        }
    }
}
