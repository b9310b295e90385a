"""Depthwise and grouped convolutions: the layers of MobileNetV2 and V3, and of ResNeXt."""

from __future__ import annotations

from kernel_cases.conv import Layer, layer_cases

LAYERS = (Layer(32, 32, 3, 1, 112, 32), Layer(96, 96, 3, 2, 112, 96),
          Layer(144, 144, 3, 1, 56, 144), Layer(192, 192, 3, 2, 28, 192),
          Layer(384, 384, 3, 1, 14, 384), Layer(240, 240, 5, 1, 14, 240),
          Layer(960, 960, 3, 1, 7, 960), Layer(72, 72, 5, 2, 56, 72),
          Layer(128, 128, 3, 1, 56, 32), Layer(256, 256, 7, 1, 14, 256),
          Layer(512, 512, 3, 1, 14, 32), Layer(256, 256, 3, 2, 56, 32))


def cases(full: bool):
    for layer in LAYERS if full else LAYERS[::2]:
        for batch in (8, 1) if full else (8,):
            yield from layer_cases("depthwise", f"groups {layer.groups}", layer, batch, "float32",
                                   ("forward", "grad input", "grad weight"))
