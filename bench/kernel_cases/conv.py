"""Convolutions of the models, forward and both gradients, in both memory formats."""

from __future__ import annotations

import dataclasses
import functools

from kernel_cases import Case, normal

__all__ = ["LAYERS", "Layer", "cases", "layer_cases", "totals"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution: channels, kernel, stride and padding over square images of `size`."""

    c_in: int
    c_out: int
    kernel: int
    stride: int
    size: int
    groups: int = 1

    def __str__(self) -> str:
        kind = f"{self.kernel}x{self.kernel}" + (f"s{self.stride}" if self.stride > 1 else "")
        return f"{kind} {self.c_in}-{self.c_out}@{self.size}"


def _bottlenecks(size: int, inner: int, outer: int) -> tuple[Layer, ...]:
    return (Layer(outer, inner, 1, 1, size), Layer(inner, inner, 3, 1, size),
            Layer(inner, outer, 1, 1, size))


LAYERS = {
    "resnet18": (Layer(3, 64, 7, 2, 224), Layer(64, 64, 3, 1, 56), Layer(64, 128, 3, 2, 56),
                 Layer(128, 128, 3, 1, 28), Layer(128, 256, 3, 2, 28), Layer(256, 256, 3, 1, 14),
                 Layer(256, 512, 3, 2, 14), Layer(512, 512, 3, 1, 7), Layer(64, 128, 1, 2, 56)),
    "resnet50": (*_bottlenecks(56, 64, 256), *_bottlenecks(28, 128, 512),
                 *_bottlenecks(14, 256, 1024), *_bottlenecks(7, 512, 2048)),
    "mobilenet": (Layer(3, 32, 3, 2, 224), Layer(32, 16, 1, 1, 112), Layer(16, 96, 1, 1, 112),
                  Layer(24, 144, 1, 1, 56), Layer(144, 32, 1, 1, 28), Layer(64, 384, 1, 1, 14),
                  Layer(160, 960, 1, 1, 7), Layer(320, 1280, 1, 1, 7)),
    "yolo": (Layer(3, 16, 3, 2, 160), Layer(16, 32, 3, 2, 80), Layer(32, 32, 3, 1, 40),
             Layer(32, 64, 3, 2, 40), Layer(64, 64, 3, 1, 20), Layer(128, 128, 3, 1, 10)),
    "vgg": (Layer(3, 64, 3, 1, 224), Layer(64, 128, 3, 1, 112), Layer(128, 256, 3, 1, 56),
            Layer(256, 512, 3, 1, 28), Layer(512, 512, 3, 1, 14)),
}


def build(layer: Layer, batch: int, way: str, dtype: str, T, variant: str):
    x = normal(T, batch, layer.c_in, layer.size, layer.size, dtype=dtype)
    w = normal(T, layer.c_out, layer.c_in // layer.groups, layer.kernel, layer.kernel, seed=1,
               dtype=dtype)
    if variant == "channels_last":
        x = x.to(memory_format=T.channels_last)
        w = w.to(memory_format=T.channels_last)
    options = (None, layer.stride, layer.kernel // 2, 1, layer.groups)
    if way == "forward":
        return functools.partial(T.nn.functional.conv2d, x, w, *options)
    wanted = x if way == "grad input" else w
    wanted.requires_grad_(True)
    y = T.nn.functional.conv2d(x, w, *options)
    g = normal(T, *y.shape, seed=2, dtype=dtype)
    if variant == "channels_last":
        g = g.to(memory_format=T.channels_last)
    return functools.partial(T.autograd.grad, y, (wanted,), g, True)


def layer_cases(family: str, prefix: str, layer: Layer, batch: int, dtype: str, ways: tuple):
    out = -(-layer.size // layer.stride)
    flops = (2.0 * batch * layer.c_out * out * out * layer.c_in // layer.groups
             * layer.kernel ** 2)
    for way in ways:
        suffix = "" if dtype == "float32" else f" {dtype}"
        yield Case(family, f"{prefix} {layer} b{batch} {way}{suffix}",
                   functools.partial(build, layer, batch, way, dtype),
                   ("nchw", "channels_last"), flops=flops,
                   tolerance=1e-4 if dtype == "float32" else 2e-2)


def totals(results: list) -> list[str]:
    """A table of each network's sum of layers, by batch and direction: ours, in the memory format
    that is faster for the sum, over the peer's best."""
    sums: dict[tuple, dict[str, list[float]]] = {}
    for result in results:
        network, rest = result.name.split(" ", 1)
        batch, way = next((word, rest.split(word, 1)[1].strip()) for word in (" b1 ", " b8 ")
                          if word in rest)
        pair = sums.setdefault((network, batch.strip(), way), {}).setdefault(
            result.variant, [0.0, 0.0])
        pair[0] += result.ours
        pair[1] += result.theirs
    lines = []
    for (network, batch, way), formats in sums.items():
        text = "  ".join(f"{name} {ours / theirs:.2f}" for name, (ours, theirs) in formats.items())
        _, theirs = next(iter(formats.values()))
        ours = min(pair[0] for pair in formats.values())
        lines.append(f"sum of {network:10} {batch} {way:12} {ours * 1e3:9.2f} ms "
                     f"{theirs * 1e3:9.2f} ms  {text}")
    return lines


def cases(full: bool):
    for network, layers in LAYERS.items():
        for layer in layers if full else layers[1:7:2]:
            for batch in (8, 1) if full else (8,):
                yield from layer_cases("conv", network, layer, batch, "float32",
                                       ("forward", "grad input", "grad weight"))
