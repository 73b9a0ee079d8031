"""Sort the rows of sparse linear layers by length, so that lanes that run in lock step end together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zeroskip.compiler.ir import Kind, Model
from zeroskip.compiler.passes.channels import bound, select_rows

__all__ = ["balance_rows"]


def balance_rows(model: Model, lanes: int) -> tuple[Model, dict[str, tuple[int, ...]]]:
    """Permute the rows of each linear layer whose only reader is a linear layer; the network's function is unchanged.

    Returns the new model and, by tensor name, the original row of each position. Golden samples of a permuted tensor
    follow the permutation. The rows of the last layer keep their order: the host reads them. So do rows that a
    structure counts, such as blocks or N of M.
    """
    layers = {layer.name: layer for layer in model.layers}
    golden = dict(model.golden)
    orders: dict[str, tuple[int, ...]] = {}
    for name in list(layers):
        layer, readers = layers[name], model.readers(layers[name].output)
        if layer.kind is not Kind.LINEAR or len(readers) != 1 or readers[0].kind is not Kind.LINEAR:
            continue
        if len(np.asarray(layer.bias)) <= lanes or bound(layer, readers[0]):
            continue
        lengths = np.count_nonzero(np.asarray(layer.weight), axis=1)
        order = np.lexsort((np.arange(len(lengths)), -lengths))
        layers[name] = select_rows(layer, order)
        consumer = layers[readers[0].name]
        layers[consumer.name] = replace(consumer, weight=np.asarray(consumer.weight)[:, order])
        if layer.output in golden:
            golden[layer.output] = golden[layer.output][:, order]
        orders[layer.output] = tuple(int(i) for i in order)
    return replace(model, layers=tuple(layers.values()), golden=golden), orders
