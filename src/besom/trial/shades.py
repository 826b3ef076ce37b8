"""Numbers as colours: greys for images, blue through white to red for what may be below and above zero.

Knows nothing of what the numbers are, nor of where they are drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STOPS = np.array([-1, -0.35, 0, 0.35, 1])
COLORS = np.array([(24, 78, 142), (134, 182, 219), (250, 250, 250), (242, 158, 120), (176, 32, 34)])
"""Deep blue to white to deep red, of minus the limit to plus the limit; what is small gets more than its share."""


def limit_of(values: NDArray[np.float32]) -> float:
    """Return the largest distance from 0 among the finite values, 1 where all are 0: what gets the deepest colour."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0)) or 1.0


def diverging(values: NDArray[np.float32], limit: float) -> NDArray[np.uint8]:
    """Return values as colours around 0, which is white; what is not finite is white too.

    Args:
        values: of any shape.
        limit: the distance from 0, above 0, from which on a colour is at its deepest.

    Returns:
        Colours of the same shape and one more axis of length 3.
    """
    share = np.nan_to_num(values / limit, nan=0.0, posinf=0.0, neginf=0.0)
    return np.stack([np.interp(share, STOPS, part) for part in COLORS.T], axis=-1).round().astype(np.uint8)


def greys(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return values as greys, the least black and the greatest white, in the shape that `diverging` has."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    share = np.nan_to_num((values - low) / ((high - low) or 1.0))
    return np.repeat((255 * share).round().astype(np.uint8)[..., np.newaxis], 3, axis=-1)


def photo(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return an image, shape (height, width, channels), as colours: three channels are red, green and blue, of any
    other number the first one is shown in greys. Its shape is (height, width, 3).
    """
    shades = greys(image)[..., 0]
    return shades if image.shape[-1] == 3 else np.repeat(shades[..., :1], 3, axis=-1)
