"""From an image file to the numbers that a model sees: decoding with limits, then what the model declares."""

from __future__ import annotations

import stat
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from namedtensor._errors import InputError, ModelError, fail

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
_FILTERS = {name: getattr(Image.Resampling, name.upper()) for name in Interpolation.__args__}  # type: ignore[attr-defined]

# Pillow has decoders for dozens of formats, most of them rarely used and as rarely attacked by its tests.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
# An image takes up to four bytes for each pixel while it is decoded, whatever the size of its file.
MAX_PIXELS = 1 << 26
MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class ImagePreprocess:
    """What happens to an image before a model sees it, in this order; plain data.

    - Transparent pixels are put on white, the image is turned upright (EXIF), and brought to `channels`: 1, luma as
      in ITU-R 601, or 3, sRGB.
    - `resize`: the length that the shorter side gets, the longer one in proportion, and `height` by `width` are cut
      out of the middle. None: both sides are stretched to `height` and `width`.
    - `crop`: where an odd number of pixels is cut off, the end loses one more ("floor"), or the side that leaves an
      even number at the front ("round", as torchvision does).
    - `interpolation`: the resampling filter. Filters widen when they shrink, so that every pixel counts.
    - A pixel p, 0 to 255, becomes (p * scale - mean) / std; with `invert`, p is 255 - p before, so that dark ink on
      light paper is what is large. `mean` and `std` hold a value for each channel, or one for all.
    """

    height: int
    width: int
    channels: Literal[1, 3] = 3
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    crop: Literal["floor", "round"] = "floor"
    invert: bool = False
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        def refuse(problem: str, fix: str) -> NoReturn:
            fail(f"ImagePreprocess: {problem}", fix=fix, kind=ModelError)

        if min(self.height, self.width) < 1 or self.height * self.width > MAX_PIXELS:
            refuse(f"{self.height} by {self.width} is not a size for an image", f"1 to {MAX_PIXELS:,} pixels")
        if self.channels not in (1, 3):
            refuse(f"{self.channels} channels", "1 (luma) or 3 (sRGB)")
        if self.interpolation not in _FILTERS:
            refuse(f"interpolation {self.interpolation!r} is not implemented", f"one of {', '.join(_FILTERS)}")
        if self.crop not in ("floor", "round"):
            refuse(f"crop {self.crop!r} is not implemented", '"floor" or "round"')
        if self.resize is not None and self.resize < max(self.height, self.width):
            refuse(
                f"a shorter side of {self.resize} leaves nothing to cut {self.height} by {self.width} out of",
                "resize at least to the larger of both",
            )
        if self.resize is not None and self.resize**2 > MAX_PIXELS:
            refuse(f"a shorter side of {self.resize} makes too large an image", f"at most {MAX_PIXELS:,} pixels")
        for label, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                refuse(f"{label} has {len(values)} values for {self.channels} channels", "one for each, or one for all")
        if not all(value > 0 for value in self.std):
            refuse(f"std {self.std} divides by what is not positive", "give positive standard deviations")

    def to_json(self) -> dict[str, Any]:
        """All fields, for a machine."""
        return asdict(self)

    def __call__(self, file: str | Path) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The image as float32 (h, w, c). Raises `InputError`, in one line, where the file is not such an image."""
        image = decode(file, self.channels)
        image = self._resized(image, str(file))
        pixels = np.asarray(image, np.float32).reshape(self.height, self.width, self.channels)
        if self.invert:
            pixels = 255 - pixels
        scaled = pixels * np.float32(self.scale)
        return ((scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)).astype(np.float32)

    def _resized(self, image: Image.Image, file: str) -> Image.Image:
        method = _FILTERS[self.interpolation]
        if self.resize is None:
            return image.resize((self.width, self.height), method)
        width, height = image.size
        short = min(width, height)
        # In whole numbers, as the reference preprocessors round: down.
        width, height = (side if short == self.resize else self.resize * side // short for side in (width, height))
        if width * height > MAX_PIXELS:
            _refuse(file, f"is too narrow to be resized in proportion ({image.size[0]:,}×{image.size[1]:,} pixels)")
        image = image.resize((width, height), method)
        halve = (lambda n: round(n / 2)) if self.crop == "round" else (lambda n: n // 2)
        left, top = halve(width - self.width), halve(height - self.height)
        return image.crop((left, top, left + self.width, top + self.height))


def decode(file: str | Path, channels: int) -> Image.Image:
    """The first frame of an image file, upright, in 8-bit sRGB (3 channels) or luma (1).

    Reads PNG, JPEG, WebP, BMP and GIF of at most 2^26 pixels. Raises `InputError` of one line for anything else.
    """
    if not isinstance(file, (str, Path)):
        raise InputError(f"an image is given as the path of a file, not as {type(file).__name__}")
    path = Path(file)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        _refuse(str(file), f"cannot be read ({getattr(error, 'strerror', None) or error})")
    if not stat.S_ISREG(status.st_mode):
        _refuse(str(file), "is not a file" if not path.is_dir() else "is a directory; give the image itself")
    if not 0 < status.st_size <= MAX_BYTES:
        _refuse(str(file), f"has {status.st_size:,} bytes; 1 to {MAX_BYTES:,} are read")
    try:
        with warnings.catch_warnings():
            # Pillow warns about sizes below its own limit, which is not ours, and about metadata that is not used.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if 0 < width * height <= MAX_PIXELS:
                    return _upright(image, channels)
    except InputError:
        raise
    except Exception as error:
        # Damaged files make the decoders raise nearly anything: OSError, SyntaxError, struct.error, zlib.error, ...
        detail = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            detail = f"{', '.join(FORMATS[:-1])} and {FORMATS[-1]} are read"
        elif isinstance(error, OSError) and error.strerror:
            detail = error.strerror
        _refuse(str(file), f"is not an image that can be read ({detail})")
    _refuse(str(file), f"has {width:,}×{height:,} pixels, more than {MAX_PIXELS:,}")


def _upright(image: Image.Image, channels: int) -> Image.Image:
    image.load()
    if image.mode.startswith("I"):
        # 16 bits for each pixel; Pillow's own conversion would cut off what exceeds 255.
        values = np.asarray(image).astype(np.int64)
        image_8 = Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))
        image_8.info["exif"] = image.info.get("exif", b"")
        image = image_8
    elif image.has_transparency_data:
        exif = image.info.get("exif", b"")
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
        image.info["exif"] = exif
    image = ImageOps.exif_transpose(image)
    return image.convert("L" if channels == 1 else "RGB")


def _refuse(file: str, problem: str) -> NoReturn:
    # A name may hold anything; what reaches a terminal is printable and one line.
    line = f"{file}: {problem}"
    raise InputError("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)) from None
