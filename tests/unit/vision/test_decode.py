"""Pictures made here, in every mode and format, through the real decoder."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from magpie.errors import UndecodableImage
from magpie.vision import decode as decoding
from magpie.vision.decode import decode, sniff

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 40), (30, 40, 210), (255, 255, 255)


def quarters(width: int = 64, height: int = 48) -> Image.Image:
    """Red and green above, blue and white below: every turn and flip of it looks different."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    pixels[height // 2 :, width // 2 :] = WHITE
    return Image.fromarray(pixels)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """Colour in the middle of each quarter: top left, top right, bottom left, bottom right."""
    height, width = pixels.shape[:2]
    spots = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(int(v) for v in pixels[spot]) for spot in spots]


def assert_quarters(pixels: np.ndarray, tolerance: int = 12) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    np.testing.assert_allclose(corners(pixels), [RED, GREEN, BLUE, WHITE], atol=tolerance)


def with_size(png: bytes, width: int, height: int) -> bytes:
    """The same PNG, its header claiming another size."""
    header = struct.pack(">II", width, height) + png[24:29]
    return png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:]


@pytest.mark.parametrize(
    ("file_format", "options", "content_type"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}, "image/jpeg"),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, "image/jpeg"),
        ("PNG", {}, "image/png"),
        ("PNG", {"interlace": 1}, "image/png"),
        ("WEBP", {"quality": 95}, "image/webp"),
        ("WEBP", {"lossless": True}, "image/webp"),
    ],
)
def test_reads_each_format(file_format: str, options: dict[str, Any], content_type: str) -> None:
    data = encoded(quarters(), file_format, **options)
    photo = decode(data)
    assert sniff(data) == content_type
    assert (photo.width, photo.height) == (64, 48)
    assert photo.sha256 == hashlib.sha256(data).hexdigest()
    assert_quarters(photo.pixels)


# How a camera stores the upright picture under each orientation: the inverse of what the viewer must do.
STORED = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(64, 48), (2000, 1200)])
def test_turns_upright(orientation: int, file_format: str, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode(encoded(STORED[orientation](quarters(*size)), file_format, exif=exif))
    assert (photo.width, photo.height) == size
    assert photo.pixels.shape[1] > photo.pixels.shape[0]
    assert_quarters(photo.pixels)


@pytest.mark.parametrize("value", [0, 9, 40000])
def test_an_orientation_out_of_range_turns_nothing(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert_quarters(decode(encoded(quarters(), "JPEG", exif=exif)).pixels)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0", b"Exif\0\0no tiff at all", b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x12"]
)
def test_damaged_exif_costs_only_the_rotation(exif: bytes) -> None:
    assert_quarters(decode(encoded(quarters(), "JPEG", exif=exif)).pixels)


def test_grey_16_bit_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    pixels = decode(encoded(Image.fromarray(ramp), "PNG")).pixels
    np.testing.assert_array_equal(pixels, np.repeat((ramp // 256)[..., None], 3, axis=2))


def test_grey_16_bit_with_a_transparent_value() -> None:
    values = np.full((16, 16), 1000, np.uint16)
    values[:, 8:] = 60000
    pixels = decode(encoded(Image.fromarray(values), "PNG", transparency=1000)).pixels
    assert (pixels[:, :8] == 255).all()
    assert (pixels[:, 8:] == 60000 // 256).all()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_grey(file_format: str) -> None:
    pixels = decode(encoded(Image.new("L", (32, 32), 77), file_format)).pixels
    assert pixels.shape == (32, 32, 3)
    assert (pixels == 77).all()


def test_one_bit() -> None:
    image = Image.new("1", (32, 32), 0)
    image.paste(1, (16, 0, 32, 32))
    pixels = decode(encoded(image, "PNG")).pixels
    assert (pixels[:, :16] == 0).all()
    assert (pixels[:, 16:] == 255).all()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_what_is_clear_lies_on_white(file_format: str) -> None:
    image = quarters().convert("RGBA")
    image.paste((0, 0, 0, 0), (32, 24, 64, 48))
    assert_quarters(decode(encoded(image, file_format, lossless=True)).pixels)


def test_half_clear_is_mixed_with_white() -> None:
    pixels = decode(encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 128)), "PNG")).pixels
    np.testing.assert_allclose(pixels, 127, atol=1)


def test_clear_colours_do_not_bleed_when_reduced() -> None:
    image = Image.new("RGBA", (2000, 2000), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 1001, 2000))  # the edge falls inside a reduced pixel
    pixels = decode(encoded(image, "PNG")).pixels.astype(int)
    assert (pixels[..., 0] <= pixels[..., 1] + 1).all()  # no red without green: white and blue only


def test_grey_with_alpha() -> None:
    image = Image.new("LA", (16, 16), (10, 255))
    image.paste((10, 0), (8, 0, 16, 16))
    pixels = decode(encoded(image, "PNG")).pixels
    assert (pixels[:, :8] == 10).all()
    assert (pixels[:, 8:] == 255).all()


def test_palette_with_and_without_a_clear_entry() -> None:
    image = quarters().quantize(4)
    assert_quarters(decode(encoded(image, "PNG")).pixels)
    red = np.asarray(image)[0, 0]
    pixels = decode(encoded(image, "PNG", transparency=int(red))).pixels
    np.testing.assert_allclose(corners(pixels), [WHITE, GREEN, BLUE, WHITE], atol=12)


