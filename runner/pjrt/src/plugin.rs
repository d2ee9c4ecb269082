//! A plugin: a shared library with the PJRT C API.

use crate::abi::{self, Args, Function, Header, NamedValue, Opaque, View};
use crate::error::{Error, Result};
use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

/// A plugin that was loaded and checked. It stays loaded until the process ends.
pub struct Plugin {
    api: *const u8,
    version: (i32, i32),
}

// SAFETY: the table is constant, and the API's functions may be called from any thread.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

/// A setting of a client or of a topology.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    Text(String),
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Bool(bool),
}

impl Plugin {
    /// Loads a shared library that a plugin or another library needs, for all to see, and keeps it.
    ///
    /// # Safety
    /// The library's code runs, with all that this process may do.
    ///
    /// # Errors
    /// Where there is no such library, or it needs others that are missing.
    pub unsafe fn preload(library: &Path) -> Result<()> {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};
        // SAFETY: the caller's promise.
        let loaded = unsafe { Library::open(Some(library), RTLD_LAZY | RTLD_GLOBAL) };
        std::mem::forget(loaded.map_err(|error| Error::new(reason(&error)))?);
        Ok(())
    }

    /// Loads a plugin and initializes it.
    ///
    /// # Safety
    /// The library's code runs, with all that this process may do; it must be one that implements the API.
    ///
    /// # Errors
    /// Where there is no such library or it needs others that are missing, where it is no plugin or one of another
    /// version, or where it refuses.
    pub unsafe fn load(path: &Path) -> Result<Arc<Plugin>> {
        let shown = path.display();
        // SAFETY: the caller's promise.
        let library = unsafe { libloading::Library::new(path) }
            .map_err(|error| Error::new(format!("the plugin cannot be loaded: {}", reason(&error))))?;
        // SAFETY: the function of this name has this signature in every version of the API.
        let api = unsafe { library.get::<unsafe extern "C" fn() -> *const u8>(b"GetPjrtApi\0") }
            .map(|get| unsafe { get() })
            .map_err(|_| Error::new(format!("{shown} is no PJRT plugin: it has no GetPjrtApi")))?;
        // Plugins start threads and register handlers; none can be unloaded.
        std::mem::forget(library);
        // SAFETY: what GetPjrtApi gives begins with this header, and lives as long as the library.
        let plugin = unsafe { Plugin::of(api) }.map_err(|error| error.during(&shown.to_string()))?;
        plugin.call(Function::PluginInitialize, &mut Args::new(()))?;
        Ok(Arc::new(plugin))
    }

    /// # Safety
    /// `api` must be null or point to a table of functions that lives as long as the process.
    unsafe fn of(api: *const u8) -> Result<Plugin> {
        if api.is_null() || !api.cast::<Header>().is_aligned() {
            return Err(Error::new("the plugin gives no table of functions"));
        }
        // SAFETY: the caller's promise; the size is looked at before anything else.
        let size = unsafe { *api.cast::<usize>() };
        let needed = abi::TABLE + (Function::LAST as usize + 1) * size_of::<usize>();
        if size < abi::TABLE {
            return Err(Error::new(format!("the plugin's table of functions has {size} bytes, too few for a version")));
        }
        // SAFETY: there are as many bytes.
        let header = unsafe { &*api.cast::<Header>() };
        let version = (header.major, header.minor);
        if header.major != abi::MAJOR || header.minor < abi::OLDEST_MINOR {
            return Err(Error::new(format!(
                "the plugin speaks version {}.{} of the PJRT C API; {}.{} and later minor versions are understood",
                version.0,
                version.1,
                abi::MAJOR,
                abi::OLDEST_MINOR
            )));
        }
        if size < needed {
            return Err(Error::new(format!(
                "the plugin's table of functions has {size} bytes where version {}.{} has {needed} or more",
                version.0, version.1
            )));
        }
        Ok(Plugin { api, version })
    }

    /// Version of the PJRT C API: major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// What the plugin says of itself, such as `xla_version` and the versions of StableHLO that it reads.
    ///
    /// # Errors
    /// What the plugin reports.
    pub fn attributes(&self) -> Result<Vec<(String, Setting)>> {
        let mut args = Args::new(abi::List::<NamedValue> { items: std::ptr::null(), len: 0 });
        self.call(Function::PluginAttributes, &mut args)?;
        let abi::List { items, len } = args.fields;
        // SAFETY: the plugin's attributes live as long as the process.
        Ok(unsafe { settings(items, len) })
    }

    /// Calls a function of the table that can fail.
    pub(crate) fn call<T>(&self, function: Function, args: &mut Args<T>) -> Result<()> {
        // SAFETY: every caller pairs a function with its arguments, whose pointers it keeps alive for the call.
        let error = unsafe { self.call_raw(function, args) };
        if error == MISSING {
            return Err(Error::new(format!("the plugin does not implement {function:?}")));
        }
        self.outcome(error)
    }

    /// # Safety
    /// `args` must be this function's.
    pub(crate) unsafe fn call_raw<T>(&self, function: Function, args: &mut Args<T>) -> Opaque {
        // SAFETY: as in `function`.
        match unsafe { self.function::<unsafe extern "C" fn(*mut Args<T>) -> Opaque>(function) } {
            // SAFETY: the caller's promise.
            Some(called) => unsafe { called(args) },
            None => MISSING,
        }
    }

    /// # Safety
    /// `args` must be this function's, and the function one that returns nothing.
    pub(crate) unsafe fn call_void<T>(&self, function: Function, args: &mut Args<T>) {
        // SAFETY: as in `function`.
        if let Some(called) = unsafe { self.function::<unsafe extern "C" fn(*mut Args<T>)>(function) } {
            // SAFETY: the caller's promise.
            unsafe { called(args) };
        }
    }

    /// # Safety
    /// `F` must be a pointer to a function of the type that stands there.
    unsafe fn function<F: Copy>(&self, function: Function) -> Option<F> {
        const { assert!(size_of::<Option<F>>() == size_of::<usize>()) };
        // SAFETY: the table was found to be long enough; a null pointer is None.
        unsafe { *self.api.add(abi::TABLE).cast::<Option<F>>().add(function as usize) }
    }
}

