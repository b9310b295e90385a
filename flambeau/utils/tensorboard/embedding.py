"""Files of TensorBoard's projector: vectors, their labels and pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from flambeau.utils.tensorboard.images import as_pixels, grid, png
from flambeau.utils.tensorboard.summaries import array_of

__all__ = ["write_embedding"]


def write_embedding(folder: str, name: str, vectors: Any, labels: Sequence | None, pictures: Any,
                    header: Sequence[str] | None, tag: str) -> None:
    """Write (n, d) vectors, n labels and n pictures (CHW) below `folder`/`name`, and enter them in
    the projector's configuration.

    Raises:
        ValueError: other numbers of labels or pictures; or no matrix.
    """
    matrix = array_of(vectors)
    if matrix.ndim != 2:
        raise ValueError(f"add_embedding: a matrix is expected, got the shape {matrix.shape}")
    images = None if pictures is None else array_of(pictures)
    for what, given in (("metadata", labels), ("label_img", images)):
        if given is not None and len(given) != len(matrix):
            raise ValueError(f"add_embedding: {len(given)} of {what} for {len(matrix)} vectors")
    os.makedirs(os.path.join(folder, name), exist_ok=True)

    def write(file: str, data: bytes) -> str:
        with open(os.path.join(folder, name, file), "wb") as opened:
            opened.write(data)
        return f"{name}/{file}"

    lines = ["\t".join(map(str, row)) for row in matrix.tolist()]
    entry = [("tensor_name", f"{tag}:{name.split('/')[0]}"),
             ("tensor_path", write("tensors.tsv", "\n".join(lines).encode()))]
    if labels is not None:
        rows = ["\t".join(map(str, row)) if header else str(row) for row in labels]
        rows = ["\t".join(header), *rows] if header else rows
        entry.append(("metadata_path", write("metadata.tsv", "\n".join(rows).encode())))
    sprite = ""
    if images is not None:
        stacked = images.transpose(0, 2, 3, 1)
        sheet = grid(stacked, math.ceil(math.sqrt(len(stacked))))
        path = write("sprite.png", png(as_pixels(np.asarray(sheet), "HWC")))
        sprite = (f'sprite {{\nimage_path: "{path}"\nsingle_image_dim: {images.shape[3]}\n'
                  f"single_image_dim: {images.shape[2]}\n}}\n")
    body = "".join(f'{key}: "{value}"\n' for key, value in entry)
    with open(os.path.join(folder, "projector_config.pbtxt"), "a", encoding="utf-8") as config:
        config.write(f"embeddings {{\n{body}{sprite}}}\n")
