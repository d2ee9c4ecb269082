//! From an image file to the numbers that a model sees, as `ImagePreprocess` of namedtensor/tasks/_image.py declares it.

use crate::image::{MAX_PIXELS, decode};
use crate::resample::{Interpolation, Pixels, resize};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// Of an odd number of pixels, the end loses one more.
    Floor,
    /// The side that leaves an even number at the front.
    Round,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePreprocess {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub resize: Option<usize>,
    pub interpolation: Interpolation,
    pub crop: Crop,
    pub invert: bool,
    pub scale: f32,
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

impl ImagePreprocess {
    /// # Errors
    /// [`Error::Archive`] for a declaration that no image can follow.
    pub fn check(&self) -> Result<()> {
        let pixels =
            |height: usize, width: usize| height.checked_mul(width).is_some_and(|n| (1..=MAX_PIXELS).contains(&n));
        let per_channel = |values: &[f32]| values.len() == 1 || values.len() == self.channels;
        let sound = pixels(self.height, self.width)
            && matches!(self.channels, 1 | 3)
            && self.resize.is_none_or(|side| side >= self.height.max(self.width) && pixels(side, side))
            && per_channel(&self.mean)
            && per_channel(&self.std)
            && self.std.iter().all(|&value| value > 0.0);
        if sound { Ok(()) } else { Err(Error::Archive("the task: images cannot be prepared as it declares".into())) }
    }

    /// The image as (h, w, c).
    ///
    /// # Errors
    /// [`Error::Input`], in one line, where the file is not such an image.
    pub fn read(&self, file: &Path) -> Result<Vec<f32>> {
        let image = self.resized(decode(file, self.channels)?, file)?;
        let of = |values: &[f32], channel: usize| if values.len() == 1 { values[0] } else { values[channel] };
        let value = |(at, &pixel): (usize, &u8)| {
            let pixel = f32::from(if self.invert { 255 - pixel } else { pixel });
            let channel = at % self.channels;
            (pixel * self.scale - of(&self.mean, channel)) / of(&self.std, channel)
        };
        Ok(image.data.iter().enumerate().map(value).collect())
    }

    fn resized(&self, image: Pixels, file: &Path) -> Result<Pixels> {
        let Some(side) = self.resize else {
            return Ok(resize(image, self.width, self.height, self.interpolation));
        };
        let short = image.width.min(image.height);
        let scaled = |length: usize| if short == side { length } else { side * length / short };
        let (width, height) = (scaled(image.width), scaled(image.height));
        if width.checked_mul(height).is_none_or(|pixels| pixels > MAX_PIXELS) {
            let (width, height) = (image.width, image.height);
            let file = file.display();
            return Err(Error::Input(format!(
                "{file}: is too narrow to be resized in proportion ({width}×{height} pixels)"
            )));
        }
        let image = resize(image, width, height, self.interpolation);
        let (left, top) = (self.half(width - self.width), self.half(height - self.height));
        let stride = image.width * image.channels;
        let row = |row: &[u8]| row[left * image.channels..][..self.width * image.channels].to_vec();
        let data = image.data.chunks_exact(stride).skip(top).take(self.height).flat_map(row).collect();
        Ok(Pixels { width: self.width, height: self.height, channels: image.channels, data })
    }

    fn half(&self, cut: usize) -> usize {
        match self.crop {
            Crop::Floor => cut / 2,
            // To the nearest; of two as near, the even one.
            Crop::Round => cut / 2 + usize::from(cut % 4 == 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(json: &str) -> ImagePreprocess {
        serde_json::from_str(json).unwrap()
    }

    const DIGITS: &str = r#"{"height": 8, "width": 8, "channels": 1, "resize": null, "interpolation": "box",
        "crop": "floor", "invert": true, "scale": 0.00392156862745098, "mean": [0.0], "std": [1.0]}"#;

    #[test]
    fn halves_are_rounded_as_declared() {
        let mut preprocess = declared(DIGITS);
        let halves = |p: &ImagePreprocess| (0..8).map(|cut| p.half(cut)).collect::<Vec<_>>();
        assert_eq!(halves(&preprocess), [0, 0, 1, 1, 2, 2, 3, 3]);
        preprocess.crop = Crop::Round;
        assert_eq!(halves(&preprocess), [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn declarations_that_make_no_image_are_refused() {
        assert_eq!(declared(DIGITS).check(), Ok(()));
        for (sound, broken) in [
            (r#""height": 8"#, r#""height": 0"#),
            (r#""height": 8"#, r#""height": 18446744073709551615"#),
            (r#""channels": 1"#, r#""channels": 2"#),
            (r#""resize": null"#, r#""resize": 7"#),
            (r#""mean": [0.0]"#, r#""mean": []"#),
            (r#""mean": [0.0]"#, r#""mean": [0.0, 0.0, 0.0]"#),
            (r#""std": [1.0]"#, r#""std": [0.0]"#),
        ] {
            assert!(declared(&DIGITS.replace(sound, broken)).check().is_err(), "{broken}");
        }
    }
}
