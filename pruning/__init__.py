"""Prune and quantize PyTorch networks and write them as one artifact file."""

from __future__ import annotations

from zeroskip.pruning.admm import Admm
from zeroskip.pruning.chain import build_artifact, prune
from zeroskip.pruning.constraints import Column, Levels, NonStructured
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.inputs import Input, fold_channels
from zeroskip.pruning.quantize import QuantizedNetwork, quantize

__all__ = [
    "Admm",
    "Column",
    "Input",
    "Levels",
    "NonStructured",
    "PruningError",
    "QuantizedNetwork",
    "build_artifact",
    "fold_channels",
    "prune",
    "quantize",
]
