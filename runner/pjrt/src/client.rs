//! A client: the accelerator that a plugin found, and the tensors on it.

use crate::abi::{self, Args, Function, Opaque, View};
use crate::compile;
use crate::error::{Error, Result};
use crate::executable::Loaded;
use crate::plugin::{Plugin, Setting, named_values};
use nt_device::{Buffer, Bytes, DType, Device, Executable, Signature, TensorSpec};
use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

/// An accelerator of this machine: the first that its plugin finds.
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    kind: String,
    attributes: Vec<(String, Setting)>,
}

/// A program in serialized form, where the plugin can give it.
pub type Kept = Option<Vec<u8>>;

/// What is missing for every accelerator, where it is: plugins only say that they see none.
fn no_driver() -> &'static str {
    // NVIDIA's, AMD's, and both ways that TPUs are seen.
    let files = ["/dev/nvidiactl", "/dev/kfd", "/dev/accel0", "/dev/vfio/vfio"];
    if files.iter().any(|file| Path::new(file).exists()) {
        return "";
    }
    "; no driver is loaded on this machine (there is no /dev/nvidiactl, /dev/kfd, /dev/accel0 or /dev/vfio/vfio)"
}

/// What buffers and executables keep alive.
pub(crate) struct Inner {
    pub plugin: Arc<Plugin>,
    pub raw: Opaque,
    device: Opaque,
}

// SAFETY: the API's clients may be used from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nothing is left to do where this fails.
        let _ = self.plugin.call(Function::ClientDestroy, &mut Args::new(abi::One { it: self.raw }));
    }
}

impl Client {
    /// Starts the accelerator.
    ///
    /// # Errors
    /// Where there is none that the plugin knows, or its driver is missing.
    pub fn new(plugin: &Arc<Plugin>, settings: &[(String, Setting)]) -> Result<Client> {
        let values = named_values(settings);
        let mut args = Args::new(abi::ClientCreate {
            options: abi::List { items: values.as_ptr(), len: values.len() },
            store: [0; 4],
            client: std::ptr::null_mut(),
        });
        plugin
            .call(Function::ClientCreate, &mut args)
            .map_err(|error| error.during("the plugin finds no accelerator that it can use").and(no_driver()))?;
        let raw = args.fields.client;
        // From here on the client is destroyed, whatever fails.
        let mut inner = Inner { plugin: Arc::clone(plugin), raw, device: std::ptr::null_mut() };
        let mut devices = Args::new(abi::OneToList::<Opaque> { it: raw, items: std::ptr::null(), len: 0 });
        plugin.call(Function::ClientAddressableDevices, &mut devices)?;
        if devices.fields.len == 0 {
            return Err(Error::new("the plugin started, and has no device on this machine"));
        }
        // SAFETY: the list has an element, and lives as long as the client.
        inner.device = unsafe { *devices.fields.items };
        let mut description = Args::new(abi::OneToOne { it: inner.device, out: std::ptr::null_mut() });
        plugin.call(Function::DeviceGetDescription, &mut description)?;
        let kind = compile::kind(plugin, description.fields.out)?;
        // Not every plugin says more of its devices than their kind.
        let attributes = compile::attributes(plugin, description.fields.out).unwrap_or_default();
        Ok(Client { inner: Arc::new(inner), kind, attributes })
    }

    /// What the device is, such as "NVIDIA H100 80GB HBM3".
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What the device says of itself besides, such as `compute_capability`: "9.0", or "gfx942" of AMD's.
    pub fn attribute(&self, name: &str) -> Option<&Setting> {
        self.attributes.iter().find(|attribute| attribute.0 == name).map(|attribute| &attribute.1)
    }

    /// Name and version of the platform, such as "cuda" and the driver's version.
    ///
    /// # Errors
    /// What the plugin reports.
    pub fn platform(&self) -> Result<(String, String)> {
        let text = |function| {
            let mut args = Args::new(abi::OneToText { it: self.inner.raw, text: View::EMPTY });
            self.inner.plugin.call(function, &mut args)?;
            // SAFETY: the text lives as long as the client.
            Ok(String::from_utf8_lossy(unsafe { args.fields.text.bytes() }).into_owned())
        };
        Ok((text(Function::ClientPlatformName)?, text(Function::ClientPlatformVersion)?))
    }

    /// Compiles portable StableHLO for this device, with settings of XLA's by name. Gives the program, and the same
    /// serialized where the plugin can do that: worth keeping for [`Device::load`], for compiling can take long.
    ///
    /// # Errors
    /// [`nt_device::Error::Load`] with what the compiler reports.
    pub fn compile(
        &self,
        code: &[u8],
        settings: &[(String, String)],
        signature: &Signature,
    ) -> nt_device::Result<(Box<dyn Executable>, Kept)> {
        let loaded = Loaded::compile(&self.inner, code, settings).map_err(Error::load)?;
        let serialized = loaded.serialize().ok();
        Ok((Box::new(loaded.checked(signature)?), serialized))
    }
}

impl Device for Client {
    /// Takes an executable that was compiled ahead of time, or portable StableHLO, which is compiled now.
    fn load(&self, executable: Bytes, signature: &Signature) -> nt_device::Result<Box<dyn Executable>> {
        let loaded = if compile::is_portable(&executable) {
            Loaded::compile(&self.inner, &executable, &[])
        } else {
            Loaded::deserialize(&self.inner, &executable)
        };
        Ok(Box::new(loaded.map_err(Error::load)?.checked(signature)?))
    }

