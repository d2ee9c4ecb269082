//! The custom call `nt.dot`, for XLA's typed FFI.
//!
//! Operands x `[b, m, k]` and w `[b, n, k]` (attribute `w_layout` = "nk") or `[b, k, n]` ("kn"), result `[b, m, n]`.
//! Both operands are bf16, f16 or f32, and the result is of that type or f32; or both are int8 and the result int32.

use crate::element::DType;
use crate::{Contract, Dot, Element, Isa, Layout, ShapeError, dot, dot_int8, read_all, threads};
use half::{bf16, f16};
use std::ffi::CString;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{fmt, ptr, slice};

pub mod abi;
use abi::{Api, Attributes, Buffer, ByteSpan, CallFrame, Error, Metadata, MetadataExtension, Values};

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("nt.dot: {0}")]
    Call(String),
    #[error("nt.dot: {0}; rebuild the kernels for this release of jaxlib")]
    Interface(String),
    #[error("nt.dot: internal error: {0}")]
    Panic(String),
}

impl Refusal {
    fn code(&self) -> i32 {
        match self {
            Refusal::Call(_) => abi::ERROR_INVALID_ARGUMENT,
            Refusal::Interface(_) => abi::ERROR_FAILED_PRECONDITION,
            Refusal::Panic(_) => abi::ERROR_INTERNAL,
        }
    }
}

impl From<ShapeError> for Refusal {
    fn from(error: ShapeError) -> Self {
        Refusal::Call(error.to_string())
    }
}

/// Handler of `nt.dot`; null means success.
///
/// # Safety
/// `frame` is a call frame of XLA's typed FFI whose buffers, as it describes them, are valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nt_dot(frame: *mut CallFrame) -> *mut Error {
    // SAFETY: handed on to the caller.
    let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { handle(frame) }));
    let refusal = match outcome {
        Ok(Ok(())) => return ptr::null_mut(),
        Ok(Err(refusal)) => refusal,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            Refusal::Panic(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
        }
    };
    // SAFETY: the table of functions comes third in a call frame of any version.
    unsafe { report((*frame).api, &refusal) }
}

/// Reads `length` bytes at `data` with all threads, for benchmarks, and returns a sum over them.
///
/// # Safety
/// `data` is valid for reading `length` bytes, or `length` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nt_read_bandwidth(data: *const u8, length: usize) -> u64 {
    if data.is_null() || length == 0 {
        return 0;
    }
    // SAFETY: handed on to the caller.
    let data = unsafe { slice::from_raw_parts(data, length) };
    catch_unwind(|| read_all(data)).unwrap_or(0)
}

/// Threads that a contraction uses.
#[unsafe(no_mangle)]
pub extern "C" fn nt_threads() -> usize {
    catch_unwind(threads).unwrap_or(1)
}

/// # Safety
/// `api` is XLA's table of functions.
unsafe fn report(api: *const Api, refusal: &Refusal) -> *mut Error {
    let message = CString::new(refusal.to_string().replace('\0', "")).unwrap_or_default();
    let mut args = abi::ErrorCreateArgs {
        struct_size: offset_of!(abi::ErrorCreateArgs, code) + size_of::<i32>(),
        extensions: ptr::null_mut(),
        message: message.as_ptr(),
        code: refusal.code(),
    };
    // SAFETY: handed on to the caller; XLA copies the message.
    match unsafe { (*api).error_create } {
        // SAFETY: as above.
        Some(create) => unsafe { create(&raw mut args) },
        // With no way to tell, going on would hand out results that were never computed.
        None => std::process::abort(),
    }
}

/// Checks that XLA's idea of a struct has all the fields that are read here.
fn covers(what: &str, found: usize, wanted: usize) -> Result<(), Refusal> {
    if found < wanted {
        return Err(Refusal::Interface(format!("XLA's {what} has {found} bytes where {wanted} are needed")));
    }
    Ok(())
}

/// # Safety
/// As for [`nt_dot`].
unsafe fn handle(frame: *mut CallFrame) -> Result<(), Refusal> {
    // SAFETY: handed on to the caller; every struct says how large it is before its further fields are read.
    unsafe {
        covers("call frame", (*frame).struct_size, offset_of!(CallFrame, future))?;
        let extension = (*frame).extensions;
        if !extension.is_null() && (*extension).kind == abi::EXTENSION_METADATA {
            return describe(extension.cast());
        }
        let abi::ApiVersion { major, minor, .. } = (*(*frame).api).version;
        if major != abi::API_MAJOR {
            let wanted = abi::API_MAJOR;
            return Err(Refusal::Interface(format!("XLA's interface has version {major}.{minor}, not {wanted}.x")));
        }
        if (*frame).stage != abi::STAGE_EXECUTE {
            return Ok(());
        }
        let layout = w_layout(&(*frame).attributes)?;
        let [x, w] = buffers(&(*frame).arguments, "operands")?;
        let [out] = buffers(&(*frame).results, "results")?;
        contract(layout, &x, &w, &out)
    }
}

