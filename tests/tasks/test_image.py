"""Image files: what is read, what is refused, and the numbers that models see."""

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import namedtensor as nt
from namedtensor.tasks import ImagePreprocess
from namedtensor.tasks._image import MAX_PIXELS, decode

GOLDEN = Path(__file__).parents[1] / "golden" / "images"
REFERENCE = json.loads((GOLDEN / "reference.json").read_text())


def as_declared(library: str) -> ImagePreprocess:
    settings = REFERENCE[library]
    return ImagePreprocess(
        height=settings["crop"],
        width=settings["crop"],
        resize=settings["resize"],
        interpolation=settings["interpolation"],
        crop="round" if library == "timm" else "floor",
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )


@pytest.mark.parametrize("library", ["timm", "transformers"])
@pytest.mark.parametrize("file", ["scene.png", "scene.jpg"])
def test_pictures_become_the_numbers_of_the_reference(file: str, library: str) -> None:
    reference = np.load(GOLDEN / "reference.npz")
    found = as_declared(library)(GOLDEN / file)
    settings = REFERENCE[library]
    pixels = (found * np.float32(settings["std"]) + np.float32(settings["mean"])) * 255
    np.testing.assert_array_equal(np.round(pixels), reference[f"{file}.{library}.pixels"])
    np.testing.assert_allclose(found.transpose(2, 0, 1)[:, ::8, ::8], reference[f"{file}.{library}.tensor"], atol=1e-5)


def saved(tmp_path: Path, image: Image.Image, name: str = "x.png", **options: Any) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def exact(channels: Any = 3, **options: Any) -> ImagePreprocess:
    """Pixels as they are, of an image of 2 rows and 3 columns."""
    return ImagePreprocess(height=2, width=3, channels=channels, interpolation="nearest", scale=1.0, **options)


COLOURS = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def test_pixels_are_height_width_channels(tmp_path: Path) -> None:
    found = exact()(saved(tmp_path, Image.fromarray(COLOURS)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, COLOURS)


def test_inversion_comes_first_then_scale_mean_and_deviation(tmp_path: Path) -> None:
    preprocess = ImagePreprocess(
        height=2, width=3, interpolation="nearest", invert=True, scale=0.1, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 8.0)
    )
    expected = ((255.0 - COLOURS) * 0.1 - [1, 2, 3]) / [4, 5, 8]
    np.testing.assert_allclose(preprocess(saved(tmp_path, Image.fromarray(COLOURS))), expected, rtol=1e-5)


def test_one_channel_is_luma(tmp_path: Path) -> None:
    red, green, blue = np.moveaxis(COLOURS.astype(np.float64), 2, 0)
    found = exact(channels=1)(saved(tmp_path, Image.fromarray(COLOURS)))
    np.testing.assert_allclose(found[..., 0], 0.299 * red + 0.587 * green + 0.114 * blue, atol=0.6)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    found = exact()(saved(tmp_path, Image.fromarray(COLOURS[..., 0])))
    np.testing.assert_array_equal(found, np.repeat(COLOURS[..., :1], 3, axis=2))


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "webp", "jpg"])
def test_formats(tmp_path: Path, ending: str) -> None:
    grey = np.full((2, 3), 77, np.uint8)
    found = exact()(saved(tmp_path, Image.fromarray(grey), f"x.{ending}"))
    np.testing.assert_allclose(found, 77, atol=2)


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, 1] = (200, 0, 0, 255)
    pixels[1, 2] = (0, 0, 0, 128)
    found = exact()(saved(tmp_path, Image.fromarray(pixels)))
    np.testing.assert_array_equal(found[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(found[0, 1], [200, 0, 0])
    np.testing.assert_allclose(found[1, 2], 127, atol=1)


def test_palettes_and_their_transparent_colour(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), mode=None).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2, 2, 1, 0])
    found = exact()(saved(tmp_path, image, transparency=1))
    np.testing.assert_array_equal(found[0], [[10, 20, 30], [255, 255, 255], [70, 80, 90]])


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_upper_half(tmp_path: Path, channels: int) -> None:
    values = np.array([[0, 255, 256], [0x1234, 0xABCD, 0xFFFF]], np.uint16)
    found = exact(channels=channels)(saved(tmp_path, Image.fromarray(values)))
    np.testing.assert_array_equal(found[..., 0], values >> 8)


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = np.array([[1, 0, 1], [0, 0, 1]], bool)
    np.testing.assert_array_equal(exact(channels=1)(saved(tmp_path, Image.fromarray(bits)))[..., 0], bits * 255)


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("kind", ["colour", "transparent", "16 bit"])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, turned: int, kind: str) -> None:
    upright = np.zeros((4, 6), np.uint8)
    upright[:, :3] = 240
    stored = np.rot90(upright, -turned)
    image = {
        "colour": lambda: Image.fromarray(np.repeat(stored[..., None], 3, 2)),
        "transparent": lambda: Image.fromarray(np.stack([stored] * 3 + [np.full_like(stored, 255)], -1)),
        "16 bit": lambda: Image.fromarray(stored.astype(np.uint16) << 8),
    }[kind]()
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = np.asarray(decode(saved(tmp_path, image, exif=exif), 1))
    np.testing.assert_array_equal(found, upright)


