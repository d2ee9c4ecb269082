//! Arrays as numpy shows them (numpy.array2string, with 6 digits after the point, at most 50 values and 100 columns).

use half::f16;
use nt_device::DType;
use nt_tasks::{Scalar, Tensor, scalars};

const PRECISION: usize = 6;
/// Arrays of more values are shown by their corners, of so many items for each axis.
const THRESHOLD: usize = 50;
const EDGE: usize = 3;
const WIDTH: usize = 100;

/// A tensor's values on as many lines as they take, in brackets.
pub fn array(tensor: &Tensor) -> String {
    let shape = &tensor.spec.shape;
    let dtype = tensor.spec.dtype;
    if shape.contains(&0) {
        return "[]".into();
    }
    let count: usize = shape.iter().product();
    let places: Vec<Vec<usize>> = shape.iter().map(|&size| visible(size, count > THRESHOLD)).collect();
    let values = corners(tensor, &places);
    let words = match dtype {
        DType::Pred if shape.is_empty() => vec![truth(values[0]).trim_start().to_string()],
        DType::Pred => values.iter().map(|&value| truth(value).to_string()).collect(),
        DType::BF16 => values.iter().map(|&value| general(float(value))).collect(),
        DType::F16 | DType::F32 | DType::F64 => {
            floats(dtype, &values.iter().map(|&value| float(value)).collect::<Vec<_>>())
        }
        _ => aligned(
            values.iter().map(|value| if let Scalar::Int(value) = value { value.to_string() } else { String::new() }),
        ),
    };
    let axes: Vec<Axis> =
        shape.iter().zip(&places).map(|(&size, shown)| Axis { items: shown.len(), cut: shown.len() < size }).collect();
    nested(&axes, &mut words.iter().map(String::as_str), " ", WIDTH)
}

/// How much of an axis is shown.
struct Axis {
    items: usize,
    /// Whether the items in the middle are left out.
    cut: bool,
}

fn visible(size: usize, summarized: bool) -> Vec<usize> {
    if summarized && size > 2 * EDGE { (0..EDGE).chain(size - EDGE..size).collect() } else { (0..size).collect() }
}

/// The values at all places that are shown, row-major.
fn corners(tensor: &Tensor, places: &[Vec<usize>]) -> Vec<Scalar> {
    let width = tensor.spec.dtype.size();
    let mut offsets = vec![0];
    for (shown, &size) in places.iter().zip(&tensor.spec.shape) {
        offsets = offsets.iter().flat_map(|offset| shown.iter().map(move |place| offset * size + place)).collect();
    }
    let value = |at: usize| scalars(tensor.spec.dtype, &tensor.bytes[at * width..][..width]).next();
    offsets.into_iter().filter_map(value).collect()
}

fn nested<'a>(axes: &[Axis], words: &mut impl Iterator<Item = &'a str>, indent: &str, width: usize) -> String {
    let Some((axis, inner)) = axes.split_first() else { return words.next().unwrap_or_default().into() };
    let deeper = format!("{indent} ");
    let mut text = String::new();
    let mut line = indent.to_string();
    for item in 0..axis.items {
        let dots = axis.cut && item == EDGE;
        let last = item + 1 == axis.items;
        if inner.is_empty() {
            for word in dots.then_some("...").into_iter().chain(words.next()) {
                if line.chars().count() + word.chars().count() > width - 1 && line.len() > indent.len() {
                    text += line.trim_end();
                    text += "\n";
                    line = indent.into();
                }
                line += word;
                line += ", ";
            }
            if last {
                line.truncate(line.len() - 2);
                text += &line;
            }
        } else {
            let ends = format!(",{}", "\n".repeat(inner.len()));
            if dots {
                text += &format!("{indent}...{ends}");
            }
            text += &format!("{indent}{}", nested(inner, words, &deeper, width - 1));
            text += if last { "" } else { &ends };
        }
    }
    format!("[{}]", &text[indent.len()..])
}

fn truth(value: Scalar) -> &'static str {
    if value == Scalar::Bool(true) { " True" } else { "False" }
}

fn float(value: Scalar) -> f64 {
    if let Scalar::Float(value) = value { value } else { f64::NAN }
}

fn aligned(words: impl Iterator<Item = String>) -> Vec<String> {
    let words: Vec<String> = words.collect();
    let width = words.iter().map(String::len).max().unwrap_or(0);
    words.into_iter().map(|word| format!("{word:>width$}")).collect()
}

