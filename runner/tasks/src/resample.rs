//! Resizing as Pillow does it, to the bit: separable filters, widened when they shrink, in 8-bit fixed point.
//!
//! Each pass rounds to 8 bits, with coefficients of 22 fractional bits, as Pillow's `Resample.c` does for 8-bit images.

use serde::Deserialize;
use std::f64::consts::PI;

/// An 8-bit image: rows of pixels of `channels` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    pub data: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    Nearest,
    Box,
    Bilinear,
    Hamming,
    Bicubic,
    Lanczos,
}

const PRECISION: u32 = 22;

impl Interpolation {
    fn support(self) -> f64 {
        match self {
            Interpolation::Nearest => 0.0,
            Interpolation::Box => 0.5,
            Interpolation::Bilinear | Interpolation::Hamming => 1.0,
            Interpolation::Bicubic => 2.0,
            Interpolation::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        let distance = x.abs();
        match self {
            Interpolation::Nearest => 0.0,
            Interpolation::Box if x > -0.5 && x <= 0.5 => 1.0,
            Interpolation::Bilinear if distance < 1.0 => 1.0 - distance,
            Interpolation::Hamming if distance == 0.0 => 1.0,
            Interpolation::Hamming if distance < 1.0 => {
                let x = distance * PI;
                x.sin() / x * (0.54 + 0.46 * x.cos())
            }
            // Keys' kernel with a = -0.5.
            Interpolation::Bicubic if distance < 1.0 => {
                ((-0.5 + 2.0) * distance - (-0.5 + 3.0)) * distance * distance + 1.0
            }
            Interpolation::Bicubic if distance < 2.0 => (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5,
            Interpolation::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

/// Resizes an image to `width` by `height`, both at least 1.
pub fn resize(image: Pixels, width: usize, height: usize, method: Interpolation) -> Pixels {
    if method == Interpolation::Nearest {
        return nearest(&image, width, height);
    }
    if vertical_first(&image, width, height) {
        horizontal(vertical(image, height, method), width, method)
    } else {
        vertical(horizontal(image, width, method), height, method)
    }
}

/// Whether the height shrinks much more than the width. Each pass rounds, so the order shows; Pillow 13 has this one.
fn vertical_first(image: &Pixels, width: usize, height: usize) -> bool {
    let [from, to] = [[image.width, image.height], [width, height]].map(|size| size.map(|side| side as i64));
    from[1] - to[1] > 2 * (from[0] - to[0]) && from[1] * to[0] > from[0] * to[1]
}

/// First source pixel and fixed-point weights, for each pixel of the result.
fn coefficients(from: usize, to: usize, method: Interpolation) -> Vec<(usize, Vec<i64>)> {
    let scale = from as f64 / to as f64;
    let widened = scale.max(1.0);
    let support = method.support() * widened;
    let one = |at: usize| {
        let center = (at as f64 + 0.5) * scale;
        // Truncation towards zero, as in C; negative ones start at the first pixel.
        let first = ((center - support + 0.5) as i64).max(0) as usize;
        let last = ((center + support + 0.5) as i64).clamp(0, from as i64) as usize;
        let step = 1.0 / widened;
        let mut weights: Vec<f64> =
            (first..last).map(|x| method.weight(((x - first) as f64 + first as f64 - center + 0.5) * step)).collect();
        let sum: f64 = weights.iter().fold(0.0, |sum, weight| sum + weight);
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        let fixed = weights.iter().map(|&weight| {
            let scaled = weight * f64::from(1_u32 << PRECISION);
            (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i64
        });
        (first, fixed.collect())
    };
    (0..to).map(one).collect()
}

fn rounded(sum: i64) -> u8 {
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

fn horizontal(image: Pixels, width: usize, method: Interpolation) -> Pixels {
    if image.width == width {
        return image;
    }
    let channels = image.channels;
    let table = coefficients(image.width, width, method);
    let mut data = Vec::with_capacity(width * image.height * channels);
    for row in image.data.chunks_exact(image.width * channels) {
        for (first, weights) in &table {
            let window = &row[first * channels..(first + weights.len()) * channels];
            for channel in 0..channels {
                let values = window[channel..].iter().step_by(channels);
                data.push(rounded(values.zip(weights).map(|(&value, weight)| i64::from(value) * weight).sum()));
            }
        }
    }
    Pixels { width, height: image.height, channels, data }
}

fn vertical(image: Pixels, height: usize, method: Interpolation) -> Pixels {
    if image.height == height {
        return image;
    }
    let stride = image.width * image.channels;
    let mut data = Vec::with_capacity(stride * height);
    let mut sums = vec![0_i64; stride];
    for (first, weights) in coefficients(image.height, height, method) {
        sums.fill(0);
        for (row, weight) in image.data[first * stride..].chunks_exact(stride).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i64::from(value) * weight;
            }
        }
        data.extend(sums.iter().map(|&sum| rounded(sum)));
    }
    Pixels { width: image.width, height, channels: image.channels, data }
}

fn nearest(image: &Pixels, width: usize, height: usize) -> Pixels {
    // Places are summed up rather than multiplied, because Pillow's are.
    let places = |from: usize, to: usize| -> Vec<usize> {
        let scale = from as f64 / to as f64;
        let mut at = scale * 0.5;
        let next = |_| {
            let place = (at as usize).min(from - 1);
            at += scale;
            place
        };
        (0..to).map(next).collect()
    };
    let channels = image.channels;
    let columns = places(image.width, width);
    let mut data = Vec::with_capacity(width * height * channels);
    for row in places(image.height, height) {
        let row = &image.data[row * image.width * channels..][..image.width * channels];
        for &column in &columns {
            data.extend_from_slice(&row[column * channels..][..channels]);
        }
    }
    Pixels { width, height, channels, data }
}
