"""Cut a product from a white ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Mask = NDArray[np.bool_]  # (H, W)

WHITE = 240  # darkest channel value that still counts as ground
BORDER_WHITE = 0.7  # share of the border that must be ground
AREA = (0.02, 0.97)  # share of the picture that a product may cover


def flood_from_border(open_pixels: Mask) -> Mask:
    """The open pixels that are 4-connected to the border through open pixels.

    Sweeps whole runs of open pixels along rows, then columns, until nothing changes: usually a dozen sweeps.
    """
    reached = np.zeros_like(open_pixels)
    reached[[0, -1], :] = open_pixels[[0, -1], :]
    reached[:, [0, -1]] = open_pixels[:, [0, -1]]
    count = -1
    while count != (count := int(reached.sum())):
        reached = _fill_runs(reached, open_pixels)
        reached = _fill_runs(reached.T, open_pixels.T).T
    return reached


def _fill_runs(reached: Mask, open_pixels: Mask) -> Mask:
    """Fill every horizontal run of open pixels of which one pixel is reached."""
    starts = np.ones(open_pixels.shape, np.int64)
    starts[:, 1:] = open_pixels[:, 1:] != open_pixels[:, :-1]
    run = np.cumsum(starts.ravel()) - 1
    touched = np.bincount(run, reached.ravel()) > 0
    return np.asarray(touched[run].reshape(open_pixels.shape) & open_pixels)


def cut_from_white(image: Image.Image) -> Image.Image | None:
    """The product as RGBA, cropped to it, its edge a pixel soft. None if the ground is not white."""
    pixels = np.asarray(image.convert("RGB"))
    white = pixels.min(axis=2) >= WHITE
    border = np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]])
    if border.mean() < BORDER_WHITE:
        return None
    solid = ~flood_from_border(white)
    if not AREA[0] <= solid.mean() <= AREA[1]:
        return None
    # One pixel of the rim is mixed with the ground: take it off before softening.
    alpha = Image.fromarray(solid.astype(np.uint8) * 255).filter(ImageFilter.MinFilter(3))
    alpha = alpha.filter(ImageFilter.GaussianBlur(0.7))
    cut = image.convert("RGB").convert("RGBA")
    cut.putalpha(alpha)
    box = alpha.getbbox()
    return cut.crop(box) if box else None
