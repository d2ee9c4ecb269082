//! The part of XLA's typed-FFI C interface that a stateless handler on CPU needs.
//!
//! Layouts follow version 0.4 of the interface (`xla/ffi/api/c_api.h` in OpenXLA). Enumerations are plain integers,
//! because a value that this version does not know must not be undefined behaviour.

use std::ffi::{c_char, c_void};

pub const API_MAJOR: i32 = 0;
pub const API_MINOR: i32 = 4;

pub const EXTENSION_METADATA: i32 = 1;
pub const STAGE_EXECUTE: i32 = 3;
pub const ARGUMENT_BUFFER: i32 = 1;
pub const ATTRIBUTE_STRING: i32 = 4;

pub const ERROR_INVALID_ARGUMENT: i32 = 3;
pub const ERROR_FAILED_PRECONDITION: i32 = 9;
pub const ERROR_INTERNAL: i32 = 13;

pub const TYPE_S8: i32 = 2;
pub const TYPE_S32: i32 = 4;
pub const TYPE_F16: i32 = 10;
pub const TYPE_F32: i32 = 11;
pub const TYPE_BF16: i32 = 16;

/// An error that XLA owns.
#[repr(C)]
pub struct Error {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct Extension {
    pub struct_size: usize,
    pub kind: i32,
    pub next: *mut Extension,
}

#[repr(C)]
pub struct ApiVersion {
    pub struct_size: usize,
    pub extensions: *mut Extension,
    pub major: i32,
    pub minor: i32,
}

#[repr(C)]
pub struct ErrorCreateArgs {
    pub struct_size: usize,
    pub extensions: *mut Extension,
    pub message: *const c_char,
    pub code: i32,
}

/// The head of the table of functions; what follows `error_create` is not needed here.
#[repr(C)]
pub struct Api {
    pub struct_size: usize,
    pub extensions: *mut Extension,
    pub version: ApiVersion,
    pub internal: *const c_void,
    pub error_create: Option<unsafe extern "C" fn(*mut ErrorCreateArgs) -> *mut Error>,
}

#[repr(C)]
pub struct Buffer {
    pub struct_size: usize,
    pub extensions: *mut Extension,
    pub dtype: i32,
    pub data: *mut c_void,
    pub rank: i64,
    pub dims: *const i64,
}

#[repr(C)]
pub struct ByteSpan {
    pub data: *const u8,
    pub len: usize,
}

/// Arguments, and results likewise.
#[repr(C)]
pub struct Values {
    pub struct_size: usize,
    pub extensions: *mut Extension,
    pub len: i64,
    pub kinds: *const i32,
    pub values: *const *const c_void,
}

#[repr(C)]
pub struct Attributes {
    pub struct_size: usize,
    pub extensions: *mut Extension,
    pub len: i64,
    pub kinds: *const i32,
    pub names: *const *const ByteSpan,
    pub values: *const *const c_void,
}

#[repr(C)]
pub struct CallFrame {
    pub struct_size: usize,
    pub extensions: *mut Extension,
    pub api: *const Api,
    pub context: *mut c_void,
    pub stage: i32,
    pub arguments: Values,
    pub results: Values,
    pub attributes: Attributes,
    pub future: *mut c_void,
}

#[repr(C)]
pub struct Metadata {
    pub struct_size: usize,
    pub version: ApiVersion,
    pub traits: u32,
    pub state_type: i64,
}

#[repr(C)]
pub struct MetadataExtension {
    pub base: Extension,
    pub metadata: *mut Metadata,
}