    /// Returns before the bytes are on the device; they are kept until then.
    fn upload(&self, spec: &TensorSpec, bytes: Bytes) -> nt_device::Result<Buffer> {
        if spec.bytes() != Some(bytes.len()) {
            return Err(nt_device::Error::Argument(format!("{} bytes are no {spec}", bytes.len())));
        }
        let plugin = &self.inner.plugin;
        let dims: Vec<i64> = spec.shape.iter().map(|&size| size as i64).collect();
        let mut args = Args::new(abi::FromHost {
            client: self.inner.raw,
            data: bytes.as_ptr(),
            element_type: element_type(spec.dtype),
            dims: abi::List { items: dims.as_ptr(), len: dims.len() },
            byte_strides: abi::List { items: std::ptr::null(), len: 0 },
            semantics: abi::UNTIL_TRANSFER_COMPLETES,
            device: self.inner.device,
            memory: std::ptr::null_mut(),
            layout: std::ptr::null_mut(),
            done: std::ptr::null_mut(),
            buffer: std::ptr::null_mut(),
        });
        plugin.call(Function::ClientBufferFromHostBuffer, &mut args).map_err(Error::run)?;
        let buffer = Tensor { client: Arc::clone(&self.inner), raw: args.fields.buffer };
        release_when_ready(plugin, args.fields.done, bytes).map_err(Error::run)?;
        Ok(Buffer::new(spec.clone(), buffer))
    }

    /// Waits for the program that makes the tensor; its failure is reported here.
    fn download(&self, buffer: &Buffer) -> nt_device::Result<Vec<u8>> {
        let tensor = self.inner.tensor(buffer)?;
        let plugin = &self.inner.plugin;
        let spec = buffer.spec();
        let size = spec.bytes().ok_or_else(|| nt_device::Error::Argument(format!("{spec} is too large")))?;
        let order: Vec<i64> = (0..spec.shape.len() as i64).rev().collect();
        let layout = Args::new(abi::Layout {
            tiled_struct_size: abi::Layout::TILED_SIZE,
            tiled_extensions: std::ptr::null(),
            minor_to_major: abi::List { items: order.as_ptr(), len: order.len() },
            tile_dims: std::ptr::null(),
            tile_ranks: std::ptr::null(),
            tiles: 0,
            kind: 0,
        });
        let mut bytes = vec![0; size];
        let mut args = Args::new(abi::ToHost {
            buffer: tensor.raw,
            layout: &layout,
            data: bytes.as_mut_ptr(),
            len: size,
            event: std::ptr::null_mut(),
        });
        plugin.call(Function::BufferToHostBuffer, &mut args).map_err(Error::run)?;
        wait(plugin, args.fields.event).map_err(Error::run)?;
        Ok(bytes)
    }
}

/// A tensor on the device.
pub(crate) struct Tensor {
    client: Arc<Inner>,
    pub raw: Opaque,
}

// SAFETY: the API's buffers may be used from any thread.
unsafe impl Send for Tensor {}
// SAFETY: as above.
unsafe impl Sync for Tensor {}

impl Tensor {
    pub fn new(client: &Arc<Inner>, raw: Opaque) -> Tensor {
        Tensor { client: Arc::clone(client), raw }
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        // Nothing is left to do where this fails.
        let _ = self.client.plugin.call(Function::BufferDestroy, &mut Args::new(abi::One { it: self.raw }));
    }
}

impl Inner {
    /// What this client keeps for a tensor.
    pub fn tensor<'a>(self: &Arc<Inner>, buffer: &'a Buffer) -> nt_device::Result<&'a Tensor> {
        let tensor = buffer.data::<Tensor>().filter(|tensor| Arc::ptr_eq(&tensor.client, self));
        tensor.ok_or_else(|| nt_device::Error::Argument(format!("{buffer:?} is on another device")))
    }
}

/// Waits for an event, and destroys it.
fn wait(plugin: &Plugin, event: Opaque) -> Result<()> {
    let outcome = plugin.call(Function::EventAwait, &mut Args::new(abi::One { it: event }));
    let destroyed = plugin.call(Function::EventDestroy, &mut Args::new(abi::One { it: event }));
    outcome.and(destroyed)
}

/// Keeps `bytes` until `event` is ready, without waiting for it.
fn release_when_ready(plugin: &Arc<Plugin>, event: Opaque, bytes: Bytes) -> Result<()> {
    if event.is_null() {
        return Ok(());
    }
    let user = Box::into_raw(Box::new((Arc::clone(plugin), bytes)));
    let mut args = Args::new(abi::OnReady { event, callback: release, user: user.cast() });
    let registered = plugin.call(Function::EventOnReady, &mut args);
    if registered.is_err() {
        // The callback will not come, so wait here.
        let _ = plugin.call(Function::EventAwait, &mut Args::new(abi::One { it: event }));
        // SAFETY: the pointer is the box's, which nobody else has any more.
        drop(unsafe { Box::from_raw(user) });
    }
    plugin.call(Function::EventDestroy, &mut Args::new(abi::One { it: event }))
}

/// Called once, from some thread of the plugin's.
unsafe extern "C" fn release(error: Opaque, user: *mut c_void) {
    // SAFETY: the pointer is the box of `release_when_ready`, and comes back once.
    let (plugin, bytes) = *unsafe { Box::from_raw(user.cast::<(Arc<Plugin>, Bytes)>()) };
    // A transfer that failed is reported by whatever uses the buffer.
    let _ = plugin.outcome(error);
    drop(bytes);
}

/// The API's number of an element type.
pub(crate) fn element_type(dtype: DType) -> i32 {
    match dtype {
        DType::Pred => 1,
        DType::I8 => 2,
        DType::I16 => 3,
        DType::I32 => 4,
        DType::I64 => 5,
        DType::U8 => 6,
        DType::U16 => 7,
        DType::U32 => 8,
        DType::U64 => 9,
        DType::F16 => 10,
        DType::F32 => 11,
        DType::F64 => 12,
        DType::BF16 => 13,
    }
}
