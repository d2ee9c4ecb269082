//! The parts of the PJRT C API that are used here: its table of functions and their argument structs.
//!
//! Facts of OpenXLA's `xla/pjrt/c/pjrt_c_api.h`, major version 0. Within a major version the table and the structs only
//! grow at their ends, and what a caller leaves zero means what it meant before the field existed. So every struct is
//! followed by room of zeros and says that it is that large: a newer plugin finds its new fields empty, an older one
//! does not look there.

use std::ffi::c_void;

pub const MAJOR: i32 = 0;
/// First version with these structs as they are: extensions have sizes, donation can be refused argument by argument.
pub const OLDEST_MINOR: i32 = 54;

/// Bytes before the first function of the table.
pub const TABLE: usize = size_of::<Header>();

/// What the table of functions begins with.
#[repr(C)]
pub struct Header {
    pub struct_size: usize,
    pub extensions: *const c_void,
    pub version_struct_size: usize,
    pub version_extensions: *const c_void,
    pub major: i32,
    pub minor: i32,
}

/// Position of a function in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Function {
    ErrorDestroy = 0,
    ErrorMessage = 1,
    ErrorGetCode = 2,
    PluginInitialize = 3,
    PluginAttributes = 4,
    EventDestroy = 5,
    EventAwait = 8,
    EventOnReady = 9,
    ClientCreate = 10,
    ClientDestroy = 11,
    ClientPlatformName = 12,
    ClientPlatformVersion = 14,
    ClientAddressableDevices = 16,
    ClientCompile = 20,
    ClientBufferFromHostBuffer = 22,
    DeviceDescriptionAttributes = 25,
    DeviceDescriptionKind = 26,
    DeviceGetDescription = 29,
    ExecutableDestroy = 40,
    ExecutableNumOutputs = 44,
    ExecutableSerialize = 49,
    LoadedExecutableDestroy = 50,
    LoadedExecutableGetExecutable = 51,
    LoadedExecutableExecute = 55,
    ExecutableDeserializeAndLoad = 56,
    BufferDestroy = 58,
    BufferToHostBuffer = 70,
    TopologyCreate = 82,
    TopologyDestroy = 83,
    TopologyDeviceDescriptions = 86,
    Compile = 89,
    ExecutableOutputElementTypes = 90,
    ExecutableOutputDimensions = 91,
}

impl Function {
    /// The last one, up to which a plugin's table must reach.
    pub const LAST: Function = Function::ExecutableOutputDimensions;
}

/// Arguments of a call as the plugin sees them.
#[repr(C)]
pub struct Args<T> {
    struct_size: usize,
    extensions: *const c_void,
    pub fields: T,
    /// For fields that newer plugins know.
    later: [u64; 16],
}

impl<T> Args<T> {
    pub fn new(fields: T) -> Args<T> {
        Args { struct_size: size_of::<Args<T>>(), extensions: std::ptr::null(), fields, later: [0; 16] }
    }
}

/// Something that only the plugin can look into.
pub type Opaque = *mut c_void;

/// Text or bytes: where, and how many.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct View {
    pub data: *const u8,
    pub len: usize,
}

impl View {
    pub const EMPTY: View = View { data: std::ptr::null(), len: 0 };

    pub fn of(bytes: &[u8]) -> View {
        View { data: bytes.as_ptr(), len: bytes.len() }
    }

