//! Arrays written down: a number, or nested lists of numbers, as JSON has them.

use crate::array::{Array, Element};
use crate::element::Scalar;
use nt_device::DType;
use serde::de::IgnoredAny;

/// As many axes as an array of numpy has at most.
const DEEPEST: usize = 64;

/// Why text is no array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is not JSON.
    Syntax,
    /// Its lists differ in length, or hold something else than numbers.
    Ragged,
}

/// A number or nested lists of numbers; NaN, Infinity and -Infinity are numbers too.
///
/// As in numpy, all elements get one type: bool, int64, uint64 or float64, the first that holds them all.
pub fn parse(text: &str) -> Result<Array, Problem> {
    let mut reader = Reader { rest: text.trim_matches(BLANKS), shape: Vec::new(), values: Vec::new() };
    reader.value(0)?;
    if !reader.rest.is_empty() {
        return Err(Problem::Syntax);
    }
    let shape = reader.shape.into_iter().flatten().collect();
    let (dtype, bytes) = encoded(&reader.values).ok_or(Problem::Ragged)?;
    Ok(Array { element: Element::Number(dtype), shape, bytes })
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

struct Reader<'a> {
    rest: &'a str,
    /// Length of the lists at each depth; None where a list was begun and none has ended.
    shape: Vec<Option<usize>>,
    values: Vec<Scalar>,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<(), Problem> {
        if self.take("[") {
            return self.list(depth);
        }
        let end = self.rest.find(|c| ",]".contains(c) || BLANKS.contains(&c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start_matches(BLANKS);
        let value = scalar(token)?;
        if depth != self.shape.len() {
            return Err(Problem::Ragged);
        }
        self.values.push(value);
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<(), Problem> {
        if depth == DEEPEST || (depth == self.shape.len() && !self.values.is_empty()) {
            return Err(Problem::Ragged);
        }
        if depth == self.shape.len() {
            self.shape.push(None);
        }
        let mut length = 0;
        if !self.take("]") {
            loop {
                self.value(depth + 1)?;
                length += 1;
                if self.take("]") {
                    break;
                }
                if !self.take(",") {
                    return Err(Problem::Syntax);
                }
            }
        }
        match self.shape[depth].replace(length) {
            Some(other) if other != length => Err(Problem::Ragged),
            _ => Ok(()),
        }
    }

    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start_matches(BLANKS);
        true
    }
}

fn scalar(token: &str) -> Result<Scalar, Problem> {
    match token {
        "true" => return Ok(Scalar::Bool(true)),
        "false" => return Ok(Scalar::Bool(false)),
        "NaN" => return Ok(Scalar::Float(f64::NAN)),
        "Infinity" => return Ok(Scalar::Float(f64::INFINITY)),
        "-Infinity" => return Ok(Scalar::Float(f64::NEG_INFINITY)),
        _ => {}
    }
    let number = token.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if serde_json::from_str::<IgnoredAny>(token).is_err() {
        return Err(Problem::Syntax);
    }
    if !number {
        return Err(Problem::Ragged);
    }
    if token.contains(['.', 'e', 'E']) {
        return token.parse().map(Scalar::Float).map_err(|_| Problem::Syntax);
    }
    token.parse().map(Scalar::Int).map_err(|_| Problem::Ragged)
}

/// All values in the first type that holds them; None where there is none.
fn encoded(values: &[Scalar]) -> Option<(DType, Vec<u8>)> {
    let whole = |value: &Scalar| match *value {
        Scalar::Bool(value) => Some(i128::from(value)),
        Scalar::Int(value) => Some(value),
        Scalar::Float(_) => None,
    };
    let int = |value: &Scalar| whole(value).and_then(|value| i64::try_from(value).ok());
    let unsigned = |value: &Scalar| whole(value).and_then(|value| u64::try_from(value).ok());
    if !values.is_empty() && values.iter().all(|value| matches!(value, Scalar::Bool(_))) {
        return Some((DType::Pred, values.iter().filter_map(int).map(|value| value as u8).collect()));
    }
    if !values.is_empty() && values.iter().all(|value| int(value).is_some()) {
        return Some((DType::I64, values.iter().filter_map(int).flat_map(i64::to_le_bytes).collect()));
    }
    if !values.is_empty() && values.iter().all(|value| unsigned(value).is_some()) {
        return Some((DType::U64, values.iter().filter_map(unsigned).flat_map(u64::to_le_bytes).collect()));
    }
    let float = |value: &Scalar| match *value {
        Scalar::Float(value) => Some(value),
        ref other => int(other).map(|value| value as f64).or(unsigned(other).map(|value| value as f64)),
    };
    let floats: Option<Vec<f64>> = values.iter().map(float).collect();
    Some((DType::F64, floats?.into_iter().flat_map(f64::to_le_bytes).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::scalars;

    fn read(text: &str) -> (DType, Vec<usize>, Vec<Scalar>) {
        let Array { element: Element::Number(dtype), shape, bytes } = parse(text).unwrap() else { panic!("no number") };
        let values = scalars(dtype, &bytes).collect();
        (dtype, shape, values)
    }

    #[test]
    fn lists_get_a_shape_and_the_first_type_that_holds_all() {
        use Scalar::{Bool, Float, Int};
        assert_eq!(read(" [[1, 2], [3,4]] "), (DType::I64, vec![2, 2], vec![Int(1), Int(2), Int(3), Int(4)]));
        assert_eq!(read("7"), (DType::I64, vec![], vec![Int(7)]));
        assert_eq!(read("[true, false]"), (DType::Pred, vec![2], vec![Bool(true), Bool(false)]));
        assert_eq!(read("[true, 2]"), (DType::I64, vec![2], vec![Int(1), Int(2)]));
        assert_eq!(read("[1, -2.5e0]"), (DType::F64, vec![2], vec![Float(1.0), Float(-2.5)]));
        assert_eq!(read("18446744073709551615"), (DType::U64, vec![], vec![Int(u64::MAX.into())]));
        assert_eq!(read("[Infinity, -Infinity]").2, [Float(f64::INFINITY), Float(f64::NEG_INFINITY)]);
        assert_eq!(read("1e999").2, [Float(f64::INFINITY)]);
        assert_eq!(read("[]"), (DType::F64, vec![0], vec![]));
        assert_eq!(read("[[],[]]"), (DType::F64, vec![2, 0], vec![]));
    }

    #[test]
    fn what_is_no_array_is_told_from_what_is_no_json() {
        for text in ["", "[", "[1", "[1,]", "[1 2]", "1]", "x", "01", "+1", "1.", ".5", "nan", "[,1]", "--1", "[1]]"] {
            assert_eq!(parse(text).unwrap_err(), Problem::Syntax, "{text}");
        }
        let deep = "[".repeat(65) + &"]".repeat(65);
        let huge = "9".repeat(40);
        for text in ["[[1],[2,3]]", "[1,[2]]", "[[1],2]", "[[],[1]]", "null", r#""a""#, r#"["a"]"#, &deep, &huge] {
            assert_eq!(parse(text).unwrap_err(), Problem::Ragged, "{text}");
        }
        let hostile = "[".repeat(1 << 20);
        assert!(parse(&hostile).is_err());
    }
}
