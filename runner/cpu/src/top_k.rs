//! The largest elements of each row.

/// Writes the `k` largest of each row of `values`, largest first, and where they stood; of equals the first comes first.
///
/// In the total order of floats: -NaN < -inf < ... < -0 < 0 < ... < inf < NaN.
pub fn top_k(length: usize, k: usize, values: &[f32], largest: &mut [f32], indices: &mut [i32]) {
    if length == 0 || k == 0 {
        return;
    }
    let rows = values.chunks_exact(length).zip(largest.chunks_exact_mut(k)).zip(indices.chunks_exact_mut(k));
    let mut order: Vec<u32> = Vec::with_capacity(length);
    for ((row, largest), indices) in rows {
        order.clear();
        order.extend(0..length as u32);
        let before = |a: &u32, b: &u32| {
            let [left, right] = [a, b].map(|&i| row[i as usize]);
            right.total_cmp(&left).then(a.cmp(b))
        };
        if k < length {
            order.select_nth_unstable_by(k - 1, before);
        }
        let found = &mut order[..k];
        found.sort_unstable_by(before);
        for ((&from, value), index) in found.iter().zip(largest).zip(indices) {
            *value = row[from as usize];
            *index = from as i32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_and_nans_have_their_places() {
        let values = [1.0, 3.0, f32::NAN, 3.0, -0.0, 0.0, 5.0, -1.0, 5.0, 2.0, f32::NEG_INFINITY, 5.0];
        let (mut largest, mut indices) = ([0.0; 6], [0; 6]);
        top_k(6, 3, &values, &mut largest, &mut indices);
        assert_eq!(indices, [2, 1, 3, 0, 2, 5]);
        assert!(largest[0].is_nan());
        assert_eq!(largest[1..], [3.0, 3.0, 5.0, 5.0, 5.0]);
    }

    #[test]
    fn all_of_a_row_is_the_row_sorted() {
        let values = [0.0, -0.0, 2.0];
        let (mut largest, mut indices) = ([0.0; 3], [0; 3]);
        top_k(3, 3, &values, &mut largest, &mut indices);
        assert_eq!(indices, [2, 0, 1]);
    }
}
