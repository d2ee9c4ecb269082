//! Functions that machine code may call: those of libc that move memory, libm's, and conversions of the compiler's runtime.
//!
//! export/cpu/_link.py has the same list; what is not on it is refused when a program is built.

use half::{bf16, f16};
use std::ffi::{c_int, c_void};

macro_rules! table {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty = $function:expr;)*) => {
        $(
            #[allow(clippy::redundant_closure_call)]
            extern "C" fn $name($($arg: $type),*) -> $result {
                $function($($arg),*)
            }
        )*

        /// The address of a function.
        pub fn address(name: &str) -> Option<usize> {
            match name {
                $(stringify!($name) => Some($name as extern "C" fn($($type),*) -> $result as usize),)*
                "memcpy" => Some(libc::memcpy as unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void as usize),
                "memmove" => Some(libc::memmove as unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void as usize),
                "memset" => Some(libc::memset as unsafe extern "C" fn(*mut c_void, c_int, usize) -> *mut c_void as usize),
                "sincos" => Some(sincos as unsafe extern "C" fn(f64, *mut f64, *mut f64) as usize),
                "sincosf" => Some(sincosf as unsafe extern "C" fn(f32, *mut f32, *mut f32) as usize),
                _ => None,
            }
        }

        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name),)* "memcpy", "memmove", "memset", "sincos", "sincosf"];
    };
}

table! {
    acos(x: f64) -> f64 = libm::acos;
    acosf(x: f32) -> f32 = libm::acosf;
    acosh(x: f64) -> f64 = libm::acosh;
    acoshf(x: f32) -> f32 = libm::acoshf;
    asin(x: f64) -> f64 = libm::asin;
    asinf(x: f32) -> f32 = libm::asinf;
    asinh(x: f64) -> f64 = libm::asinh;
    asinhf(x: f32) -> f32 = libm::asinhf;
    atan(x: f64) -> f64 = libm::atan;
    atanf(x: f32) -> f32 = libm::atanf;
    atan2(y: f64, x: f64) -> f64 = libm::atan2;
    atan2f(y: f32, x: f32) -> f32 = libm::atan2f;
    atanh(x: f64) -> f64 = libm::atanh;
    atanhf(x: f32) -> f32 = libm::atanhf;
    cbrt(x: f64) -> f64 = libm::cbrt;
    cbrtf(x: f32) -> f32 = libm::cbrtf;
    ceil(x: f64) -> f64 = libm::ceil;
    ceilf(x: f32) -> f32 = libm::ceilf;
    cos(x: f64) -> f64 = libm::cos;
    cosf(x: f32) -> f32 = libm::cosf;
    cosh(x: f64) -> f64 = libm::cosh;
    coshf(x: f32) -> f32 = libm::coshf;
    erf(x: f64) -> f64 = libm::erf;
    erff(x: f32) -> f32 = libm::erff;
    exp(x: f64) -> f64 = libm::exp;
    expf(x: f32) -> f32 = libm::expf;
    exp2(x: f64) -> f64 = libm::exp2;
    exp2f(x: f32) -> f32 = libm::exp2f;
    expm1(x: f64) -> f64 = libm::expm1;
    expm1f(x: f32) -> f32 = libm::expm1f;
    fabs(x: f64) -> f64 = libm::fabs;
    fabsf(x: f32) -> f32 = libm::fabsf;
    floor(x: f64) -> f64 = libm::floor;
    floorf(x: f32) -> f32 = libm::floorf;
    fma(x: f64, y: f64, z: f64) -> f64 = libm::fma;
    fmaf(x: f32, y: f32, z: f32) -> f32 = libm::fmaf;
    fmax(x: f64, y: f64) -> f64 = libm::fmax;
    fmaxf(x: f32, y: f32) -> f32 = libm::fmaxf;
    fmin(x: f64, y: f64) -> f64 = libm::fmin;
    fminf(x: f32, y: f32) -> f32 = libm::fminf;
    fmod(x: f64, y: f64) -> f64 = libm::fmod;
    fmodf(x: f32, y: f32) -> f32 = libm::fmodf;
    log(x: f64) -> f64 = libm::log;
    logf(x: f32) -> f32 = libm::logf;
    log10(x: f64) -> f64 = libm::log10;
    log10f(x: f32) -> f32 = libm::log10f;
    log1p(x: f64) -> f64 = libm::log1p;
    log1pf(x: f32) -> f32 = libm::log1pf;
    log2(x: f64) -> f64 = libm::log2;
    log2f(x: f32) -> f32 = libm::log2f;
    nearbyint(x: f64) -> f64 = f64::round_ties_even;
    nearbyintf(x: f32) -> f32 = f32::round_ties_even;
    pow(x: f64, y: f64) -> f64 = libm::pow;
    powf(x: f32, y: f32) -> f32 = libm::powf;
    rint(x: f64) -> f64 = f64::round_ties_even;
    rintf(x: f32) -> f32 = f32::round_ties_even;
    round(x: f64) -> f64 = libm::round;
    roundf(x: f32) -> f32 = libm::roundf;
    roundeven(x: f64) -> f64 = f64::round_ties_even;
    roundevenf(x: f32) -> f32 = f32::round_ties_even;
    sin(x: f64) -> f64 = libm::sin;
    sinf(x: f32) -> f32 = libm::sinf;
    sinh(x: f64) -> f64 = libm::sinh;
    sinhf(x: f32) -> f32 = libm::sinhf;
    sqrt(x: f64) -> f64 = f64::sqrt;
    sqrtf(x: f32) -> f32 = f32::sqrt;
    tan(x: f64) -> f64 = libm::tan;
    tanf(x: f32) -> f32 = libm::tanf;
    tanh(x: f64) -> f64 = libm::tanh;
    tanhf(x: f32) -> f32 = libm::tanhf;
    trunc(x: f64) -> f64 = libm::trunc;
    truncf(x: f32) -> f32 = libm::truncf;
    // Half types travel in the low 16 bits of the register that holds an f32.
    __truncsfbf2(x: f32) -> f32 = |x| low(bf16::from_f32(x).to_bits());
    __truncdfbf2(x: f64) -> f32 = |x| low(bf16::from_f64(x).to_bits());
    __truncsfhf2(x: f32) -> f32 = |x| low(f16::from_f32(x).to_bits());
    __truncdfhf2(x: f64) -> f32 = |x| low(f16::from_f64(x).to_bits());
    __extendhfsf2(x: f32) -> f32 = |x: f32| f16::from_bits(x.to_bits() as u16).to_f32();
}

