"""The names of the constraint sets in recipes and files, and sets as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from zeroskip.pruning.constraints.balanced import NM, BankBalanced
from zeroskip.pruning.constraints.base import ConstraintSet
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

__all__ = ["KINDS", "as_values", "from_values", "option_names"]

KINDS: Mapping[str, type[ConstraintSet]] = {
    "nonstructured": NonStructured,
    "filter": Filter,
    "channel": Channel,
    "column": Column,
    "filter_column": FilterColumn,
    "kernel": Kernel,
    "vector": Vector,
    "block": Block,
    "nm": NM,
    "bank_balanced": BankBalanced,
    "pattern": Pattern,
    "micro_block": MicroBlock,
    "codebook": Codebook,
    "levels": Levels,
    "joint": Joint,
}


def option_names(kind: str) -> tuple[str, ...]:
    """Return the options of a kind, in order."""
    return tuple(field.name for field in dataclasses.fields(KINDS[kind]))  # type: ignore[arg-type]


def as_values(constraint: ConstraintSet) -> dict[str, Any]:
    """Return a set as JSON values: its ``kind`` and its options."""
    kind = next(name for name, cls in KINDS.items() if type(constraint) is cls)
    options = {name: getattr(constraint, name) for name in option_names(kind)}
    return {"kind": kind} | {name: _plain(value) for name, value in options.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, ConstraintSet):
        return as_values(value)
    return [list(part) for part in value] if isinstance(value, tuple) else value


def from_values(values: Mapping[str, Any]) -> ConstraintSet:
    """Return the set that :func:`as_values` described."""
    options = {name: value for name, value in values.items() if name != "kind"}
    made = {name: from_values(value) if isinstance(value, Mapping) else value for name, value in options.items()}
    return KINDS[values["kind"]](**made)
