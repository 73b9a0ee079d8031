"""Prune and quantize PyTorch networks and write them as one artifact file."""

from __future__ import annotations

from zeroskip.pruning.admm import Admm
from zeroskip.pruning.allocation import Allocation, allocate
from zeroskip.pruning.budgets import Budget
from zeroskip.pruning.chain import build_artifact, prune
from zeroskip.pruning.constraints import (
    NM,
    BankBalanced,
    Block,
    Channel,
    Codebook,
    Column,
    ConstraintSet,
    Filter,
    FilterColumn,
    Joint,
    Kernel,
    Levels,
    MicroBlock,
    NonStructured,
    Pattern,
    Vector,
)
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.export import Record
from zeroskip.pruning.inputs import Input, fold_channels
from zeroskip.pruning.networks import load_start
from zeroskip.pruning.quantize import QuantizedNetwork, quantize
from zeroskip.pruning.sensitivity import Sensitivity, sensitivities

__all__ = [
    "NM",
    "Admm",
    "Allocation",
    "BankBalanced",
    "Block",
    "Budget",
    "Channel",
    "Codebook",
    "Column",
    "ConstraintSet",
    "Filter",
    "FilterColumn",
    "Input",
    "Joint",
    "Kernel",
    "Levels",
    "MicroBlock",
    "NonStructured",
    "Pattern",
    "PruningError",
    "QuantizedNetwork",
    "Record",
    "Sensitivity",
    "Vector",
    "allocate",
    "build_artifact",
    "fold_channels",
    "load_start",
    "prune",
    "quantize",
    "sensitivities",
]
