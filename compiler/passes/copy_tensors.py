"""Copy a tensor for readers that need it stored differently: strided, unstrided, and linear layers."""

from __future__ import annotations

from dataclasses import replace

from zeroskip.compiler.ir import Kind, Layer, Model
from zeroskip.compiler.schedule import access_of

__all__ = ["copy_tensors"]

PLAIN = (1, 1)
"""How a copy reads what it copies: stride 1."""


def copy_tensors(model: Model, report: list[str] | None = None) -> Model:
    """Insert a layer that passes codes through wherever one stored form of a tensor cannot serve all its readers.

    Such a tensor is stored for readers of stride 1, the copies among them; each other form gets one copy, made by an
    average pooling of one element.
    """
    layers: list[Layer] = []
    tensors, golden, kept = dict(model.tensors), dict(model.golden), dict(model.kept_channels)
    renamed: dict[tuple[str, object], str] = {}
    lines: list[str] = []
    for layer in model.layers:
        form = _form(model, layer)
        inputs = []
        for name in layer.inputs:
            tensor = tensors[name]
            if form is None or len(tensor.shape) != 3 or form == _stored(model, name):
                inputs.append(name)
                continue
            if (name, form) not in renamed:
                copy = f"{name}.copy{sum(old == name for old, _ in renamed) + 1}"
                renamed[name, form] = copy
                tensors[copy] = replace(tensor, name=copy)
                if name in golden:
                    golden[copy] = golden[name]
                if name in kept:
                    kept[copy] = kept[name]
                layers.append(Layer(copy, Kind.AVG_POOL2D, (name,), copy, clamp=(tensor.lo, tensor.hi)))
                lines.append(f"copy_tensors: layer {layer.name!r} reads a copy of {name!r}, stored its own way")
            inputs.append(renamed[name, form])
        layers.append(replace(layer, inputs=tuple(inputs)))
    if report is not None:
        report.extend(lines)
    return replace(model, layers=tuple(layers), tensors=tensors, golden=golden, kept_channels=kept)


def _stored(model: Model, name: str) -> object:
    """Return how a tensor is stored; None: any way."""
    forms = {_form(model, reader) for reader in model.readers(name)} - {None}
    return forms.pop() if len(forms) == 1 else PLAIN if forms else None


def _form(model: Model, layer: Layer) -> object:
    """Return how a layer needs its inputs stored; None: any way. A concatenation stores them like its output."""
    if layer.kind is Kind.CONCAT:
        return _stored(model, layer.output)
    if layer.kind is Kind.ARGMAX:
        return None
    if layer.kind is Kind.LINEAR:
        return "linear"
    if layer.kind is Kind.AVG_POOL2D and model.tensors[layer.output].shape[1:] == (1, 1):
        return (1, 1)
    return access_of(layer).stride
