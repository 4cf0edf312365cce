"""Pictures that are bad to learn from: blurred, dark, overexposed, small.

Thresholds stand where, on 6,900 photos of groceries, clothes and figures, those below were visibly bad; at
256 px a Gaussian blur with a standard deviation of 2 px takes the sharpness of any of them below 20.
"""

from __future__ import annotations

from training.datasets.measured_picture import Measured

BLURRED = 50.0  # variance of the Laplacian at 256 px; half of all photos have 700 or more
DARK = 40.0  # mean luma, [0, 255]
OVEREXPOSED = 0.5  # share of white pixels, of a photo; a catalogue picture may stand on white
SMALL = 96  # px, shorter side: half of what the embedder looks at


def faults(picture: Measured, *, catalogue: bool) -> list[str]:
    """What is wrong with it, each with its figure; none: nothing."""
    found = []
    short_side = min(picture.width, picture.height)
    if short_side < SMALL:
        found.append(f"small ({picture.width} x {picture.height} px, each side needs {SMALL})")
    if picture.sharpness < BLURRED:
        found.append(f"blurred (sharpness {picture.sharpness:.0f}, usual are {BLURRED:.0f} or more)")
    if picture.brightness < DARK:
        found.append(f"dark (brightness {picture.brightness:.0f} of 255, usual are {DARK:.0f} or more)")
    if not catalogue and picture.white > OVEREXPOSED:
        found.append(f"overexposed ({picture.white:.0%} of it is white)")
    return found