def test_rgb_with_a_clear_colour() -> None:
    pixels = decode(encoded(quarters(), "PNG", transparency=RED)).pixels
    np.testing.assert_allclose(corners(pixels), [WHITE, GREEN, BLUE, WHITE], atol=0)


def test_cmyk_as_adobe_writes_it_inverted() -> None:
    data = encoded(quarters().convert("CMYK"), "JPEG", quality=95, subsampling=0)
    assert b"Adobe" in data[:64]
    assert_quarters(decode(data).pixels, tolerance=20)


@pytest.mark.parametrize(
    ("size", "longer"),
    [
        ((4000, 3000), 1000),
        ((3000, 4000), 1000),
        ((1500, 900), 800),
        ((1200, 900), 1200),
        ((801, 600), 801),
        ((640, 480), 640),
    ],
)
def test_jpeg_comes_reduced_but_not_below_the_working_size(size: tuple[int, int], longer: int) -> None:
    photo = decode(encoded(quarters(*size), "JPEG"))
    assert (photo.width, photo.height) == size
    assert max(photo.pixels.shape) == longer
    np.testing.assert_allclose(photo.pixels.shape[1] / photo.pixels.shape[0], size[0] / size[1], rtol=0.01)


def test_other_formats_are_reduced_with_antialias() -> None:
    checks = np.indices((2400, 2400)).sum(axis=0) % 2 * 255  # one-pixel checks: aliasing would show
    pixels = decode(encoded(Image.fromarray(checks.astype(np.uint8)), "PNG")).pixels
    assert pixels.shape == (800, 800, 3)
    np.testing.assert_allclose(pixels[10:-10, 10:-10], 127, atol=16)


def test_a_larger_working_size_keeps_more() -> None:
    data = encoded(quarters(2000, 1500), "JPEG")
    assert decode(data, working_size=2000).pixels.shape == (1500, 2000, 3)
    assert decode(data, working_size=200).pixels.shape == (188, 250, 3)


def test_a_jpeg_with_a_second_picture_behind_it_is_its_first() -> None:
    second = Image.new("RGB", (32, 32), BLUE)
    data = encoded(quarters(), "MPO", save_all=True, append_images=[second], quality=95, subsampling=0)
    assert_quarters(decode(data).pixels)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_refuses_animation(file_format: str) -> None:
    frames = [quarters(), Image.new("RGB", (64, 48), BLUE)]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(UndecodableImage, match="animated: send one still frame"):
        decode(data)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})],
)
def test_refuses_every_truncation(file_format: str, options: dict[str, Any]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    data = encoded(noise, file_format, **options)
    decode(data)
    for length in range(len(data)):
        with pytest.raises(UndecodableImage):
            decode(data[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"hello, this is text", "no picture"),
        (b"GIF89a" + bytes(20), "is GIF"),
        (b"BM" + bytes(40), "is BMP"),
        (b"II*\0" + bytes(20), "is TIFF"),
        (b"%PDF-1.7 ...", "is PDF"),
        (b"\n<!DOCTYPE html>", "is HTML"),
        (b"<svg xmlns=", "is SVG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "is AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "is a video"),
        (b"\xff\xd8\xff\xe0", "header is damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "header is damaged"),
    ],
)
def test_says_what_it_got_instead(data: bytes, message: str) -> None:
    with pytest.raises(UndecodableImage, match=message) as caught:
        decode(data)
    assert str(caught.value).startswith("image: ")
    assert "send" in str(caught.value)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((10_000, 5_001), "10000 x 5001 px, at most 50000000"),
        ((60_000, 60_000), "too many pixels"),
        ((4, 100), "each side needs 8"),
        ((400, 10), "over 25 times"),
    ],
)
def test_refuses_sizes_by_the_header_alone(size: tuple[int, int], message: str) -> None:
    data = with_size(encoded(quarters(), "PNG"), *size)  # a bomb: nothing behind the header has that size
    with pytest.raises(UndecodableImage, match=message):
        decode(data)


def test_refuses_too_many_bytes_before_it_looks_inside() -> None:
    data = encoded(quarters(), "PNG")
    with pytest.raises(UndecodableImage, match="at most 20971520"):
        decode(data + bytes(decoding.MAX_BYTES - len(data) + 1))


@given(
    st.sampled_from(["JPEG", "PNG", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damage_is_refused_or_decodes(file_format: str, damage: list[tuple[int, int]]) -> None:
    data = bytearray(encoded(quarters(), file_format))
    for at, value in damage:
        data[at % len(data)] = value
    try:
        photo = decode(bytes(data))
    except UndecodableImage as error:
        assert error.field == "image"
    else:
        assert photo.pixels.ndim == 3
        assert photo.pixels.shape[2] == 3


def test_heic_without_its_decoder_names_the_extra() -> None:
    if importlib.util.find_spec("pillow_heif"):
        pytest.skip("pillow-heif is installed")
    with pytest.raises(UndecodableImage, match=r"magpie\[heic\]"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


@pytest.mark.parametrize("name", ["photo.heic", "photo.jpg"])
def test_heic_by_its_bytes_whatever_its_name(name: str, tmp_path: Any) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / name
    path.write_bytes(encoded(STORED[6](quarters(640, 480)), "HEIF", quality=95, exif=exif.tobytes()))
    photo = decode(path.read_bytes())
    assert (photo.width, photo.height) == (640, 480)
    assert_quarters(photo.pixels, tolerance=20)
