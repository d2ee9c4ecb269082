//! Single elements of tensors, and tensors of one type made from another.

use half::{bf16, f16};
use nt_device::DType;

/// An element's value, exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    Bool(bool),
    Int(i128),
    Float(f64),
}

/// The elements of a tensor's bytes, row-major and little-endian.
///
/// # Panics
/// Not for bytes of any length: what is left over after the last whole element is left out.
pub fn scalars(dtype: DType, bytes: &[u8]) -> impl DoubleEndedIterator<Item = Scalar> + ExactSizeIterator {
    bytes.chunks_exact(dtype.size()).map(move |bytes| scalar(dtype, bytes))
}

fn scalar(dtype: DType, bytes: &[u8]) -> Scalar {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().expect("an element of its size")
    }
    match dtype {
        DType::Pred => Scalar::Bool(bytes[0] != 0),
        DType::I8 => Scalar::Int(i8::from_le_bytes(array(bytes)).into()),
        DType::U8 => Scalar::Int(bytes[0].into()),
        DType::I16 => Scalar::Int(i16::from_le_bytes(array(bytes)).into()),
        DType::U16 => Scalar::Int(u16::from_le_bytes(array(bytes)).into()),
        DType::I32 => Scalar::Int(i32::from_le_bytes(array(bytes)).into()),
        DType::U32 => Scalar::Int(u32::from_le_bytes(array(bytes)).into()),
        DType::I64 => Scalar::Int(i64::from_le_bytes(array(bytes)).into()),
        DType::U64 => Scalar::Int(u64::from_le_bytes(array(bytes)).into()),
        DType::F16 => Scalar::Float(f16::from_le_bytes(array(bytes)).to_f64()),
        DType::BF16 => Scalar::Float(bf16::from_le_bytes(array(bytes)).to_f64()),
        DType::F32 => Scalar::Float(f32::from_le_bytes(array(bytes)).into()),
        DType::F64 => Scalar::Float(f64::from_le_bytes(array(bytes))),
    }
}

/// The bytes of elements of type `to` that have the values of elements of type `from`.
///
/// Whole numbers stay what they are; floating-point numbers are rounded as numpy and ml_dtypes round them.
///
/// # Errors
/// What the values are that cannot become `to`: "holds ...".
pub fn convert(from: DType, bytes: Vec<u8>, to: DType) -> Result<Vec<u8>, String> {
    if from == to {
        // The device takes a truth value's lowest bit or its whole byte, as it likes.
        let plain = from != DType::Pred || bytes.iter().all(|&byte| byte < 2);
        return Ok(if plain { bytes } else { bytes.iter().map(|&byte| u8::from(byte != 0)).collect() });
    }
    let mut found = Vec::with_capacity(bytes.len() / from.size() * to.size());
    if from != DType::Pred && is_float(to) {
        for value in scalars(from, &bytes) {
            push_float(to, value, &mut found);
        }
        return Ok(found);
    }
    let Some((least, most)) = range(to).filter(|_| range(from).is_some()) else {
        return Err(format!("holds {from} values, which do not become {to}"));
    };
    let (mut low, mut high) = (i128::MAX, i128::MIN);
    for value in scalars(from, &bytes) {
        let Scalar::Int(value) = value else { unreachable!("types with a range hold whole numbers") };
        (low, high) = (low.min(value), high.max(value));
        // Of a number that fits these are all bytes that there are.
        found.extend_from_slice(&value.to_le_bytes()[..to.size()]);
    }
    if low < least || high > most {
        return Err(format!("holds {low} to {high}, more than {to} can"));
    }
    Ok(found)
}

fn push_float(to: DType, value: Scalar, out: &mut Vec<u8>) {
    // Whole numbers are rounded once, to the type itself or to float32, which the small types are made of.
    let (single, double) = match value {
        Scalar::Int(value) => (value as f32, value as f64),
        Scalar::Float(value) => (value as f32, value),
        Scalar::Bool(_) => unreachable!("truth values become no numbers"),
    };
    match to {
        DType::F16 => out.extend(f16::from_f64(double).to_le_bytes()),
        DType::BF16 => out.extend(bf16::from_f32(single).to_le_bytes()),
        DType::F32 => out.extend(single.to_le_bytes()),
        _ => out.extend(double.to_le_bytes()),
    }
}

pub fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

/// The smallest and largest number of a type of whole numbers.
fn range(dtype: DType) -> Option<(i128, i128)> {
    let bits = 8 * dtype.size() as u32;
    match dtype {
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => Some((-(1 << (bits - 1)), (1 << (bits - 1)) - 1)),
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => Some((0, (1 << bits) - 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int64(values: &[i64]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn whole_numbers_keep_their_value_or_are_refused() {
        assert_eq!(convert(DType::I64, int64(&[-1, 127]), DType::I8), Ok(vec![0xff, 0x7f]));
        let refused = convert(DType::I64, int64(&[-129, 5]), DType::I8).unwrap_err();
        assert_eq!(refused, "holds -129 to 5, more than int8 can");
        assert!(convert(DType::I64, int64(&[-1]), DType::U64).is_err());
        let most = u64::MAX.to_le_bytes().to_vec();
        assert_eq!(convert(DType::U64, most.clone(), DType::U32).ok(), None);
        assert_eq!(convert(DType::U64, most.clone(), DType::U64), Ok(most));
        assert_eq!(convert(DType::I64, Vec::new(), DType::I8), Ok(Vec::new()));
    }

    #[test]
    fn numbers_become_floating_point_numbers_but_not_the_other_way() {
        let half = convert(DType::I64, int64(&[3]), DType::BF16).unwrap();
        assert_eq!(scalars(DType::BF16, &half).collect::<Vec<_>>(), [Scalar::Float(3.0)]);
        let single = 1.5_f32.to_le_bytes().to_vec();
        for to in [DType::F16, DType::BF16, DType::F64] {
            let found = convert(DType::F32, single.clone(), to).unwrap();
            assert_eq!(scalars(to, &found).collect::<Vec<_>>(), [Scalar::Float(1.5)], "{to}");
        }
        let refused = convert(DType::F32, single, DType::I32).unwrap_err();
        assert_eq!(refused, "holds float32 values, which do not become int32");
    }

    #[test]
    fn truth_values_are_0_or_1_and_become_nothing_else() {
        assert_eq!(convert(DType::Pred, vec![0, 1, 2], DType::Pred), Ok(vec![0, 1, 1]));
        assert!(convert(DType::Pred, vec![1], DType::F32).is_err());
        assert!(convert(DType::Pred, vec![1], DType::I32).is_err());
        assert!(convert(DType::I64, int64(&[1]), DType::Pred).is_err());
    }
}