/// Tells XLA, which asks when the handler is registered, for which version of the interface it was written.
///
/// # Safety
/// `extension` is XLA's question.
unsafe fn describe(extension: *mut MetadataExtension) -> Result<(), Refusal> {
    // SAFETY: handed on to the caller; fields are touched after the sizes say that they are there.
    unsafe {
        covers("metadata extension", (*extension).base.struct_size, size_of::<MetadataExtension>())?;
        let metadata = (*extension).metadata;
        covers("metadata", (*metadata).struct_size, offset_of!(Metadata, traits) + size_of::<u32>())?;
        (*metadata).version.major = abi::API_MAJOR;
        (*metadata).version.minor = abi::API_MINOR;
        (*metadata).traits = 0;
        if (*metadata).struct_size >= size_of::<Metadata>() {
            (*metadata).state_type = 0;
        }
    }
    Ok(())
}

/// The attribute `w_layout`, which is the only one.
///
/// # Safety
/// `attributes` describes valid memory.
unsafe fn w_layout(attributes: &Attributes) -> Result<Layout, Refusal> {
    covers("list of attributes", attributes.struct_size, size_of::<Attributes>())?;
    let wanted = "the one attribute must be w_layout, \"nk\" or \"kn\"";
    if attributes.len != 1 {
        return Err(Refusal::Call(format!("{wanted}, but there are {}", attributes.len)));
    }
    // SAFETY: the list has one entry; strings are valid for their length.
    unsafe {
        let name = bytes(&**attributes.names);
        if name != b"w_layout" || *attributes.kinds != abi::ATTRIBUTE_STRING {
            return Err(Refusal::Call(format!("{wanted}, not {}", String::from_utf8_lossy(name))));
        }
        match bytes(&*(*attributes.values).cast::<ByteSpan>()) {
            b"nk" => Ok(Layout::Nk),
            b"kn" => Ok(Layout::Kn),
            other => Err(Refusal::Call(format!("{wanted}, not {:?}", String::from_utf8_lossy(other)))),
        }
    }
}

/// # Safety
/// `span` describes valid memory.
unsafe fn bytes(span: &ByteSpan) -> &[u8] {
    if span.len == 0 {
        return &[];
    }
    // SAFETY: handed on to the caller.
    unsafe { slice::from_raw_parts(span.data, span.len) }
}

/// A buffer of rank 3 and known type.
struct Matrices {
    dtype: DType,
    dims: [usize; 3],
    data: *mut u8,
    elements: usize,
}

impl fmt::Display for Matrices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.dims)
    }
}

impl Matrices {
    /// # Safety
    /// `T` is the type that `dtype` names, and the buffer is as XLA describes it.
    unsafe fn elements<T>(&self) -> &[T] {
        if self.elements == 0 {
            return &[];
        }
        // SAFETY: handed on to the caller; alignment and null were checked by `buffer`.
        unsafe { slice::from_raw_parts(self.data.cast(), self.elements) }
    }

    /// # Safety
    /// As for [`Matrices::elements`], and nothing else refers to the buffer.
    #[allow(clippy::mut_from_ref)]
    unsafe fn elements_mut<T>(&self) -> &mut [T] {
        if self.elements == 0 {
            return &mut [];
        }
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.data.cast(), self.elements) }
    }
}

/// # Safety
/// `values` describes valid memory.
unsafe fn buffers<const N: usize>(values: &Values, what: &str) -> Result<[Matrices; N], Refusal> {
    covers(what, values.struct_size, size_of::<Values>())?;
    if values.len != N as i64 {
        return Err(Refusal::Call(format!("the number of {what} must be {N}, not {}", values.len)));
    }
    let mut read = Vec::with_capacity(N);
    for i in 0..N {
        // SAFETY: the list has N entries.
        unsafe {
            if *values.kinds.add(i) != abi::ARGUMENT_BUFFER {
                return Err(Refusal::Call(format!("the {what} must be buffers")));
            }
            read.push(buffer(&*(*values.values.add(i)).cast::<Buffer>())?);
        }
    }
    read.try_into().map_err(|_| Refusal::Call(format!("the number of {what} must be {N}")))
}

