"""Fuse a max pooling into the convolution before it, so that the unpooled map is never stored."""

from __future__ import annotations

from dataclasses import replace

from zeroskip.compiler.ir import Kind, Layer, Model, Pool

__all__ = ["fuse_max_pool"]


def fuse_max_pool(model: Model, report: list[str] | None = None) -> Model:
    """Replace each convolution and the max pooling behind it by one layer that writes the pooled tensor.

    The maximum of the codes is the code of the largest accumulator because multipliers are never negative. Only
    poolings whose stride is their kernel and that have no padding are fused; rows and columns that no window covers are
    not computed at all. The layer keeps the convolution's name; the unpooled tensor and its golden samples are gone.

    Parameters
    ----------
    model : Model
    report : list of str, gets a line for every pooling
    """
    tensors, golden = dict(model.tensors), dict(model.golden)
    layers = {layer.name: layer for layer in model.layers}
    lines: list[str] = []
    for layer in model.layers:
        if layer.kind is not Kind.MAX_POOL2D:
            continue
        before = next((other for other in layers.values() if other.output == layer.input), None)
        obstacle = _obstacle(model, before, layer)
        if before is None or obstacle is not None:
            lines.append(f"fuse_max_pool: layer {layer.name!r} stays a pass of its own: {obstacle}")
            continue
        pool = None if layer.kernel == (1, 1) else Pool(layer.kernel, layer.stride)
        del tensors[before.output], layers[layer.name]
        golden.pop(before.output, None)
        layers[before.name] = replace(before, output=layer.output, pool=pool)
        lines.append(f"fuse_max_pool: layer {layer.name!r} is fused into {before.name!r}")
    if report is not None:
        report.extend(lines)
    return replace(model, layers=tuple(layers.values()), tensors=tensors, golden=golden)


def _obstacle(model: Model, before: Layer | None, pool: Layer) -> str | None:
    """Return why ``pool`` cannot be fused into the layer ``before`` it, None if it can."""
    if before is None or before.kind is not Kind.CONV2D:
        return "the layer before it is no convolution"
    if before.pool is not None:
        return f"{before.name!r} has a fused pooling already"
    if pool.kernel != pool.stride:
        return f"its windows of {pool.kernel} overlap or leave gaps at stride {pool.stride}"
    if any(pool.padding):
        return f"it has padding {pool.padding}"
    if len(model.readers(before.output)) != 1 or before.output == model.output:
        return f"the unpooled tensor {before.output!r} is needed elsewhere"
    return None
