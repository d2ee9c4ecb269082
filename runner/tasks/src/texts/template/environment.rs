//! Jinja as chat templates expect it: that of transformers, which is jinja2 with Python's strings and numbers.

use super::python_json::to_json;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::sync::{Arc, Mutex, PoisonError};

/// The template's text for these values, or why there is none, in one line.
pub fn render(source: &str, values: Value) -> Result<String, String> {
    let refused = Arc::new(Mutex::new(None));
    let environment = environment(&refused).map_err(|error| problem(&error))?;
    let rendered = environment.render_str(&plain(source), values);
    // The template's own words, rather than how they came out.
    let words = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
    rendered.map_err(|error| words.unwrap_or_else(|| problem(&error)))
}

fn environment(refused: &Arc<Mutex<Option<String>>>) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_filter("tojson", to_json);
    // In Python, strings and mappings have a length and items too.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Undefined | ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    let refused = Arc::clone(refused);
    environment.add_function("raise_exception", move |message: Value| -> Result<Value, Error> {
        let words = message.to_string();
        *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(words.clone());
        Err(Error::new(ErrorKind::InvalidOperation, words))
    });
    environment.add_function("strftime_now", |format: &str| {
        strftime_now(format).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{format:?} is no date")))
    });
    environment.remove_global("debug");
    Ok(environment)
}

/// The template without `{% generation %}`, by which some mark what the assistant says: that is shown as it is.
fn plain(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        plain += before;
        let (sign, name) = tag.split_at(usize::from(tag.starts_with(['-', '+'])));
        let name = name.trim_start();
        let word = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        plain += sign;
        rest = match word {
            "generation" => {
                plain += " if true ";
                &name[word.len()..]
            }
            "endgeneration" => {
                plain += " endif ";
                &name[word.len()..]
            }
            _ => &tag[sign.len()..],
        };
    }
    plain + rest
}

/// The first line of an error, with where in the template it arose.
fn problem(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().into()
}

/// The local time, as C writes it.
fn strftime_now(format: &str) -> Option<String> {
    if format.is_empty() {
        return Some(String::new());
    }
    let format = std::ffi::CString::new(format).ok()?;
    let mut text = vec![0_u8; 4096];
    // SAFETY: both are given memory to write to, of the size that they are told; the format ends with a zero.
    let length = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut fields = std::mem::zeroed();
        if libc::localtime_r(&now, &mut fields).is_null() {
            return None;
        }
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &fields)
    };
    text.truncate(length);
    String::from_utf8(text).ok().filter(|text| !text.is_empty())
}
