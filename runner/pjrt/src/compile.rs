//! Programs for the compiler: portable StableHLO, one replica on one device.

use crate::abi::{self, Args, Function, Opaque, View};
use crate::error::Result;
use crate::plugin::{Plugin, Setting, named_values, settings};
use std::sync::Arc;

/// XLA's CompileOptionsProto, serialized. Field 3 are the build options: no device preferred (-1), one replica, one
/// partition, and the assignment of that one to the device with number 0.
pub(crate) const OPTIONS: [u8; 28] = [
    0x1a, 26, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x20, 1, 0x28, 1, // ...
    0x4a, 9, 0x08, 1, 0x10, 1, 0x1a, 3, 0x0a, 1, 0,
];

/// The same, with settings of XLA's by name: field 7 of the CompileOptionsProto is a map from names to values, whose
/// field 1 is text.
pub(crate) fn options(settings: &[(String, String)]) -> Vec<u8> {
    let mut all = OPTIONS.to_vec();
    for (name, text) in settings {
        let value = field(1, text.as_bytes());
        all.extend(field(7, &[field(1, name.as_bytes()), field(2, &value)].concat()));
    }
    all
}

/// A field of bytes as protocol buffers have it: its tag, its length and what it holds.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![number << 3 | 2];
    let mut left = bytes.len();
    while left >= 0x80 {
        all.push(left as u8 | 0x80);
        left >>= 7;
    }
    all.push(left as u8);
    all.extend(bytes);
    all
}

/// Begins MLIR's bytecode, which portable StableHLO is.
const BYTECODE: &[u8] = b"ML\xefR";

/// Whether these bytes are a program for the compiler, not an executable of some device.
pub fn is_portable(bytes: &[u8]) -> bool {
    bytes.starts_with(BYTECODE)
}

pub(crate) fn program(code: &[u8]) -> Args<abi::Program> {
    Args::new(abi::Program { code: View::of(code), format: View::of(b"mlir") })
}

/// Devices that a plugin can compile for without their being there.
pub struct Topology {
    plugin: Arc<Plugin>,
    raw: Opaque,
}

impl Topology {
    /// The topology that the plugin knows by this name and these settings.
    ///
    /// # Errors
    /// What the plugin reports.
    pub fn new(plugin: &Arc<Plugin>, name: &str, settings: &[(String, Setting)]) -> Result<Topology> {
        let values = named_values(settings);
        let mut args = Args::new(abi::TopologyCreate {
            name: View::of(name.as_bytes()),
            options: abi::List { items: values.as_ptr(), len: values.len() },
            topology: std::ptr::null_mut(),
        });
        plugin.call(Function::TopologyCreate, &mut args).map_err(|error| error.during(name))?;
        Ok(Topology { plugin: Arc::clone(plugin), raw: args.fields.topology })
    }

    /// Names of the kinds of its devices, such as "NVIDIA H100 80GB HBM3", one for each.
    ///
    /// # Errors
    /// What the plugin reports.
    pub fn devices(&self) -> Result<Vec<String>> {
        self.descriptions()?.into_iter().map(|description| kind(&self.plugin, description)).collect()
    }

    /// What its devices say of themselves, such as `compute_capability`, one list for each.
    ///
    /// # Errors
    /// What the plugin reports.
    pub fn attributes(&self) -> Result<Vec<Vec<(String, Setting)>>> {
        self.descriptions()?.into_iter().map(|description| attributes(&self.plugin, description)).collect()
    }

    fn descriptions(&self) -> Result<Vec<Opaque>> {
        let mut args = Args::new(abi::OneToList::<Opaque> { it: self.raw, items: std::ptr::null(), len: 0 });
        self.plugin.call(Function::TopologyDeviceDescriptions, &mut args)?;
        // SAFETY: the plugin gives as many descriptions, which live as long as the topology.
        Ok((0..args.fields.len).map(|index| unsafe { *args.fields.items.add(index) }).collect())
    }

    /// Compiles a program (StableHLO, as portable bytecode or as text) into a serialized executable.
    ///
    /// # Errors
    /// What the compiler reports.
    pub fn compile(&self, code: &[u8]) -> Result<Vec<u8>> {
        let program = program(code);
        let mut args = Args::new(abi::Compile {
            topology: self.raw,
            program: &program,
            options: View::of(&OPTIONS),
            client: std::ptr::null_mut(),
            executable: std::ptr::null_mut(),
        });
        self.plugin.call(Function::Compile, &mut args)?;
        let executable = args.fields.executable;
        let bytes = serialize(&self.plugin, executable);
        let destroyed = self.plugin.call(Function::ExecutableDestroy, &mut Args::new(abi::One { it: executable }));
        bytes.and_then(|bytes| destroyed.map(|()| bytes))
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        // Nothing is left to do where this fails.
        let _ = self.plugin.call(Function::TopologyDestroy, &mut Args::new(abi::One { it: self.raw }));
    }
}

pub(crate) fn kind(plugin: &Plugin, description: Opaque) -> Result<String> {
    let mut args = Args::new(abi::OneToText { it: description, text: View::EMPTY });
    plugin.call(Function::DeviceDescriptionKind, &mut args)?;
    // SAFETY: the text lives as long as the description.
    Ok(String::from_utf8_lossy(unsafe { args.fields.text.bytes() }).into_owned())
}

/// What a device is, by name.
pub(crate) fn attributes(plugin: &Plugin, description: Opaque) -> Result<Vec<(String, Setting)>> {
    let mut args = Args::new(abi::OneToAttributes { it: description, len: 0, items: std::ptr::null() });
    plugin.call(Function::DeviceDescriptionAttributes, &mut args)?;
    // SAFETY: the attributes live as long as the description.
    Ok(unsafe { settings(args.fields.items, args.fields.len) })
}

pub(crate) fn serialize(plugin: &Plugin, executable: Opaque) -> Result<Vec<u8>> {
    let mut args =
        Args::new(abi::Serialize { executable, bytes: View::EMPTY, owner: std::ptr::null_mut(), free: None });
    plugin.call(Function::ExecutableSerialize, &mut args)?;
    // SAFETY: the bytes live until their owner is freed.
    let bytes = unsafe { args.fields.bytes.bytes() }.to_vec();
    if let Some(free) = args.fields.free {
        // SAFETY: to be called once with the owner, and the bytes are copied.
        unsafe { free(args.fields.owner) };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_follow_the_options() {
        let text = "y".repeat(130);
        let found = options(&[("xla_x".into(), "data".into()), ("z".into(), text.clone())]);
        let first = b"\x3a\x0f\x0a\x05xla_x\x12\x06\x0a\x04data";
        let second = [b"\x3a\x8b\x01\x0a\x01z\x12\x85\x01\x0a\x82\x01", text.as_bytes()].concat();
        assert_eq!(found, [&OPTIONS[..], first, &second].concat());
    }
}
