"""How good a network is: the share of samples classified correctly, or the AUC of its reconstruction error."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.quantize import QuantizedNetwork
from zeroskip.pruning.training import Forward, Task, accuracy, outputs

__all__ = ["auc", "integer_score", "reconstruction_errors", "score", "squared_errors", "wrong"]


def squared_errors(codes: Tensor, reconstruction: Tensor) -> NDArray[np.int64]:
    """Return ``sum((code - reconstructed code)^2)`` of every sample: input and output have the same codes.

    That is all a device has to compute, in integers: 140 values of 8 bits stay below 2^24.
    """
    difference = codes.flatten(1).to(torch.int64) - reconstruction.flatten(1).to(torch.int64)
    result: NDArray[np.int64] = difference.square().sum(1).numpy()
    return result


def reconstruction_errors(net: QuantizedNetwork, data: ImageSet) -> NDArray[np.int64]:
    """Return the squared error of every sample's reconstruction by the integer network.

    Raises
    ------
    PruningError
        If the network's output has other codes than its input; quantize it with ``reconstruct=True``.
    """
    first, last = net.golden.tensors["input"], net.golden.tensors["output"]
    same = net.first.offset == 0 and (first.bits, first.signed, net.first.scale) == (last.bits, last.signed, last.scale)
    if not same or np.prod(first.shape) != np.prod(last.shape):
        raise PruningError(
            f"The output has shape {last.shape} and scale {last.scale:g}, but the input {first.shape} and "
            f"{net.first.scale:g}; quantize the autoencoder with reconstruct=True"
        )
    codes = net.codes(data.x)
    return squared_errors(codes, net.golden.run(codes)["output"])


def auc(errors: NDArray[np.int64] | NDArray[np.float64], labels: Tensor) -> float:
    """Return the area under the ROC curve: the share of (anomalous, normal) pairs in which the first errs more.

    Ties count one half. ``labels`` are 0 for normal samples and above for others.
    """
    from sklearn.metrics import roc_auc_score

    anomalous = labels.numpy() > 0
    if anomalous.all() or not anomalous.any():
        raise PruningError("The AUC needs normal samples (label 0) and others; take another part of the data")
    return float(roc_auc_score(anomalous, errors))


def score(forward: Forward, data: ImageSet, source: Input, task: Task, device: torch.device | None = None) -> float:
    """Return the accuracy of the float network on ``device``, or for ``RECONSTRUCT`` the AUC of its squared error."""
    if task is Task.CLASSIFY:
        return accuracy(forward, data, source, device)
    difference = outputs(forward, data, source, device).flatten(1) - source.normalize(data.x).flatten(1)
    return auc(difference.to(torch.float64).square().mean(1).numpy(), data.y)


def integer_score(net: QuantizedNetwork, data: ImageSet, task: Task) -> float:
    """Return the integer network's accuracy, or for ``RECONSTRUCT`` the AUC of :func:`reconstruction_errors`."""
    return net.accuracy(data) if task is Task.CLASSIFY else auc(reconstruction_errors(net, data), data.y)


def wrong(net: QuantizedNetwork, data: ImageSet) -> NDArray[np.bool_]:
    """Return which samples the integer network classifies wrongly, for :func:`zeroskip.pruning.comparison.compare`."""
    result: NDArray[np.bool_] = (net.golden.predict(net.codes(data.x)) != data.y).numpy()
    return result
