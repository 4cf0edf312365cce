"""From a file's bytes to upright RGB pixels.

Phones rotate by EXIF, name HEIC files .jpg, and send ten times the pixels that the models look at. So: sniff
the bytes, read the header, check the limits, and only then decode, JPEG at a fraction of its size (libjpeg
scales while it decodes).
"""

from __future__ import annotations

import hashlib
import importlib
import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from magpie.errors import UndecodableImage
from magpie.vision.preprocess import Pixels

MAX_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 50_000_000
MIN_SIDE = 8  # px
MAX_ASPECT = 25  # longer side over shorter side
WORKING_SIZE = 800  # px, longer side: enough for a crop of a third of the photo to fill the embedder's input
REDUCE_BEYOND = 1.6  # times the working size; below that a resize costs more than it saves

_PILLOW_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP", "image/heic": "HEIF"}
_READ = "send JPEG, PNG, WebP or HEIC"
_OTHER_SIGNATURES = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"<!DOCTYPE": "HTML",
    b"<html": "HTML",
}
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
_END_OF_PNG = b"IEND\xaeB`\x82"
_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF orientation -> what turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on broken files (found by fuzzing them).
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo. `pixels` may be smaller than `width` x `height`; boxes are fractions and fit both."""

    pixels: Pixels  # (H, W, 3), upright RGB
    width: int  # px, of the upright original
    height: int
    sha256: str  # of the file's bytes, lower-case hexadecimal


def sniff(data: bytes) -> str:
    """Content type by the first bytes, whatever the file's name says. Raises UndecodableImage."""
    if not data:
        raise UndecodableImage("is empty (0 bytes): send the file's bytes")
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return _sniff_ftyp(data)
    for signature, name in _OTHER_SIGNATURES.items():
        if data.lstrip()[:9].startswith(signature):
            raise UndecodableImage(f"is {name}, which Magpie does not read: {_READ}")
    raise UndecodableImage(f"is no picture (starts with {data[:8]!r}): {_READ}")


def _sniff_ftyp(data: bytes) -> str:
    """HEIC, AVIF and MP4 share their container; the brands in its first box tell them apart."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & _HEIC_BRANDS:
        return "image/heic"
    name = "AVIF" if b"avif" in brands else f"a video or another container (brand {data[8:12]!r})"
    raise UndecodableImage(f"is {name}, which Magpie does not read: {_READ}")


def decode(data: bytes, working_size: int = WORKING_SIZE) -> Photo:
    """Upright RGB pixels whose longer side has at least `working_size` px where the original has.

    Transparency lies on white, 16 bit become 8, CMYK becomes RGB. Raises UndecodableImage, naming the fix,
    for what is empty, no picture, animated, truncated, or outside the limits on bytes, pixels and sides.
    """
    content_type = sniff(data)
    if len(data) > MAX_BYTES:
        raise UndecodableImage(
            f"has {len(data)} bytes, at most {MAX_BYTES}: send it smaller, 1024 px are enough"
        )
    image = _open(data, content_type)
    _check_header(image, content_type)
    stored_width, stored_height = image.size
    longer = max(stored_width, stored_height)
    if content_type == "image/jpeg" and longer > working_size:
        # libjpeg halves up to three times and stays above the size asked for.
        shrink = working_size / longer
        image.draft(None, (max(1, int(stored_width * shrink)), max(1, int(stored_height * shrink))))
    try:
        image.load()
        orientation = _orientation(image)
        image = _with_8_bits(image)
        if max(image.size) > REDUCE_BEYOND * working_size:
            shrink = working_size / max(image.size)
            size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        image = _on_white(image)
    except _BROKEN as error:
        raise UndecodableImage(f"is truncated or damaged ({error}): send the whole file again") from error
    if content_type == "image/png" and _END_OF_PNG not in data:
        raise UndecodableImage("is truncated (PNG without its end): send the whole file again")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    turned = orientation >= 5
    return Photo(
        pixels=np.asarray(image),
        width=stored_height if turned else stored_width,
        height=stored_width if turned else stored_height,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _open(data: bytes, content_type: str) -> Image.Image:
    """Parse the header; no pixel is decoded yet."""
    if content_type == "image/heic":
        _register_heic()
    try:
        return Image.open(io.BytesIO(data), formats=[_PILLOW_FORMATS[content_type]])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UndecodableImage(f"has too many pixels, at most {MAX_PIXELS}: send it smaller") from error
    except _BROKEN as error:
        raise UndecodableImage(
            f"starts like {content_type} but its header is damaged or cut off: send the whole file again"
        ) from error


def _register_heic() -> None:
    try:
        heif = importlib.import_module("pillow_heif")
    except ModuleNotFoundError as error:
        raise UndecodableImage(
            "is HEIC, whose decoder is not installed here: install `magpie[heic]`, or send JPEG"
        ) from error
    heif.register_heif_opener()


def _check_header(image: Image.Image, content_type: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UndecodableImage(f"has {width} x {height} px, at most {MAX_PIXELS} in all: send it smaller")
    if min(width, height) < MIN_SIDE:
        raise UndecodableImage(
            f"has {width} x {height} px, each side needs {MIN_SIDE}: send a larger picture"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UndecodableImage(
            f"has {width} x {height} px, one side over {MAX_ASPECT} times the other: cut it to its object"
        )
    # JPEG and HEIC may carry further pictures (depth, gain map, bursts); their first is the photo.
    if content_type in ("image/png", "image/webp") and getattr(image, "is_animated", False):
        raise UndecodableImage("is animated: send one still frame")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none. Damaged EXIF costs the rotation, not the photo."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _with_8_bits(image: Image.Image) -> Image.Image:
    """Any mode -> RGB, or RGBA where something shows through."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        clear = image.info.get("transparency")
        if clear is not None:
            alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
            return Image.merge("LA", (grey, alpha)).convert("RGBA")
        return grey.convert("RGB")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)  # convert always copies


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image).convert("RGB")
