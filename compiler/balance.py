"""Sort the rows of sparse linear layers by length, so that lanes that run in lock step end together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zeroskip.compiler.ir import Kind, Model

__all__ = ["balance_rows"]


def balance_rows(model: Model, lanes: int) -> tuple[Model, dict[str, tuple[int, ...]]]:
    """Permute the rows of each linear layer whose only consumer is a linear layer; the network's function is unchanged.

    Returns the new model and, by tensor name, the original row of each position. Golden samples of a permuted tensor
    follow the permutation. The rows of the last layer keep their order: the host reads them.
    """
    layers = list(model.layers)
    golden = dict(model.golden)
    orders: dict[str, tuple[int, ...]] = {}
    for index, layer in enumerate(layers[:-1]):
        consumer = layers[index + 1]
        if layer.kind is not Kind.LINEAR or consumer.kind is not Kind.LINEAR or len(np.asarray(layer.bias)) <= lanes:
            continue
        lengths = np.count_nonzero(np.asarray(layer.weight), axis=1)
        order = np.lexsort((np.arange(len(lengths)), -lengths))
        multiplier, shift = np.asarray(layer.multiplier), np.asarray(layer.shift)
        layers[index] = replace(
            layer,
            weight=np.asarray(layer.weight)[order],
            bias=np.asarray(layer.bias)[order],
            multiplier=multiplier[order] if multiplier.size > 1 else multiplier,
            shift=shift[order] if shift.size > 1 else shift,
        )
        layers[index + 1] = replace(consumer, weight=np.asarray(consumer.weight)[:, order])
        if layer.output in golden:
            golden[layer.output] = golden[layer.output][:, order]
        orders[layer.output] = tuple(int(i) for i in order)
    return replace(model, layers=tuple(layers), golden=golden), orders
