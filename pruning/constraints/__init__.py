"""Constraint sets: a view of a weight tensor as groups, and the projection onto the set."""

from __future__ import annotations

from zeroskip.pruning.constraints.balanced import NM, BankBalanced
from zeroskip.pruning.constraints.base import ConstraintSet, Structure
from zeroskip.pruning.constraints.blocks import Block, Vector
from zeroskip.pruning.constraints.channels import Channel, Filter, Kernel
from zeroskip.pruning.constraints.codebook import Codebook
from zeroskip.pruning.constraints.column import Column
from zeroskip.pruning.constraints.filter_column import FilterColumn
from zeroskip.pruning.constraints.joint import Joint
from zeroskip.pruning.constraints.levels import Levels
from zeroskip.pruning.constraints.micro_block import MicroBlock
from zeroskip.pruning.constraints.nonstructured import NonStructured
from zeroskip.pruning.constraints.pattern import Pattern

__all__ = [
    "NM",
    "BankBalanced",
    "Block",
    "Channel",
    "Codebook",
    "Column",
    "ConstraintSet",
    "Filter",
    "FilterColumn",
    "Joint",
    "Kernel",
    "Levels",
    "MicroBlock",
    "NonStructured",
    "Pattern",
    "Structure",
    "Vector",
]