/// # Safety
/// `buffer` describes valid memory.
unsafe fn buffer(buffer: &Buffer) -> Result<Matrices, Refusal> {
    covers("buffer", buffer.struct_size, size_of::<Buffer>())?;
    let dtype = match buffer.dtype {
        abi::TYPE_BF16 => DType::Bf16,
        abi::TYPE_F16 => DType::F16,
        abi::TYPE_F32 => DType::F32,
        abi::TYPE_S8 => DType::I8,
        abi::TYPE_S32 => DType::I32,
        other => {
            return Err(Refusal::Call(format!(
                "element types are bf16, f16, f32, int8 and (for results) int32, not XLA's number {other}"
            )));
        }
    };
    if buffer.rank != 3 {
        return Err(Refusal::Call(format!("buffers have 3 dimensions (batch first), not {}", buffer.rank)));
    }
    let mut dims = [0; 3];
    for (axis, dim) in dims.iter_mut().enumerate() {
        // SAFETY: a buffer has as many dimensions as its rank says.
        let size = unsafe { *buffer.dims.add(axis) };
        *dim = usize::try_from(size).map_err(|_| Refusal::Call(format!("a dimension of size {size}")))?;
    }
    let elements = dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let elements =
        elements.filter(|&count| count.checked_mul(dtype.size()).is_some_and(|b| isize::try_from(b).is_ok()));
    let elements = elements.ok_or_else(|| Refusal::Call(format!("{dtype} {dims:?} does not fit into memory")))?;
    let data = buffer.data.cast::<u8>();
    if elements > 0 && (data.is_null() || data.addr() % dtype.size() != 0) {
        return Err(Refusal::Call(format!("the data of {dtype} {dims:?} are missing or not aligned")));
    }
    Ok(Matrices { dtype, dims, data, elements })
}

/// Checks types and sizes against each other and computes.
///
/// # Safety
/// The buffers are valid, and nothing else refers to `out`.
unsafe fn contract(layout: Layout, x: &Matrices, w: &Matrices, out: &Matrices) -> Result<(), Refusal> {
    let [batch, m, k] = x.dims;
    let n = out.dims[2];
    let wanted = match layout {
        Layout::Nk => [batch, n, k],
        Layout::Kn => [batch, k, n],
    };
    if w.dims != wanted || out.dims != [batch, m, n] {
        let (w_axes, n) = if layout == Layout::Nk { ("b n k", w.dims[1]) } else { ("b k n", w.dims[2]) };
        return Err(Refusal::Call(format!(
            "x (b m k) {x}, w ({w_axes}) {w} and result (b m n) {out} do not fit together: for this x and n = {n}, w must be \
             {:?} and the result {:?}",
            if layout == Layout::Nk { [batch, n, k] } else { [batch, k, n] },
            [batch, m, n],
        )));
    }
    let sizes = Dot { batch, m, n, k, layout };
    // SAFETY: every arm names the buffers' own types.
    unsafe {
        match (x.dtype, w.dtype, out.dtype) {
            (DType::Bf16, DType::Bf16, DType::F32) => run::<bf16, f32>(&sizes, x, w, out),
            (DType::Bf16, DType::Bf16, DType::Bf16) => run::<bf16, bf16>(&sizes, x, w, out),
            (DType::F16, DType::F16, DType::F32) => run::<f16, f32>(&sizes, x, w, out),
            (DType::F16, DType::F16, DType::F16) => run::<f16, f16>(&sizes, x, w, out),
            (DType::F32, DType::F32, DType::F32) => run::<f32, f32>(&sizes, x, w, out),
            (DType::I8, DType::I8, DType::I32) => {
                Ok(dot_int8(Isa::best(), &sizes, x.elements(), w.elements(), out.elements_mut())?)
            }
            _ => Err(Refusal::Call(format!(
                "x is {}, w {} and the result {}: operands are both bf16, f16 or f32 and the result the same or f32, or \
                 both int8 and the result int32",
                x.dtype, w.dtype, out.dtype
            ))),
        }
    }
}

/// # Safety
/// The buffers are valid, `x` and `w` of type `T`, `out` of type `O`, and nothing else refers to `out`.
unsafe fn run<T: Contract, O: Element>(sizes: &Dot, x: &Matrices, w: &Matrices, out: &Matrices) -> Result<(), Refusal> {
    // SAFETY: handed on to the caller.
    unsafe { dot(sizes, x.elements::<T>(), w.elements::<T>(), out.elements_mut::<O>())? };
    Ok(())
}
