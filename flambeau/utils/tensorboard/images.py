"""Images: arrays brought to height x width x channels bytes, and written as PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["as_pixels", "boxed", "figure_pixels", "grid", "png"]


def as_pixels(array: np.ndarray, order: str) -> np.ndarray:
    """An image (or a batch, as one image) as (height, width, 3 or 4) bytes.

    Args:
        array: floats in [0, 1], or bytes.
        order: what its dimensions are, such as "CHW", "HW" or "NCHW".

    Raises:
        ValueError: the order does not fit the array.
    """
    order = order.upper()
    if len(set(order)) != len(order) or set(order) - set("NCHW") or not set("HW") <= set(order):
        raise ValueError(f"dataformats={order!r} must name each dimension once: N, C, H, W")
    if array.ndim != len(order):
        raise ValueError(f"an image of shape {array.shape} has not the {len(order)} dimensions of "
                         f"dataformats={order!r}")
    if "C" not in order:
        array, order = array[..., None], order + "C"
    if "N" in order:
        pixels = grid(array.transpose([order.index(d) for d in "NHWC"]))
    else:
        pixels = array.transpose([order.index(d) for d in "HWC"])
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, -1)
    if pixels.shape[-1] not in (3, 4):
        raise ValueError(f"an image has 1, 3 or 4 channels, not {pixels.shape[-1]}")
    if pixels.dtype != np.uint8:
        pixels = (pixels.astype(np.float32) * 255).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def grid(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """(n, height, width, channels) images side by side, in rows of `columns`."""
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.zeros((rows, columns, height, width, channels), images.dtype)
    canvas.reshape(-1, height, width, channels)[:count] = images
    return canvas.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def png(pixels: np.ndarray) -> bytes:
    """(height, width, 3 or 4) bytes as a PNG file."""
    height, width, channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))

    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 6, 0, 0, 0)
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
            + chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)) + chunk(b"IEND", b""))


def boxed(pixels: np.ndarray, boxes: Sequence[Sequence[float]], colour: Any = (255, 0, 0)
          ) -> np.ndarray:
    """The image with the outlines of boxes, (left, top, right, bottom) in pixels."""
    made = pixels.copy()
    height, width, channels = made.shape
    ink = [*colour, 255][:channels]
    for box in boxes:
        left, right = sorted(int(np.clip(box[i], 0, width - 1)) for i in (0, 2))
        top, bottom = sorted(int(np.clip(box[i], 0, height - 1)) for i in (1, 3))
        made[top:bottom + 1, [left, right]] = ink
        made[[top, bottom], left:right + 1] = ink
    return made


def figure_pixels(figure: Any) -> np.ndarray:
    """A Matplotlib figure as (height, width, 4) bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())
