//! Image files, decoded with limits, as `decode` of namedtensor/tasks/_image.py does it.

use crate::resample::Pixels;
use crate::{Error, Result};
use image::{ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::fmt::Display;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

pub const MAX_PIXELS: usize = 1 << 26;
const MAX_BYTES: u64 = 1 << 28;

/// A PNG or JPEG file, upright, in 8-bit sRGB (3 channels) or luma (1), transparent pixels on white.
///
/// # Errors
/// [`Error::Input`] in one line for anything else, and for more than 2^26 pixels.
pub fn decode(file: &Path, channels: usize) -> Result<Pixels> {
    let status =
        std::fs::metadata(file).map_err(|error| refuse(file, format!("cannot be read ({})", reason(&error))))?;
    if !status.is_file() {
        let what = if status.is_dir() { "is a directory; give the image itself" } else { "is not a file" };
        return Err(refuse(file, what));
    }
    if !(1..=MAX_BYTES).contains(&status.len()) {
        return Err(refuse(file, format!("has {} bytes; 1 to {MAX_BYTES} are read", status.len())));
    }
    let opened = File::open(file).map_err(|error| refuse(file, format!("cannot be read ({})", reason(&error))))?;
    let damaged =
        |error: image::ImageError| refuse(file, format!("is not an image that can be read ({})", line(&error)));
    let mut reader =
        ImageReader::new(BufReader::new(opened)).with_guessed_format().map_err(|error| damaged(error.into()))?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err(refuse(file, "is not an image that can be read (PNG and JPEG are read)"));
    }
    let mut limits = Limits::no_limits();
    // What a decoder takes beside the pixels themselves, of up to eight bytes each.
    limits.max_alloc = Some(16 * MAX_PIXELS as u64);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS as u64 {
        return Err(refuse(file, format!("has {width}×{height} pixels, more than {MAX_PIXELS}")));
    }
    let orientation = decoder.orientation().map_err(damaged)?;
    // The transparent colour of a file with 16 bits of grey is not looked at: Pillow does not either.
    let opaque = matches!(decoder.original_color_type(), ExtendedColorType::L16)
        && matches!(decoder.color_type(), ColorType::La16);
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    Ok(flattened(&image, channels, opaque))
}

/// The pixels in 8 bits, without transparency.
fn flattened(image: &DynamicImage, channels: usize, opaque: bool) -> Pixels {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let grey = !image.color().has_color();
    let mut data = Vec::with_capacity(width * height * channels);
    let mut push = |[r, g, b, a]: [u8; 4]| {
        let [r, g, b] = if opaque { [r, g, b] } else { on_white([r, g, b, a]) };
        match channels {
            1 if grey => data.push(r),
            1 => data.push(luma(r, g, b)),
            _ => data.extend([r, g, b]),
        }
    };
    // Of 16 bits the upper 8 are used.
    let high = |value: u16| (value >> 8) as u8;
    match image {
        DynamicImage::ImageLuma8(pixels) => pixels.pixels().for_each(|p| push([p.0[0], p.0[0], p.0[0], 255])),
        DynamicImage::ImageRgb8(pixels) => pixels.pixels().for_each(|p| push([p.0[0], p.0[1], p.0[2], 255])),
        DynamicImage::ImageLumaA8(pixels) => pixels.pixels().for_each(|p| push([p.0[0], p.0[0], p.0[0], p.0[1]])),
        DynamicImage::ImageRgba8(pixels) => pixels.pixels().for_each(|p| push(p.0)),
        DynamicImage::ImageLuma16(pixels) => pixels.pixels().for_each(|p| {
            let v = high(p.0[0]);
            push([v, v, v, 255]);
        }),
        DynamicImage::ImageRgb16(pixels) => {
            pixels.pixels().for_each(|p| push([high(p.0[0]), high(p.0[1]), high(p.0[2]), 255]));
        }
        DynamicImage::ImageLumaA16(pixels) => pixels.pixels().for_each(|p| {
            let v = high(p.0[0]);
            push([v, v, v, high(p.0[1])]);
        }),
        other => other.to_rgba16().pixels().for_each(|p| push(p.0.map(high))),
    }
    Pixels { width, height, channels, data }
}

/// ITU-R 601 luma, in Pillow's fixed point.
fn luma(r: u8, g: u8, b: u8) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

/// The colour over white, in Pillow's fixed point (`AlphaComposite.c`).
fn on_white([r, g, b, a]: [u8; 4]) -> [u8; 3] {
    const BITS: u32 = 7;
    let over = |value: u8| {
        let own = u32::from(a) * 255 * (1 << BITS) / 255;
        let white = 255 * (1 << BITS) - own;
        let sum = u32::from(value) * own + 255 * white + (0x80 << BITS);
        ((((sum >> 8) + sum) >> 8) >> BITS) as u8
    };
    match a {
        0 => [255; 3],
        255 => [r, g, b],
        _ => [over(r), over(g), over(b)],
    }
}

fn refuse(file: &Path, problem: impl Display) -> Error {
    Error::Input(format!("{}: {problem}", file.display()))
}

/// The first line of an error.
fn line(error: &image::ImageError) -> String {
    error.to_string().lines().next().unwrap_or_default().into()
}

/// The system's words for an error, without its number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(words, _)| words.to_string())
}