fn low(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits))
}

/// # Safety
/// `sin` and `cos` can be written.
unsafe extern "C" fn sincosf(x: f32, sin: *mut f32, cos: *mut f32) {
    let both = libm::sincosf(x);
    // SAFETY: handed on to the caller.
    unsafe {
        sin.write_unaligned(both.0);
        cos.write_unaligned(both.1);
    }
}

/// # Safety
/// As for [`sincosf`].
unsafe extern "C" fn sincos(x: f64, sin: *mut f64, cos: *mut f64) {
    let both = libm::sincos(x);
    // SAFETY: handed on to the caller.
    unsafe {
        sin.write_unaligned(both.0);
        cos.write_unaligned(both.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_of_the_linkers_list_is_here_and_no_other() {
        let linker = include_str!("../../../export/cpu/_link.py");
        let list = linker.split("\"\"\"").skip_while(|part| !part.ends_with("_FUNCTIONS = ")).nth(1).unwrap();
        let mut wanted: Vec<&str> = list.split_whitespace().collect();
        let mut found = NAMES.to_vec();
        wanted.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, wanted);
        assert!(found.iter().all(|name| address(name).is_some()));
        assert_eq!(address("system"), None);
    }

    #[test]
    fn half_types_travel_in_the_low_bits() {
        assert_eq!(__extendhfsf2(__truncsfhf2(1.5)), 1.5);
        assert_eq!(__truncsfbf2(-2.0).to_bits(), 0xc000);
        assert_eq!(__truncdfbf2(1.0).to_bits(), 0x3f80);
    }
}
