//! Calling machine code. The layouts are those of XLA:CPU's `kernel_c_api.h`.

use nt_device::{Error, Result};
use std::ffi::c_void;
use std::ptr;

#[repr(C)]
#[derive(Clone, Copy)]
struct Dim3 {
    x: u64,
    y: u64,
    z: u64,
}

/// A buffer that a kernel reads or writes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelArg {
    pub data: *mut u8,
    pub size: usize,
}

// SAFETY: threads of one kernel share its arguments; which of them writes where is the machine code's affair.
unsafe impl Sync for KernelArg {}

#[repr(C)]
struct CallFrame {
    num_workgroups: *const Dim3,
    workgroup_id: *const Dim3,
    num_args: usize,
    args: *const KernelArg,
}

/// Null means success.
type KernelFn = unsafe extern "C" fn(*const CallFrame) -> *const c_void;

/// Writes whether the first of two elements comes first; operands lie as left, right of each input in turn.
type ComparatorFn = unsafe extern "C" fn(
    result: *mut u8,
    run_options: *const c_void,
    operands: *const *const u8,
    buffer_table: *const c_void,
    status: *const c_void,
    profile: *const c_void,
);

/// Runs a kernel's workgroups, at once where there are several.
///
/// # Safety
/// `function` is a kernel for these arguments, which point to memory of these sizes that nothing else uses otherwise.
pub unsafe fn run(function: *const u8, workgroups: [u64; 3], args: &[KernelArg]) -> Result<()> {
    // SAFETY: handed on to the caller.
    let kernel: KernelFn = unsafe { std::mem::transmute(function) };
    let [x, y, z] = workgroups;
    let groups = Dim3 { x, y, z };
    let failed = std::sync::atomic::AtomicBool::new(false);
    let count = x.checked_mul(y).and_then(|count| count.checked_mul(z)).and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or_else(|| Error::Run("a kernel has more workgroups than can be counted".into()))?;
    nt_kernels::for_each(count, |index| {
        let index = index as u64;
        let id = Dim3 { x: index % x, y: index / x % y, z: index / x / y };
        let frame = CallFrame {
            num_workgroups: &raw const groups,
            workgroup_id: &raw const id,
            num_args: args.len(),
            args: args.as_ptr(),
        };
        // SAFETY: handed on to the caller; the frame lives until the call returns.
        if !unsafe { kernel(&raw const frame) }.is_null() {
            failed.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    if failed.into_inner() {
        return Err(Error::Run("a kernel reports an error".into()));
    }
    Ok(())
}

/// An order of elements, as machine code has it.
#[derive(Clone, Copy)]
pub struct Comparator(ComparatorFn);

impl Comparator {
    /// # Safety
    /// `function` is a comparator.
    pub unsafe fn new(function: *const u8) -> Comparator {
        // SAFETY: handed on to the caller.
        Comparator(unsafe { std::mem::transmute::<*const u8, ComparatorFn>(function) })
    }

    /// # Safety
    /// The comparator takes as many operands, which point to elements of its types.
    pub unsafe fn less(self, operands: &[*const u8]) -> bool {
        let mut result = 0_u8;
        // SAFETY: handed on to the caller; comparators use no more than the first and third argument.
        unsafe {
            (self.0)(&raw mut result, ptr::null(), operands.as_ptr(), ptr::null(), ptr::null(), ptr::null());
        }
        result != 0
    }
}
