//! numpy's .npy format (numpy.lib.format): a magic number, a header that is a Python dictionary, and the elements.

use crate::array::{Element, Layout, reason};
use nt_device::{DType, TensorSpec};
use std::io::{self, Read, Write};

const MAGIC: &[u8] = b"\x93NUMPY";
/// As numpy has it: no header of an array of numbers comes near.
const LONGEST: usize = 10_000;
/// Data starts at a multiple of this many bytes.
const ALIGNMENT: usize = 64;
/// numpy leaves room for the first size to grow to so many digits in place.
const DIGITS: usize = 21;

/// How elements lie in a file, and where they start.
///
/// # Errors
/// What is wrong with the file.
pub fn header(file: &mut impl Read) -> Result<(Layout, u64), String> {
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(|error| reason(&error))?;
    if !start.starts_with(MAGIC) {
        return Err("it does not begin as one".into());
    }
    let width = match start[6..] {
        [1, 0] => 2,
        [2 | 3, 0] => 4,
        [major, minor] => return Err(format!("format version {major}.{minor} is not known")),
        _ => unreachable!("two bytes"),
    };
    let mut size = [0; 4];
    file.read_exact(&mut size[..width]).map_err(|error| reason(&error))?;
    let size = u32::from_le_bytes(size) as usize;
    if size > LONGEST {
        return Err(format!("its header has {size} bytes, more than {LONGEST}"));
    }
    let mut text = vec![0; size];
    file.read_exact(&mut text).map_err(|error| reason(&error))?;
    let text = str::from_utf8(&text).map_err(|_| "its header is no text")?;
    Ok((Header { rest: text }.layout()?, (start.len() + width + size) as u64))
}

/// The dictionary of a header: `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
struct Header<'a> {
    rest: &'a str,
}

impl<'a> Header<'a> {
    fn layout(mut self) -> Result<Layout, String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.token("{")?;
        while !self.take("}") {
            let key = self.string()?;
            self.token(":")?;
            let again = match key {
                "descr" => descr.replace(self.string()?).is_some(),
                "fortran_order" => fortran.replace(self.truth()?).is_some(),
                "shape" => shape.replace(self.tuple()?).is_some(),
                _ => return Err(format!("its header has a field {key:?}")),
            };
            if again {
                return Err(format!("its header has {key:?} twice"));
            }
            if !self.take(",") {
                self.token("}")?;
                break;
            }
        }
        if !self.rest.trim().is_empty() {
            return Err("its header goes on where it should end".into());
        }
        let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return Err("its header is not complete".into());
        };
        let (element, big_endian) = element(descr)?;
        let layout = Layout { element, shape, fortran, big_endian };
        if layout.bytes().is_none() {
            return Err("it is larger than memory".into());
        }
        Ok(layout)
    }

    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.trim_start().strip_prefix(token) else { return false };
        self.rest = rest;
        true
    }

    fn token(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { Err(format!("its header lacks a {token}")) }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.take("'") {
            '\''
        } else if self.take("\"") {
            '"'
        } else {
            '\0'
        };
        let found = self.rest.split_once(quote).filter(|_| quote != '\0');
        let (string, rest) = found.ok_or("its header lacks a string")?;
        self.rest = rest;
        Ok(string)
    }

    fn truth(&mut self) -> Result<bool, String> {
        if self.take("True") {
            return Ok(true);
        }
        self.token("False")?;
        Ok(false)
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        let mut sizes = Vec::new();
        self.token("(")?;
        while !self.take(")") {
            self.rest = self.rest.trim_start();
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let (digits, rest) = self.rest.split_at(end);
            sizes.push(digits.parse().map_err(|_| format!("its shape has {digits:?} for a size"))?);
            self.rest = rest;
            if !self.take(",") {
                self.token(")")?;
                break;
            }
        }
        Ok(sizes)
    }
}

/// numpy's name of a type, and whether its bytes are in the other order than this machine's.
fn element(descr: &str) -> Result<(Element, bool), String> {
    let refused = || format!("it holds {descr:?}, which are no numbers that a program takes");
    let (order, code) = descr.split_at_checked(1).ok_or_else(refused)?;
    let element = match code {
        "b1" => Element::Number(DType::Pred),
        "i1" => Element::Number(DType::I8),
        "u1" => Element::Number(DType::U8),
        "i2" => Element::Number(DType::I16),
        "u2" => Element::Number(DType::U16),
        "i4" => Element::Number(DType::I32),
        "u4" => Element::Number(DType::U32),
        "i8" => Element::Number(DType::I64),
        "u8" => Element::Number(DType::U64),
        "f2" => Element::Number(DType::F16),
        "f4" => Element::Number(DType::F32),
        "f8" => Element::Number(DType::F64),
        "V2" => Element::Opaque(2),
        _ => return Err(refused()),
    };
    match order {
        "<" | "|" | "=" => Ok((element, false)),
        ">" => Ok((element, true)),
        _ => Err(refused()),
    }
}

