//! Whether this processor has what machine code was compiled for.

use nt_device::{Error, Result};

/// Checks extensions by LLVM's names, as `CHECKED` of export/cpu/_compile.py lists them.
pub fn check(required: &[String], level: &str) -> Result<()> {
    for name in required {
        match has(name) {
            Some(true) => {}
            Some(false) => return Err(Error::Load(format!("it is for {level}, and this processor has no {name}"))),
            None => return Err(Error::Load(format!("it needs {name:?} of the processor, which is not known here"))),
        }
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn has(name: &str) -> Option<bool> {
    macro_rules! detect {
        ($($llvm:literal => $rust:tt),* $(,)?) => {
            match name {
                $($llvm => Some(is_x86_feature_detected!($rust)),)*
                // LAHF and SAHF in 64-bit mode; the standard library does not look for them.
                "sahf" => Some(std::arch::x86_64::__cpuid(0x8000_0001).ecx & 1 == 1),
                _ => None,
            }
        };
    }
    detect! {
        "adx" => "adx", "aes" => "aes", "avx" => "avx", "avx2" => "avx2", "avx512bf16" => "avx512bf16",
        "avx512bitalg" => "avx512bitalg", "avx512bw" => "avx512bw", "avx512cd" => "avx512cd",
        "avx512dq" => "avx512dq", "avx512f" => "avx512f", "avx512ifma" => "avx512ifma",
        "avx512vbmi" => "avx512vbmi", "avx512vbmi2" => "avx512vbmi2", "avx512vl" => "avx512vl",
        "avx512vnni" => "avx512vnni", "avx512vpopcntdq" => "avx512vpopcntdq", "bmi" => "bmi1", "bmi2" => "bmi2",
        "cx16" => "cmpxchg16b", "f16c" => "f16c", "fma" => "fma", "gfni" => "gfni", "lzcnt" => "lzcnt",
        "movbe" => "movbe", "pclmul" => "pclmulqdq", "popcnt" => "popcnt", "rdrnd" => "rdrand",
        "rdseed" => "rdseed", "sha" => "sha", "sse3" => "sse3", "sse4.1" => "sse4.1", "sse4.2" => "sse4.2",
        "ssse3" => "ssse3", "vaes" => "vaes", "vpclmulqdq" => "vpclmulqdq", "xsave" => "xsave",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has(_name: &str) -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_every_processor_has_is_found_and_what_none_has_is_refused() {
        assert_eq!(check(&[], "x86-64-v2"), Ok(()));
        assert_eq!(has("sse3"), Some(is_x86_feature_detected!("sse3")));
        assert!(check(&["telepathy".into()], "native").unwrap_err().to_string().contains("telepathy"));
    }
}
