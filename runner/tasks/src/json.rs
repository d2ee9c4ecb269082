//! Numbers in JSON.

use serde_json::Value;

/// A number, exactly; what JSON has none for stands as "NaN", "Infinity" or "-Infinity".
pub fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(
        || {
            let name = if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            Value::from(name)
        },
        Value::Number,
    )
}
