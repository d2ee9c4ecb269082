//! Numbers of bytes for people.

/// `2.47 GB`: bytes in steps of a thousand, to three figures.
pub fn bytes(count: u64) -> String {
    if count < 1000 {
        return format!("{count} B");
    }
    let mut number = count as f64;
    let mut units = ["", "k", "M", "G", "T", "P"].into_iter();
    let mut unit = units.next();
    while number >= 999.5 {
        let Some(larger) = units.next() else { break };
        number /= 1000.0;
        unit = Some(larger);
    }
    let digits = if number < 9.995 { 2 } else { usize::from(number < 99.95) };
    format!("{number:.digits$} {}B", unit.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn three_figures_are_shown() {
        let shown = [0, 999, 1000, 9_994, 9_996, 99_940, 99_960, 999_499, 999_500, 2_470_000_000].map(bytes);
        let wanted =
            ["0 B", "999 B", "1.00 kB", "9.99 kB", "10.0 kB", "99.9 kB", "100 kB", "999 kB", "1.00 MB", "2.47 GB"];
        assert_eq!(shown, wanted);
    }
}
