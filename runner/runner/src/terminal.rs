//! What a person at a terminal sees.

/// Text whose control characters, which a model may have written, are shown and not obeyed.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let (shown, code) = (matches!(c, '\n' | '\t') || visible(c), u32::from(c));
            let escaped = match (c, code) {
                _ if shown => c.into(),
                ('\r', _) => "\\r".into(),
                (_, ..0x100) => format!("\\x{code:02x}"),
                (_, ..0x10000) => format!("\\u{code:04x}"),
                _ => format!("\\U{code:08x}"),
            };
            escaped.chars().collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a character stands for itself, or joins the one before it.
fn visible(c: char) -> bool {
    // A letter comes first: what joins it is not escaped then.
    matches!(c, '\'' | '"' | '\\') || ['a', c].iter().collect::<String>().escape_debug().count() == 2
}

/// `12.3 ms`: a duration, to three figures.
pub fn seconds(number: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")];
    let (scale, unit) = units.into_iter().find(|(scale, _)| number >= *scale).unwrap_or((1e-9, "ns"));
    let value = number / scale;
    let decimals = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    let text = format!("{value:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_as_python_writes_them() {
        assert_eq!(printable("a\tb\n'\"\\ é日🙂e\u{301}"), "a\tb\n'\"\\ é日🙂e\u{301}");
        assert_eq!(printable("\u{1b}[2J\r\u{7f}\u{85}\u{a0}"), "\\x1b[2J\\r\\x7f\\x85\\xa0");
        assert_eq!(printable("\u{202e}\u{feff}\u{e0001}"), "\\u202e\\ufeff\\U000e0001");
    }

    #[test]
    fn durations_have_three_figures() {
        for (number, text) in
            [(2.0, "2 s"), (1.234, "1.23 s"), (0.0123, "12.3 ms"), (0.123456, "123 ms"), (5e-7, "500 ns")]
        {
            assert_eq!(seconds(number), text);
        }
    }
}
