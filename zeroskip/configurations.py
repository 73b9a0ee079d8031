"""Random configurations for the soak test: a network, a geometry, formats and stalls, all from a seed and an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from zeroskip.boards.simulation import StallPattern
from zeroskip.compiler.formats import sparse_format
from zeroskip.compiler.ir import Grid, Kind, Model, Tensor
from zeroskip.compiler.synthetic import Spec, argmax, build_model
from zeroskip.compiler.target import Format
from zeroskip.random_network import FAMILIES, KEEPS, Counts, RandomNetwork

__all__ = ["Configuration", "draw_configuration"]

SAMPLES = 8
VECTORS = 3
MAX_PRODUCTS = 64

SHARED = 0.2
"""Configurations whose lanes share multipliers."""

IN_SPRAM = 0.1
"""Configurations whose weights and indices lie in SPRAM."""

LARGEST = 0.2
"""Configurations whose output is the number of the largest result, of those that end in a vector."""

UNIFIED = (Grid.ZERO_EXCLUDED, Grid.SYMMETRIC, Grid.TERNARY)
"""Grids on which every magnitude has both signs, or none."""


@dataclass(frozen=True)
class Configuration:
    """One case.

    ``sparse`` is the share of layers with indices, ``passes`` whether the compiler's passes run first, ``spram``
    whether weights and indices lie in SPRAM.
    """

    seed: int
    index: int
    family: str
    source: Tensor
    specs: tuple[Spec, ...]
    geometry: Mapping[str, Any]
    sparse: float
    index_bits: int | None
    passes: bool
    stalls: StallPattern | None
    vectors: int = VECTORS
    spram: bool = False

    @cached_property
    def model(self) -> Model:
        """The network with golden samples."""
        rng = np.random.default_rng((self.seed, self.index, 1))
        return build_model(rng, self.source, self.specs, name=f"soak-{self.seed}-{self.index}", samples=SAMPLES)

    def formats(self, model: Model) -> dict[str, Format]:
        """Return the format of every layer with weights of ``model``, this network as the passes left it."""
        rng = np.random.default_rng((self.seed, self.index, 2))
        formats = {}
        for layer in model.layers:
            if layer.weight is not None:
                choice = rng.random()
                sparse = sparse_format(layer) if choice < 0.7 else Format.RELATIVE
                if layer.kind is Kind.CONV2D and choice >= 0.8:
                    sparse = Format.BITMAP
                formats[layer.name] = sparse if rng.random() < self.sparse else Format.DENSE
        return formats

    def describe(self) -> str:
        """Return one line."""
        counts = Counts()
        names = " ".join(counts.next(spec) for spec in self.specs)
        shape = "x".join(map(str, self.source.shape))
        size = ", ".join(
            (key if value is True else f"{value} {key}").replace("_", " ")
            for key, value in self.geometry.items()
            if value is True or value > 1
        )
        engine = {0.0: "dense", 1.0: "sparse"}.get(self.sparse, "mixed")
        extras = [] if self.index_bits is None else [f"{self.index_bits} index bits"]
        extras += [] if self.passes else ["no passes"]
        extras += [] if self.stalls is None else ["stalls"]
        extras += ["SPRAM"] if self.spram else []
        return f"{self.family} {shape} {names}; {', '.join((size, engine, *extras))}"


def draw_configuration(seed: int, index: int) -> Configuration:
    """Return configuration ``index`` of ``seed``; it depends on nothing else."""
    rng = np.random.default_rng((seed, index, 0))
    family = str(rng.choice(list(FAMILIES), p=list(FAMILIES.values())))
    geometry = _draw_geometry(rng)
    network = RandomNetwork(rng, family, narrow="paired_products" in geometry)
    network.draw()
    sparse = float(rng.choice([0.0, 1.0, 0.5], p=[0.3, 0.35, 0.35]))
    stalls = None
    if rng.random() < 0.25:
        gaps = [float(rng.choice([0.0, 0.3, 0.6, 0.95])) for _ in range(2)]
        stalls = StallPattern(gaps[0], gaps[1], int(rng.integers(1, 1 << 31)))
    specs = tuple(network.specs)
    *_, last = network.shapes.values()
    # numbers of its own: all other configurations stay what they are
    if np.random.default_rng((seed, index, 5)).random() < LARGEST and last[0] == np.prod(last) and specs[-1].kind.runs:
        specs += (argmax(),)
    configuration = Configuration(
        seed,
        index,
        family,
        network.source,
        specs,
        geometry,
        sparse,
        int(rng.integers(1, 9)) if rng.random() < 0.4 else None,
        bool(rng.random() < 0.75),
        stalls,
    )
    # numbers of its own: all other configurations stay what they are
    spram = np.random.default_rng((seed, index, 4)).random() < IN_SPRAM
    return replace(_share_multipliers(configuration), spram=bool(spram))


def _share_multipliers(configuration: Configuration) -> Configuration:
    """Let lanes share multipliers in some configurations, and unify the weights of most of their layers."""
    # numbers of its own: all other configurations stay what they are
    rng = np.random.default_rng((configuration.seed, configuration.index, 3))
    if rng.random() >= SHARED:
        return configuration
    clashes = ("banked_vectors", "paired_products")
    geometry = {key: value for key, value in configuration.geometry.items() if key not in clashes}
    lanes, units = geometry["lanes"], geometry.get("columns", 1) * geometry.get("cores", 1)
    geometry["sign_adds"] = int(rng.choice([adds for adds in (2, 4, 8, 16) if adds <= lanes]))
    if "logic_products" in geometry:
        geometry["logic_products"] = min(geometry["logic_products"], lanes * units // geometry["sign_adds"])
    size = int(rng.integers(1, 10)) if rng.random() < 0.3 else geometry["sign_adds"]
    specs = []
    for spec in configuration.specs:
        if spec.kind in (Kind.CONV2D, Kind.LINEAR) and spec.grid in UNIFIED and rng.random() < 0.8:
            keep = float(rng.choice(KEEPS[1:]))
            spec = replace(spec, structure="micro_block", keep=keep, detail={"size": size})
        specs.append(spec)
    return replace(configuration, geometry=geometry, specs=tuple(specs))


def _draw_geometry(rng: np.random.Generator) -> dict[str, Any]:
    lanes = int(rng.choice([4, 8, 16, 32], p=[0.4, 0.35, 0.2, 0.05]))
    units = int(min(rng.choice([1, 2, 3, 4, 5, 6, 8, 12, 16]), MAX_PRODUCTS // lanes))
    kind = str(rng.choice(["columns", "cores"]))
    if kind == "cores":
        units = min(units, 5)
    results = int(rng.choice([1, 2, 4, 8, 16, 32], p=[0.3, 0.25, 0.25, 0.12, 0.05, 0.03]))
    geometry: dict[str, Any] = {"lanes": lanes, kind: units, "results": min(results, lanes)}
    if rng.random() < 0.3:
        geometry["logic_products"] = int(rng.integers(0, lanes * units + 1))
    if rng.random() < 0.3:
        geometry["banked_vectors"] = True
    if kind == "columns" and units > 1 and rng.random() < 0.4:
        geometry["paired_products"] = True
    return geometry