/// Writes a tensor as numpy.save does.
///
/// # Panics
/// For bfloat16, which the format has no name for.
pub fn write(out: &mut impl Write, spec: &TensorSpec, bytes: &[u8]) -> io::Result<()> {
    let descr = match spec.dtype {
        DType::Pred => "|b1",
        DType::I8 => "|i1",
        DType::U8 => "|u1",
        DType::I16 => "<i2",
        DType::U16 => "<u2",
        DType::I32 => "<i4",
        DType::U32 => "<u4",
        DType::I64 => "<i8",
        DType::U64 => "<u8",
        DType::F16 => "<f2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::BF16 => unreachable!("widened by the caller"),
    };
    let shape = shown(&spec.shape);
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    if let Some(first) = spec.shape.first() {
        header += &" ".repeat(DIGITS.saturating_sub(first.to_string().len()));
    }
    let before = MAGIC.len() + 4;
    let padding = ALIGNMENT - (before + header.len() + 1) % ALIGNMENT;
    header += &" ".repeat(padding);
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(|_| io::Error::other("the shape has too many axes for .npy"))?;
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    out.write_all(bytes)
}

/// A shape as Python writes it: `(2, 3)`, `(2,)`, `()`.
pub fn shown(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({}{})", sizes.join(", "), if shape.len() == 1 { "," } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes
    }

    fn read(header_text: &str) -> Result<Layout, String> {
        header(&mut file(header_text).as_slice()).map(|(layout, _)| layout)
    }

    #[test]
    fn headers_are_read_in_any_order_and_spacing() {
        let found = read("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n").unwrap();
        let wanted =
            Layout { element: Element::Number(DType::F32), shape: vec![2, 3], fortran: false, big_endian: false };
        assert_eq!(found, wanted);
        let found = read("{\"shape\":(7,),'fortran_order' :True , 'descr':'>i8'}").unwrap();
        let wanted = Layout { element: Element::Number(DType::I64), shape: vec![7], fortran: true, big_endian: true };
        assert_eq!(found, wanted);
        assert_eq!(read("{'descr': '|b1', 'fortran_order': False, 'shape': ()}").unwrap().shape, Vec::<usize>::new());
        assert_eq!(
            read("{'descr': '|V2', 'fortran_order': False, 'shape': (1,)}").unwrap().element,
            Element::Opaque(2)
        );
    }

    #[test]
    fn hostile_headers_are_refused() {
        let refused = |text: &str, why: &str| {
            let found = read(text).expect_err(text);
            assert!(found.contains(why), "{text}: {found}");
        };
        refused("", "lacks");
        refused("{'descr': '<f4'", "lacks");
        refused("{'descr': '<f4', 'fortran_order': False}", "not complete");
        refused("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "no numbers");
        refused("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "string");
        refused("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", "no numbers");
        refused("{'descr': '', 'fortran_order': False, 'shape': (1,)}", "no numbers");
        refused("{'descr': 'é4', 'fortran_order': False, 'shape': (1,)}", "no numbers");
        refused("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "size");
        refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1, (2,))}", "size");
        refused("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", "size");
        refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", "memory");
        refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0)}", "memory");
        refused("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}", "twice");
        refused("{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}", "field");
        refused("{'descr': '<f4', 'fortran_order': False, 'shape': ()} x", "goes on");
        refused("{'descr", "string");
    }

    #[test]
    fn hostile_starts_are_refused() {
        let refused = |bytes: &[u8], why: &str| {
            let found = header(&mut &*bytes).unwrap_err();
            assert!(found.contains(why), "{found}");
        };
        refused(b"", "ends early");
        refused(b"\x93NUMPX\x01\x00", "begin");
        refused(b"\x93NUMPY\x09\x00", "version 9.0");
        refused(b"\x93NUMPY\x01\x00\xff", "ends early");
        refused(b"\x93NUMPY\x01\x00\x80\x00{", "ends early");
        refused(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "4294967295 bytes");
        refused(b"\x93NUMPY\x01\x00\x01\x00\xff", "no text");
    }

    #[test]
    fn what_is_written_is_read_and_aligned() {
        for shape in [vec![], vec![3], vec![2, 1, 5], vec![0, 4]] {
            let spec = TensorSpec::new(DType::I16, shape.clone());
            let data = vec![7; spec.bytes().unwrap()];
            let mut bytes = Vec::new();
            write(&mut bytes, &spec, &data).unwrap();
            let (layout, start) = header(&mut bytes.as_slice()).unwrap();
            assert_eq!((layout.element, &layout.shape), (Element::Number(DType::I16), &shape));
            assert_eq!(start % 64, 0);
            assert_eq!(bytes[start as usize..], data);
        }
    }
}
