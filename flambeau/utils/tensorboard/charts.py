"""What plug-ins of TensorBoard are told besides numbers: hyperparameters, layouts, meshes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flambeau.utils.tensorboard.messages import Double, message, packed_ints
from flambeau.utils.tensorboard.summaries import array_of, of_plugin, tensor_proto, texts

__all__ = ["experiment", "layout", "mesh", "pr_counts", "session"]

_TEXT, _BOOL, _NUMBER = 1, 2, 3  # of hyperparameters


def _kind(name: str, value: Any) -> int:
    if isinstance(value, bool):
        return _BOOL
    if isinstance(value, (int, float, np.number)):
        return _NUMBER
    if isinstance(value, str):
        return _TEXT
    raise ValueError(f"add_hparams: {name}={value!r}: a hyperparameter is a number, a bool or a "
                     f"text, not {type(value).__name__}")


def _plain(name: str, value: Any) -> Any:
    """Tensors of one number as numbers."""
    return array_of(value).item() if hasattr(value, "detach") else value


def _value(name: str, value: Any) -> bytes:
    """A google.protobuf.Value."""
    kind = _kind(name, value)
    if kind == _BOOL:
        return message((4, int(value)))
    return message((3, value)) if kind == _TEXT else message((2, Double(value)))


def experiment(hparams: Mapping[str, Any], metrics: Mapping[str, Any],
               discrete: Mapping[str, Sequence] | None) -> bytes:
    """Names and types of the hyperparameters and metrics of an experiment."""
    infos = []
    for name, value in hparams.items():
        domain = None
        if discrete and name in discrete:
            domain = message((1, [_value(name, each) for each in discrete[name]]))
        infos.append(message((1, name), (4, _kind(name, _plain(name, value))), (5, domain)))
    held = message((4, infos), (5, [message((1, message((2, name)))) for name in metrics]))
    return of_plugin("_hparams_/experiment", "hparams", message((2, held)))


def session(hparams: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """(the begin, the end) of the session that ran with these hyperparameters."""
    entries = [message((1, name), (2, _value(name, _plain(name, value))))
               for name, value in hparams.items()]
    begin = message((3, message((1, entries), (5, Double(time.time())))))
    end = message((4, message((1, 1), (2, Double(time.time())))))
    return (of_plugin("_hparams_/session_start_info", "hparams", begin),
            of_plugin("_hparams_/session_end_info", "hparams", end))


def layout(categories: Mapping[str, Mapping[str, Sequence]]) -> bytes:
    """Charts of the custom scalars page: category -> title -> ["Multiline" or "Margin", tags].

    Raises:
        ValueError: another kind of chart, or not three tags for a margin.
    """
    made = []
    for category, charts in categories.items():
        made.append(message((1, category), (2, [_chart(*each) for each in charts.items()])))
    content = message((2, made))
    return of_plugin("custom_scalars__config__", "custom_scalars", None, texts([content]))


def _chart(title: str, given: Sequence) -> bytes:
    kind, tags = given
    if kind == "Multiline":
        return message((1, title), (2, message((1, list(tags)))))
    if kind != "Margin":
        raise ValueError(f"add_custom_scalars: {title!r} is {kind!r}; a chart is 'Multiline' or "
                         "'Margin'")
    if len(tags) != 3:
        raise ValueError(f"add_custom_scalars: {title!r} has {len(tags)} tags; a margin has three: "
                         "value, lower and upper bound")
    return message((1, title), (3, message((1, message(*zip((1, 2, 3), tags, strict=True))))))


def mesh(tag: str, parts: Mapping[str, Any], config: Mapping | None) -> list[bytes]:
    """Summaries of a mesh; `parts`: "VERTEX" and perhaps "COLOR" and "FACE", (batch, n, 3)."""
    kinds = {"VERTEX": 1, "FACE": 2, "COLOR": 3}
    present = {name: array_of(value) for name, value in parts.items() if value is not None}
    components = sum(1 << kinds[name] for name in present)
    made = []
    for name, array in present.items():
        array = array.astype(np.int32 if name == "FACE" else np.float32)
        content = message((1, 0), (2, tag), (3, kinds[name]), (5, json.dumps(config or {})),
                          (6, packed_ints(array.shape)), (7, components))
        made.append(of_plugin(f"{tag}_{name}", "mesh", content, tensor_proto(array)))
    return made


def pr_counts(labels: Any, predictions: Any, thresholds: int, weights: Any) -> np.ndarray:
    """The (6, thresholds) rows of a precision-recall curve."""
    truth = array_of(labels).reshape(-1).astype(np.float64)
    weight = np.ones_like(truth) if weights is None else array_of(weights).reshape(-1)
    bucket = np.floor(array_of(predictions).reshape(-1) * (thresholds - 1)).astype(np.int64)
    shape = {"minlength": thresholds}
    # of predictions in each bucket and all above it
    true = np.bincount(bucket, truth * weight, **shape)[::-1].cumsum()[::-1]
    false = np.bincount(bucket, (1 - truth) * weight, **shape)[::-1].cumsum()[::-1]
    least = 1e-7
    precision = true / np.maximum(least, true + false)
    recall = true / np.maximum(least, true[0])
    return np.stack([true, false, false[0] - false, true[0] - true, precision, recall])
