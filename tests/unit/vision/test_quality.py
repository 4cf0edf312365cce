from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from magpie.vision.quality import quality


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (12, 9)).astype(float)
    laplacian = [
        grey[y - 1, x] + grey[y + 1, x] + grey[y, x - 1] + grey[y, x + 1] - 4 * grey[y, x]
        for y in range(1, 11)
        for x in range(1, 8)
    ]
    pixels = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    measured = quality(pixels)
    assert measured.sharpness == pytest.approx(np.var(laplacian), rel=1e-4)
    assert measured.brightness == pytest.approx(grey.mean(), rel=1e-4)
    assert measured.short_side == 9


def test_blur_and_darkness_show() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    sharp = quality(np.asarray(noise))
    blurred = quality(np.asarray(noise.filter(ImageFilter.GaussianBlur(3))))
    dark = quality(np.asarray(noise) // 8)
    assert blurred.sharpness < sharp.sharpness / 100
    assert dark.brightness < 20 < sharp.brightness
