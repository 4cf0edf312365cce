"""Decoding: a twelve-megapixel phone JPEG, a small JPEG and a PNG, against Pillow decoding every pixel."""

from __future__ import annotations

import io
from functools import partial

from PIL import Image, ImageOps

from magpie.vision.decode import decode
from tests.bench.harness import measure, report
from tests.bench.photos import phone_photo, scene


def main() -> None:
    small = scene(2).resize((800, 600))
    files = {"12 MP JPEG": phone_photo()}
    for kind in ("JPEG", "PNG"):
        with io.BytesIO() as file:
            small.save(file, kind)
            files[f"800x600 {kind}"] = file.getvalue()
    rows = []
    for name, data in files.items():
        rows.append(measure(name, partial(decode, data), note=f"{len(data) / 1e6:.1f} MB"))
        rows.append(measure(f"{name}, Pillow", partial(whole, data), note="peer: every pixel"))
    report("decode", rows)


def whole(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


if __name__ == "__main__":
    main()