/// A number as C's `%g` writes it, which is how bfloat16 shows itself.
fn general(value: f64) -> String {
    if !value.is_finite() {
        return special(value);
    }
    let (digits, exponent) = scientific(&format!("{value:.5e}"));
    if !(-4..6).contains(&exponent) {
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let decimals = (5 - exponent).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

fn special(value: f64) -> String {
    if value.is_nan() {
        "nan".into()
    } else if value > 0.0 {
        "inf".into()
    } else {
        "-inf".into()
    }
}

/// Digits and exponent of `1.25e-7`.
fn scientific(text: &str) -> (String, i32) {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    (digits.into(), exponent.parse().unwrap_or(0))
}

/// Floating-point numbers in one form, their points below each other.
fn floats(dtype: DType, values: &[f64]) -> Vec<String> {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let words: Vec<(String, String)> = if exponents(dtype, finite()) {
        let cut = |value: f64| {
            let (digits, exponent) = scientific(&shortest(dtype, value, true));
            let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            let (digits, _) =
                if decimals > PRECISION { scientific(&format!("{value:.PRECISION$e}")) } else { (digits, exponent) };
            digits.split_once('.').map_or(0, |(_, decimals)| decimals.trim_end_matches('0').len())
        };
        let decimals = finite().map(cut).max().unwrap_or(0);
        let parts = finite().map(|value| scientific(&format!("{value:.decimals$e}")));
        let width = parts.map(|(_, exponent)| exponent.abs().to_string().len()).max().unwrap_or(0).max(2);
        let word = |value: f64| {
            let (digits, exponent) = scientific(&format!("{value:.decimals$e}"));
            let (whole, decimals) = digits.split_once('.').unwrap_or((&digits, ""));
            let sign = if exponent < 0 { '-' } else { '+' };
            (whole.to_string(), format!("{decimals}e{sign}{:0width$}", exponent.abs()))
        };
        finite().map(word).collect()
    } else {
        let word = |value: f64| {
            let text = shortest(dtype, value, false);
            let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            let text = if decimals > PRECISION { format!("{value:.PRECISION$}") } else { text };
            let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
            (whole.to_string(), decimals.trim_end_matches('0').to_string())
        };
        finite().map(word).collect()
    };
    let mut left = words.iter().map(|(whole, _)| whole.len()).max().unwrap_or(0);
    let right = words.iter().map(|(_, rest)| rest.len()).max().unwrap_or(0);
    for value in values.iter().filter(|value| !value.is_finite()) {
        left = left.max(special(*value).len().saturating_sub(right + 1));
    }
    let mut words = words.into_iter();
    let shown = |&value: &f64| match value.is_finite().then(|| words.next()).flatten() {
        Some((whole, rest)) => format!("{whole:>left$}.{rest:<right$}"),
        None => format!("{:>1$}", special(value), left + 1 + right),
    };
    values.iter().map(shown).collect()
}

/// Whether numbers differ so much in size that they are shown with exponents. As numpy, in the type's own arithmetic.
fn exponents(dtype: DType, values: impl Iterator<Item = f64>) -> bool {
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for value in values.filter(|&value| value != 0.0) {
        (least, most) = (least.min(value.abs()), most.max(value.abs()));
    }
    let own = |value: f64| match dtype {
        DType::F16 => f16::from_f64(value).to_f64(),
        DType::F32 => f64::from(value as f32),
        _ => value,
    };
    let limit = match dtype {
        DType::F16 => 1e3,
        DType::F32 => 1e6,
        _ => 1e8,
    };
    most > 0.0 && (most >= limit || least < own(1e-4) || own(most / least) > 1e3)
}

/// The fewest digits that no other number of the type is closest to.
fn shortest(dtype: DType, value: f64, exponent: bool) -> String {
    let single = value as f32;
    match (dtype, exponent) {
        (DType::F64, true) => format!("{value:e}"),
        (DType::F64, false) => format!("{value}"),
        (DType::F32, true) => format!("{single:e}"),
        (DType::F32, false) => format!("{single}"),
        _ => {
            // Five digits tell all of them apart.
            let rounded = |digits: &usize| format!("{value:.*e}", *digits);
            let same = |text: &String| text.parse().is_ok_and(|found| f16::from_f64(found) == f16::from_f64(value));
            let text = (0..4).map(|digits| rounded(&digits)).find(same).unwrap_or_else(|| rounded(&4));
            let number: f64 = text.parse().unwrap_or(value);
            if exponent { format!("{number:e}") } else { format!("{number}") }
        }
    }
}