/// In place of an error where the table has no such function.
const MISSING: Opaque = std::ptr::without_provenance_mut(usize::MAX);

/// What the loader says, without the name of the function that says it.
fn reason(error: &libloading::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |source| source.to_string())
}

/// # Safety
/// The plugin must have given these values, and they must still live.
pub(crate) unsafe fn settings(items: *const NamedValue, len: usize) -> Vec<(String, Setting)> {
    // SAFETY: the caller's promise.
    (0..len).filter_map(|index| unsafe { setting(&*items.add(index)) }).collect()
}

/// # Safety
/// The plugin must have filled `value` in.
unsafe fn setting(value: &NamedValue) -> Option<(String, Setting)> {
    // SAFETY: the union's member is the one that the kind names, as many long as it says.
    let (name, setting) = unsafe {
        let setting = match value.kind {
            0 => Setting::Text(lossy(View { data: value.value.text, len: value.len }.bytes())),
            1 => Setting::Int(value.value.int),
            2 if value.len == 0 => Setting::Ints(Vec::new()),
            2 => Setting::Ints(std::slice::from_raw_parts(value.value.ints, value.len).to_vec()),
            3 => Setting::Float(value.value.float),
            4 => Setting::Bool(value.value.truth),
            _ => return None,
        };
        (lossy(value.name.bytes()), setting)
    };
    Some((name, setting))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Settings as the API takes them; they point into `settings`.
pub(crate) fn named_values(settings: &[(String, Setting)]) -> Vec<NamedValue> {
    let values = settings.iter().map(|(name, setting)| {
        let (kind, value, len) = match setting {
            Setting::Text(text) => (0, abi::Value { text: text.as_ptr() }, text.len()),
            Setting::Int(int) => (1, abi::Value { int: *int }, 1),
            Setting::Ints(ints) => (2, abi::Value { ints: ints.as_ptr() }, ints.len()),
            Setting::Float(float) => (3, abi::Value { float: *float }, 1),
            Setting::Bool(truth) => (4, abi::Value { truth: *truth }, 1),
        };
        NamedValue {
            struct_size: size_of::<NamedValue>(),
            extensions: std::ptr::null::<c_void>(),
            name: View::of(name.as_bytes()),
            kind,
            value,
            len,
        }
    });
    values.collect()
}