    /// # Safety
    /// The plugin must have filled this in, and what it points to must live as long as `'a`.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.data.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// Calls that take one thing: to destroy it, or to wait for it.
#[repr(C)]
pub struct One {
    pub it: Opaque,
}

/// Calls that take one thing and give one.
#[repr(C)]
pub struct OneToOne {
    pub it: Opaque,
    pub out: Opaque,
}

/// Calls that take one thing and give text.
#[repr(C)]
pub struct OneToText {
    pub it: Opaque,
    pub text: View,
}

/// Calls that take one thing and give a number.
#[repr(C)]
pub struct OneToNumber {
    pub it: Opaque,
    pub number: usize,
}

/// Calls that take one thing and give a list.
#[repr(C)]
pub struct OneToList<T> {
    pub it: Opaque,
    pub items: *const T,
    pub len: usize,
}

/// Calls that take one thing and give its attributes.
#[repr(C)]
pub struct OneToAttributes {
    pub it: Opaque,
    pub len: usize,
    pub items: *const NamedValue,
}

#[repr(C)]
pub struct List<T> {
    pub items: *const T,
    pub len: usize,
}

#[repr(C)]
pub struct ErrorCode {
    pub error: Opaque,
    pub code: i32,
}

/// What a plugin's code for memory that ran out is (absl's status codes).
pub const RESOURCE_EXHAUSTED: i32 = 8;

#[repr(C)]
pub struct OnReady {
    pub event: Opaque,
    pub callback: unsafe extern "C" fn(error: Opaque, user: *mut c_void),
    pub user: *mut c_void,
}

/// An option or attribute. Lies in arrays, so its size is fixed.
#[repr(C)]
pub struct NamedValue {
    pub struct_size: usize,
    pub extensions: *const c_void,
    pub name: View,
    pub kind: i32,
    pub value: Value,
    /// Elements of a list, bytes of a text, 1 for the others.
    pub len: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub union Value {
    pub text: *const u8,
    pub int: i64,
    pub ints: *const i64,
    pub float: f32,
    pub truth: bool,
}

#[repr(C)]
pub struct ClientCreate {
    pub options: List<NamedValue>,
    /// Key-value store of several hosts: callbacks and their arguments.
    pub store: [usize; 4],
    pub client: Opaque,
}

#[repr(C)]
pub struct Program {
    pub code: View,
    pub format: View,
}

#[repr(C)]
pub struct ClientCompile {
    pub client: Opaque,
    pub program: *const Args<Program>,
    pub options: View,
    pub executable: Opaque,
}

#[repr(C)]
pub struct TopologyCreate {
    pub name: View,
    pub options: List<NamedValue>,
    pub topology: Opaque,
}

#[repr(C)]
pub struct Compile {
    pub topology: Opaque,
    pub program: *const Args<Program>,
    pub options: View,
    pub client: Opaque,
    pub executable: Opaque,
}

#[repr(C)]
pub struct Deserialize {
    pub client: Opaque,
    pub serialized: View,
    pub executable: Opaque,
}

#[repr(C)]
pub struct Serialize {
    pub executable: Opaque,
    pub bytes: View,
    pub owner: Opaque,
    pub free: Option<unsafe extern "C" fn(Opaque)>,
}

#[repr(C)]
pub struct OutputDimensions {
    pub executable: Opaque,
    pub outputs: usize,
    /// Those of all outputs, one after the other.
    pub dims: *const i64,
    pub ranks: *const usize,
}

/// The plugin may read the host's memory until its event is ready.
pub const UNTIL_TRANSFER_COMPLETES: i32 = 1;

#[repr(C)]
pub struct FromHost {
    pub client: Opaque,
    pub data: *const u8,
    pub element_type: i32,
    pub dims: List<i64>,
    pub byte_strides: List<i64>,
    pub semantics: i32,
    pub device: Opaque,
    pub memory: Opaque,
    pub layout: Opaque,
    pub done: Opaque,
    pub buffer: Opaque,
}

/// A layout by the order of its axes, innermost first, and without tiles.
#[repr(C)]
pub struct Layout {
    pub tiled_struct_size: usize,
    pub tiled_extensions: *const c_void,
    pub minor_to_major: List<i64>,
    pub tile_dims: *const i64,
    pub tile_ranks: *const usize,
    pub tiles: usize,
    pub kind: i32,
}

impl Layout {
    /// Bytes of the part that comes before `kind`.
    pub const TILED_SIZE: usize = std::mem::offset_of!(Layout, kind);
}

#[repr(C)]
pub struct ToHost {
    pub buffer: Opaque,
    pub layout: *const Args<Layout>,
    pub data: *mut u8,
    pub len: usize,
    pub event: Opaque,
}

#[repr(C)]
pub struct ExecuteOptions {
    /// Callbacks of sends and receives within programs: none.
    pub transfers: [usize; 4],
    pub launch: i32,
    pub not_donated: List<i64>,
}

#[repr(C)]
pub struct Execute {
    pub executable: Opaque,
    pub options: *const Args<ExecuteOptions>,
    /// By device, then by argument.
    pub arguments: *const *const Opaque,
    pub devices: usize,
    pub argument_count: usize,
    pub outputs: *const *mut Opaque,
    pub complete: *mut Opaque,
    pub device: Opaque,
}
