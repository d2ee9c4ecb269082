//! The filter `tojson`, as transformers has it: Python's `json.dumps`.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use std::fmt::Write;

struct Style {
    ascii: bool,
    /// What each line begins with for each level; None for all in one line.
    indent: Option<String>,
    between: String,
    after_key: String,
    sorted: bool,
}

/// `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub fn to_json(value: &Value, ascii: Option<Value>, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
    let given = |positional: Option<Value>, name| -> Result<Value, Error> {
        Ok(positional.or(options.get::<Option<Value>>(name)?).unwrap_or_default())
    };
    let ascii = given(ascii, "ensure_ascii")?.is_true();
    let indent = given(indent, "indent")?;
    let indent = match indent.kind() {
        ValueKind::Undefined | ValueKind::None => None,
        ValueKind::String => indent.as_str().map(String::from),
        _ => {
            let spaces = i64::try_from(indent.clone()).map_err(|_| invalid("indent must be a number or a string"))?;
            Some(" ".repeat(spaces.clamp(0, 1000) as usize))
        }
    };
    let separators = given(None, "separators")?;
    let separators = match separators.kind() {
        ValueKind::Undefined | ValueKind::None => None,
        _ => Some(separators.try_iter()?.map(|separator| separator.to_string()).collect::<Vec<_>>()),
    };
    let (between, after_key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
        Some([between, after_key]) => (between.clone(), after_key.clone()),
        Some(_) => return Err(invalid("separators must be two strings")),
    };
    let style = Style { ascii, indent, between, after_key, sorted: given(None, "sort_keys")?.is_true() };
    let mut text = String::new();
    style.write(&mut text, value, 0)?;
    Ok(text)
}

/// Levels of lists within lists.
const DEEPEST: usize = 200;

impl Style {
    fn write(&self, text: &mut String, value: &Value, level: usize) -> Result<(), Error> {
        if level > DEEPEST {
            return Err(invalid("it is nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => *text += "null",
            ValueKind::Bool => *text += if value.is_true() { "true" } else { "false" },
            ValueKind::Number => *text += &value.to_string(),
            ValueKind::String => self.string(text, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?;
                self.all(text, ['[', ']'], level, items, |text, item| self.write(text, &item, level + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.all(text, ['{', '}'], level, keys.into_iter(), |text, key| {
                    match key.kind() {
                        ValueKind::String => self.string(text, key.as_str().unwrap_or_default()),
                        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                            *text += "\"";
                            self.write(text, &key, level + 1)?;
                            *text += "\"";
                        }
                        other => return Err(invalid(format!("keys must be strings, not {other}"))),
                    }
                    *text += &self.after_key;
                    self.write(text, &value.get_item(&key)?, level + 1)
                })?;
            }
            other => return Err(invalid(format!("Object of type {other} is not JSON serializable"))),
        }
        Ok(())
    }

    fn all<T>(
        &self,
        text: &mut String,
        [open, close]: [char; 2],
        level: usize,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut String, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        text.push(open);
        let mut empty = true;
        for item in items {
            *text += if empty { "" } else { &self.between };
            self.line(text, level + 1);
            write(text, item)?;
            empty = false;
        }
        if !empty {
            self.line(text, level);
        }
        text.push(close);
        Ok(())
    }

    fn line(&self, text: &mut String, level: usize) {
        if let Some(indent) = &self.indent {
            text.push('\n');
            *text += &indent.repeat(level);
        }
    }

    fn string(&self, text: &mut String, string: &str) {
        text.push('"');
        for c in string.chars() {
            match c {
                '"' => *text += "\\\"",
                '\\' => *text += "\\\\",
                '\n' => *text += "\\n",
                '\r' => *text += "\\r",
                '\t' => *text += "\\t",
                '\u{8}' => *text += "\\b",
                '\u{c}' => *text += "\\f",
                c if c < ' ' || (self.ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(text, "\\u{unit:04x}");
                    }
                }
                c => text.push(c),
            }
        }
        text.push('"');
    }
}

fn invalid(problem: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}
