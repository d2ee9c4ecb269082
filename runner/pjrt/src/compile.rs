//! Programs for the compiler: portable StableHLO, one replica on one device.

use crate::abi::{self, Args, Function, Opaque, View};
use crate::error::Result;
use crate::plugin::{Plugin, Setting, named_values};
use std::sync::Arc;

/// XLA's CompileOptionsProto, serialized. Field 3 are the build options: no device preferred (-1), one replica, one
/// partition, and the assignment of that one to the device with number 0.
pub(crate) const OPTIONS: [u8; 28] = [
    0x1a, 26, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x20, 1, 0x28, 1, // ...
    0x4a, 9, 0x08, 1, 0x10, 1, 0x1a, 3, 0x0a, 1, 0,
];

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
        let mut args = Args::new(abi::OneToList::<Opaque> { it: self.raw, items: std::ptr::null(), len: 0 });
        self.plugin.call(Function::TopologyDeviceDescriptions, &mut args)?;
        // SAFETY: the plugin gives as many descriptions, which live as long as the topology.
        (0..args.fields.len).map(|index| kind(&self.plugin, unsafe { *args.fields.items.add(index) })).collect()
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
