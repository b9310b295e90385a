"""Summaries: what one logged value is in an event file, as protocol buffers.

Numbers of fields are those of TensorBoard's summary.proto, tensor.proto and of its plug-ins.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from typing import Any

import numpy as np

from flambeau.utils.tensorboard.images import png
from flambeau.utils.tensorboard.messages import (
    Double,
    Float,
    message,
    packed_doubles,
    packed_floats,
)

__all__ = ["array_of", "audio", "histogram", "histogram_of", "image", "of_plugin", "pr_curve",
           "scalar", "tensor", "tensor_proto", "text", "texts"]

_FLOAT, _DOUBLE, _STRING = 1, 2, 7  # DataType
_KINDS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6,
          "complex64": 8, "int64": 9, "bool": 10, "uint16": 17, "complex128": 18, "float16": 19,
          "uint32": 22, "uint64": 23}


def array_of(value: Any) -> np.ndarray:
    """A tensor, array or number as an array."""
    if hasattr(value, "detach"):
        value = value.detach()
        if str(value.dtype).endswith("bfloat16"):
            value = value.float()
        return value.numpy()
    return np.asarray(value)


def _summary(*fields: tuple[int, Any]) -> bytes:
    """A Summary with one value."""
    return message((1, message(*fields)))


def _metadata(plugin: str, content: bytes | None = None, *more: tuple[int, Any]) -> bytes:
    return message((1, message((1, plugin), (2, content))), *more)


def of_plugin(tag: str, plugin: str, content: bytes | None, value: bytes | None = None) -> bytes:
    """A summary that a plug-in reads: `content` for itself, `value` a TensorProto."""
    return _summary((1, tag), (9, _metadata(plugin, content)), (8, value))


def scalar(tag: str, value: Any, new_style: bool = False, double: bool = False) -> bytes:
    """One number.

    Raises:
        ValueError: several.
    """
    array = array_of(value)
    if array.size != 1:
        raise ValueError(f"add_scalar({tag!r}): a scalar is one number, not {array.size}")
    number = float(array.reshape(()))
    if not new_style and not double:
        return _summary((1, tag), (2, Float(number)))
    held = (message((1, _DOUBLE), (2, message()), (6, packed_doubles([number]))) if double
            else message((1, _FLOAT), (2, message()), (5, packed_floats([number]))))
    return _summary((1, tag), (8, held), (9, _metadata("scalars", None, (4, 1))))


def tensor_proto(array: np.ndarray) -> bytes:
    """An array as a TensorProto.

    Raises:
        TypeError: of a dtype that TensorBoard does not know.
    """
    kind = _KINDS.get(array.dtype.name)
    if kind is None:
        raise TypeError(f"TensorBoard knows no arrays of dtype {array.dtype}")
    shape = message((2, [message((1, size)) for size in array.shape]))
    return message((1, kind), (2, shape), (4, np.ascontiguousarray(array).tobytes()))


def tensor(tag: str, value: Any) -> bytes:
    """An array as it is."""
    return _summary((1, tag), (8, tensor_proto(array_of(value))), (9, _metadata("tensor")))


def texts(values: Sequence[bytes]) -> bytes:
    """Texts, or serialized messages, as a TensorProto of one dimension."""
    return message((1, _STRING), (2, message((2, message((1, len(values)))))), (8, list(values)))


def text(tag: str, value: str) -> bytes:
    """A text, in Markdown."""
    return of_plugin(f"{tag}/text_summary", "text", message((1, 0)), texts([value.encode()]))


# ---------------------------------------------------------------------- histograms
def histogram(tag: str, low: float, high: float, count: float, total: float, squares: float,
              limits: Sequence[float], counts: Sequence[float]) -> bytes:
    """A histogram: `counts[i]` values up to `limits[i]`.

    Raises:
        ValueError: lengths differ.
    """
    if len(limits) != len(counts):
        raise ValueError(f"add_histogram_raw({tag!r}): {len(limits)} limits and {len(counts)} "
                         "counts")
    held = message((1, Double(low)), (2, Double(high)), (3, Double(count)), (4, Double(total)),
                   (5, Double(squares)), (6, packed_doubles(limits)), (7, packed_doubles(counts)))
    return _summary((1, tag), (5, held))


def _growing_bins() -> np.ndarray:
    """Limits that grow by 10 % from 1e-12 to 1e20, on both sides of 0."""
    side = 1e-12 * 1.1 ** np.arange(774)
    side = side[side < 1e20]
    return np.concatenate([-side[::-1], [0], side])


def histogram_of(tag: str, values: Any, bins: Any, max_bins: int | None) -> bytes:
    """The histogram of all values.

    Args:
        bins: "tensorflow": limits that grow by 10 %; else what `numpy.histogram` takes.
        max_bins: joins neighbours until there are no more.

    Raises:
        ValueError: there are no values, or they are not finite.
    """
    flat = array_of(values).reshape(-1).astype(np.float64)
    if not flat.size:
        raise ValueError(f"add_histogram({tag!r}): the input has no element")
    if not np.isfinite(flat).all():
        raise ValueError(f"add_histogram({tag!r}): the input has values that are not finite; "
                         "leave them out, or find where they come from")
    counts, limits = np.histogram(flat, _growing_bins() if isinstance(bins, str)
                                  and bins == "tensorflow" else bins)
    if max_bins is not None and len(counts) > max_bins:
        step = len(counts) // max_bins
        limits = np.append(limits[:-1:step], limits[-1])
        counts = np.add.reduceat(counts, np.arange(0, len(counts), step))
    filled = np.nonzero(counts)[0]
    first, last = (filled[0], filled[-1]) if len(filled) else (0, 0)
    # an empty bucket below the first: TensorBoard takes its limit as where the first begins
    counts = np.concatenate([[0], counts[first:last + 1]])
    limits = limits[first:last + 2]
    return histogram(tag, flat.min(), flat.max(), flat.size, flat.sum(), flat @ flat,
                     limits.tolist(), counts.tolist())


# ---------------------------------------------------------------------- pictures and sound
def image(tag: str, pixels: np.ndarray) -> bytes:
    """(height, width, 3 or 4) bytes."""
    height, width, channels = pixels.shape
    return _summary((1, tag), (4, message((1, height), (2, width), (3, channels),
                                          (4, png(pixels)))))


def encoded(tag: str, height: int, width: int, channels: int, data: bytes) -> bytes:
    """An image that is a file already."""
    return _summary((1, tag), (4, message((1, height), (2, width), (3, channels), (4, data))))


def audio(tag: str, value: Any, rate: int) -> bytes:
    """Sound: numbers in [-1, 1].

    Raises:
        ValueError: more than one channel.
    """
    samples = array_of(value).squeeze()
    if samples.ndim != 1:
        raise ValueError(f"add_audio({tag!r}): one channel of samples is expected, got the shape "
                         f"{array_of(value).shape}")
    whole = (samples.astype(np.float64).clip(-1, 1) * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(whole.tobytes())
    held = message((1, Float(rate)), (2, 1), (3, len(whole)), (4, file.getvalue()),
                   (5, "audio/wav"))
    return _summary((1, tag), (6, held))


def pr_curve(tag: str, rows: np.ndarray) -> bytes:
    """A precision-recall curve: (6, thresholds) of true and false positives, true and false
    negatives, precision, recall."""
    content = message((1, 0), (2, rows.shape[1]))
    return of_plugin(tag, "pr_curves", content, tensor_proto(rows.astype(np.float32)))
