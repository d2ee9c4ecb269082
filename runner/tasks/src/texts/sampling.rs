//! How the next token is chosen: settings and their ranges, as namedtensor/tasks/_sampling.py has them.

use crate::json::number;
use serde::Deserialize;
use serde_json::{Value, json};

/// Inputs of the entry point `sample`; these values turn them off.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    pub temperature: f64,
    pub top_k: i32,
    pub top_p: f64,
    pub min_p: f64,
    pub repetition_penalty: f64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

const LARGEST: f64 = 1e9;

impl Sampling {
    /// The setting that is out of its range, and how.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let ranges = [
            ("temperature", self.temperature, 0.0..=LARGEST, "from 0"),
            ("top_p", self.top_p, 0.0..=1.0, "from 0 to 1"),
            ("min_p", self.min_p, 0.0..=1.0, "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty, f64::MIN_POSITIVE..=LARGEST, "above 0"),
        ];
        if self.top_k < 0 {
            return Some(("top_k", format!("must be a whole number from 0, not {}", self.top_k)));
        }
        let (name, value, _, range) = ranges.into_iter().find(|(_, value, range, _)| !range.contains(value))?;
        // With a point, as Python writes it.
        Some((name, format!("must be a number {range}, not {value:?}")))
    }

    pub fn to_json(self) -> Value {
        json!({
            "temperature": number(self.temperature),
            "top_k": self.top_k,
            "top_p": number(self.top_p),
            "min_p": number(self.min_p),
            "repetition_penalty": number(self.repetition_penalty),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_range_is_named() {
        let off = Sampling::default();
        assert_eq!(off.problem(), None);
        assert_eq!(Sampling { temperature: 1e9, top_k: i32::MAX, top_p: 0.0, min_p: 1.0, ..off }.problem(), None);
        let named = |sampling: Sampling| sampling.problem().unwrap();
        assert_eq!(
            named(Sampling { temperature: -1.0, ..off }),
            ("temperature", "must be a number from 0, not -1.0".into())
        );
        assert_eq!(named(Sampling { top_k: -1, ..off }).0, "top_k");
        assert_eq!(named(Sampling { top_p: 1.5, ..off }).0, "top_p");
        assert_eq!(named(Sampling { min_p: f64::NAN, ..off }).0, "min_p");
        assert_eq!(named(Sampling { repetition_penalty: 0.0, ..off }).0, "repetition_penalty");
    }
}
