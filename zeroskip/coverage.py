"""What soak configurations cover: the features of each by group, and a table of how many had them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields

from zeroskip.compiler.ir import Grid, Kind, Rounding
from zeroskip.compiler.program import Program
from zeroskip.compiler.synthetic import Spec
from zeroskip.compiler.target import EngineConfig, Format
from zeroskip.configurations import Configuration
from zeroskip.hw.design import engine_name
from zeroskip.random_network import FAMILIES, STRUCTURES

__all__ = ["coverage_table", "features"]

_WEIGHTED = (Kind.CONV2D, Kind.LINEAR)
_FLAGS = tuple(field.name for field in fields(EngineConfig) if field.name.startswith("has_"))
_SIZES = (
    "argmax_size",
    "mask_bits",
    "pattern_bits",
    "magnitude_bits",
    "search_stages",
    "codebooks",
    "multiplier_width",
)
"""Sizes of hardware that is there when they are not 0."""

_UNIVERSE = {
    "family": FAMILIES,
    "engine": ("dense", "sparse", "hybrid"),
    "format": tuple(format.value for format in Format),
    "layer": tuple(kind.value for kind in Kind),
    "grid": tuple(grid.value for grid in Grid),
    "weight bits": tuple(map(str, range(1, 9))),
    "structure": ("dense", "micro_block", *STRUCTURES),
    "rounding": tuple(rounding.value for rounding in Rounding),
    "hardware": (*(name.removeprefix("has_").replace("_", " ") for name in _FLAGS), *_SIZES),
}
"""All there is of some groups: what none had is in the table too."""


def features(configuration: Configuration, program: Program) -> tuple[str, ...]:
    """Return the features of one configuration as ``"group: feature"``, sorted, each once."""
    config, geometry = program.config, program.config.geometry
    weighted = [spec for spec in configuration.specs if spec.kind in _WEIGHTED]
    sizes = [name for name in _SIZES if getattr(config, name)]
    flags = [name.removeprefix("has_").replace("_", " ") for name in _FLAGS if getattr(config, name)]
    options = {
        "banked vectors": geometry.banked_vectors,
        "paired products": geometry.paired_products,
        "shared multipliers": geometry.sign_adds > 1,
        "products in logic": geometry.logic_products > 0,
        "index bits given": configuration.index_bits is not None,
        "without passes": not configuration.passes,
        "stalls": configuration.stalls is not None,
    }
    groups: Mapping[str, Iterable[object]] = {
        "family": [configuration.family],
        "engine": [engine_name(program)],
        "format": [plan.format.value for plan in program.layers if plan.layer.weight is not None],
        "layer": [spec.kind.value for spec in configuration.specs],
        "shape": [name for spec in configuration.specs for name in _shapes(spec)],
        "grid": [spec.grid.value for spec in weighted],
        "weight bits": [spec.bits for spec in weighted],
        "structure": [spec.structure for spec in weighted],
        "rounding": [spec.rounding.value for spec in weighted],
        "lanes": [geometry.lanes],
        "columns": [geometry.columns],
        "cores": [geometry.cores],
        "results": [geometry.results],
        "option": [name for name, chosen in options.items() if chosen],
        "hardware": [*flags, *sizes],
    }
    return tuple(sorted({f"{group}: {name}" for group, names in groups.items() for name in names}))


def _shapes(spec: Spec) -> list[str]:
    """Return what is special about a window or the rows of a layer."""
    marks = {
        "strided": max(spec.stride) > 1,
        "dilated": max(spec.dilation) > 1,
        "padded": any(spec.padding),
        "padded unevenly": len(set(spec.padding)) > 1,
        "overlapping pooling": spec.kind is Kind.MAX_POOL2D and spec.kernel != spec.stride,
        "depthwise": 1 < spec.groups == spec.out,
        "grouped": 1 < spec.groups < spec.out,
        "empty rows": bool(spec.empty_rows),
        "one output": spec.kind in _WEIGHTED and spec.out == 1,
        "scale per channel": spec.kind in _WEIGHTED and spec.per_channel,
        "zero point": spec.out_zero_point != 0,
    }
    return [name for name, found in marks.items() if found]


def coverage_table(counts: Counter[str]) -> str:
    """Return a line a group: how many configurations had each feature, the rarest last and 0 for those none had."""
    groups: dict[str, Counter[str]] = {group: Counter(dict.fromkeys(names, 0)) for group, names in _UNIVERSE.items()}
    for label, count in counts.items():
        group, name = label.split(": ", 1)
        groups.setdefault(group, Counter())[name] += count
    width = max(map(len, groups))
    lines = []
    for group, names in groups.items():
        ordered = sorted(names.items(), key=lambda item: (-item[1], len(item[0]), item[0]))
        lines.append(f"{group:>{width}}  " + ", ".join(f"{name}: {count}" for name, count in ordered))
    return "\n".join(lines)