def test_the_shorter_side_is_resized_and_the_middle_cut_out(tmp_path: Path) -> None:
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    preprocess = ImagePreprocess(height=4, width=4, channels=1, resize=4, interpolation="nearest", scale=1.0)
    np.testing.assert_array_equal(preprocess(saved(tmp_path, Image.fromarray(wide))), np.full((4, 4, 1), 200))
    np.testing.assert_array_equal(preprocess(saved(tmp_path, Image.fromarray(wide.T))), np.full((4, 4, 1), 200))


@pytest.mark.parametrize(("crop", "first"), [("floor", 1), ("round", 2)])
def test_an_odd_pixel_is_cut_off_where_the_reference_does(tmp_path: Path, crop: Any, first: int) -> None:
    row = np.tile(np.arange(7, dtype=np.uint8), (4, 1))
    preprocess = ImagePreprocess(height=4, width=4, channels=1, resize=4, interpolation="nearest", crop=crop, scale=1.0)
    np.testing.assert_array_equal(
        preprocess(saved(tmp_path, Image.fromarray(row)))[0, :, 0], np.arange(first, first + 4)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 0}, "0 by 3 is not a size"),
        ({"height": 1 << 20, "width": 1 << 20}, "is not a size"),
        ({"channels": 4}, "4 channels"),
        ({"interpolation": "cubic"}, "'cubic' is not implemented"),
        ({"crop": "left"}, "'left' is not implemented"),
        ({"resize": 2}, "nothing to cut"),
        ({"resize": 1 << 14}, "too large an image"),
        ({"mean": (1.0, 2.0)}, "mean has 2 values for 3 channels"),
        ({"std": (0.0,)}, "not positive"),
    ],
)
def test_declarations_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(nt.ModelError, match=message):
        ImagePreprocess(**{"height": 2, "width": 3, **settings})


def test_a_declaration_is_plain_data() -> None:
    assert json.loads(json.dumps(as_declared("timm").to_json()))["interpolation"] == "bicubic"


# -- files that are no images -----------------------------------------------------------------------------------------


def png(width: int, height: int, data: bytes = b"", *more: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    between = b"".join(chunk(kind, body) for kind, body in more)
    return b"\x89PNG\r\n\x1a\n" + header + between + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def refusal(file: Any) -> str:
    with pytest.raises(nt.InputError) as caught:
        decode(file, 3)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    assert "PNG, JPEG, WEBP, BMP and GIF are read" in refusal(tmp_path / "text.png")
    assert "has 0 bytes" in refusal(tmp_path / "empty.png")
    assert "is not a file" in refusal(tmp_path / "pipe.png")
    assert "is a directory" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "none.png")
    assert "null" in refusal(f"{tmp_path}/\0.png")
    assert "not as int" in refusal(3)
    assert "x\\x1b[31m.png" in refusal(tmp_path / "x\x1b[31m.png")


def test_formats_that_nobody_asked_for_are_refused(tmp_path: Path) -> None:
    for ending in ("tiff", "ppm", "ico"):
        assert "are read" in refusal(saved(tmp_path, Image.fromarray(COLOURS), f"x.{ending}"))


def test_sizes_beyond_the_limit_are_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    for width, height in ((MAX_PIXELS + 1, 1), (1 << 14, 1 << 13), (1 << 17, 1 << 17), (1 << 30, 1 << 30)):
        (tmp_path / "bomb.png").write_bytes(png(width, height))
        assert "pixels" in refusal(tmp_path / "bomb.png")


def test_narrow_images_cannot_ask_for_memory_by_being_enlarged(tmp_path: Path) -> None:
    (tmp_path / "thread.png").write_bytes(png(1_000_000, 1, bytes(1_000_001)))
    preprocess = ImagePreprocess(height=224, width=224, resize=256)
    with pytest.raises(nt.InputError, match="too narrow to be resized in proportion"):
        preprocess(tmp_path / "thread.png")


def test_compressed_text_cannot_ask_for_memory(tmp_path: Path) -> None:
    comment = b"Comment\0\0" + zlib.compress(bytes(200 << 20), 9)
    (tmp_path / "text.png").write_bytes(png(3, 2, bytes(8), *[(b"zTXt", comment)] * 4))
    assert "is not an image that can be read" in refusal(tmp_path / "text.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "gif"])
def test_damaged_files_are_refused_or_read_but_never_crash(tmp_path: Path, ending: str) -> None:
    stream = io.BytesIO()
    noise = np.random.RandomState(0).randint(0, 255, (24, 24, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {"exif": exif} if ending in ("png", "jpg", "webp") else {}
    formats = {"jpg": "JPEG"}
    Image.fromarray(noise).save(stream, formats.get(ending, ending.upper()), **options)
    whole = stream.getvalue()
    random = np.random.RandomState(1)
    file = tmp_path / f"x.{ending}"
    refused = 0
    for attempt in range(120):
        damaged = bytearray(whole)
        if attempt % 3 == 0:
            damaged = damaged[: random.randint(1, len(whole))]
        else:
            for place in random.randint(0, min(len(whole), 200 if attempt % 3 == 1 else len(whole)), 6):
                damaged[place] = random.randint(0, 256)
        file.write_bytes(bytes(damaged))
        try:
            decode(file, 3)
        except nt.InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 0
