"""Random configurations for the soak test: a network, a geometry, formats and stalls, all from a seed and an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from zeroskip.boards.simulation import StallPattern
from zeroskip.compiler.formats import sparse_format
from zeroskip.compiler.ir import Grid, Kind, Layer, Model, Rounding, Tensor
from zeroskip.compiler.shapes import output_shape
from zeroskip.compiler.synthetic import (
    LAYER_NAMES,
    Padding,
    Spec,
    add,
    argmax,
    avg_pool,
    build_model,
    concat,
    conv,
    linear,
    max_pool,
)
from zeroskip.compiler.target import Format

__all__ = ["Configuration", "draw_configuration"]

SAMPLES = 8
VECTORS = 3
MAX_PRODUCTS = 64
MAX_WEIGHTS = 4000
NARROW_BITS = 4
"""Weights of at most so many bits where two products share a multiplier."""
MAX_INPUTS = 1500

FAMILIES = {"chain": 0.42, "graph": 0.25, "1-D": 0.12, "linear": 0.15, "pointwise": 0.06}

ROUNDINGS = {
    Rounding.HALF_UP: 0.25,
    Rounding.FLOOR: 0.1,
    Rounding.HALF_AWAY: 0.15,
    Rounding.HALF_EVEN: 0.12,
    Rounding.TFLITE_SINGLE: 0.08,
    Rounding.TFLITE_DOUBLE: 0.15,
    Rounding.THRESHOLDS: 0.15,
}

KEEPS = (0.0, 1e-9, 0.03, 0.1, 0.25, 0.5, 0.9, 1.0)
"""Fractions of weights that stay; 0: none, next to 0: one."""

SHARED = 0.2
"""Configurations whose lanes share multipliers."""

IN_SPRAM = 0.1
"""Configurations whose weights and indices lie in SPRAM."""

LARGEST = 0.2
"""Configurations whose output is the number of the largest result, of those that end in a vector."""

UNIFIED = (Grid.ZERO_EXCLUDED, Grid.SYMMETRIC, Grid.TERNARY)
"""Grids on which every magnitude has both signs, or none."""

STRUCTURES = {
    "nonstructured": 0.4,
    "ends": 0.1,
    "column": 0.1,
    "filter": 0.04,
    "channel": 0.04,
    "kernel": 0.06,
    "vector": 0.06,
    "block": 0.06,
    "pattern": 0.06,
    "nm": 0.04,
    "bank_balanced": 0.04,
}


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


class Counts:
    """Names of layers as :func:`zeroskip.compiler.synthetic.build_model` gives them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def next(self, spec: Spec) -> str:
        """Return the name of the next layer."""
        stem = LAYER_NAMES[spec.kind]
        self._numbers[stem] = self._numbers.get(stem, 0) + 1
        return f"{stem}{self._numbers[stem]}"


def draw_configuration(seed: int, index: int) -> Configuration:
    """Return configuration ``index`` of ``seed``; it depends on nothing else."""
    rng = np.random.default_rng((seed, index, 0))
    family = str(rng.choice(list(FAMILIES), p=list(FAMILIES.values())))
    geometry = _draw_geometry(rng)
    network = _Network(rng, family, narrow="paired_products" in geometry)
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


class _Network:
    """A network while it is drawn: its layers, the shapes of their outputs and which of them nobody reads yet."""

    def __init__(self, rng: np.random.Generator, family: str, narrow: bool) -> None:
        self.rng = rng
        self.narrow = narrow
        self.family = family
        self.specs: list[Spec] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.unread: list[str] = []
        self.joined: set[str] = set()
        self.foreign: set[str] = set()
        self.counts = Counts()
        self.power_of_two = bool(rng.random() < 0.15)
        self.per_channel = float(rng.choice([0.0, 0.5, 1.0]))
        self.block = self._number(2, 4)
        self.rounding = self._rounding()
        self.source = self._source()
        self.shapes["input"] = self.source.shape
        self.unread.append("input")

    def draw(self) -> None:
        """Draw the layers."""
        if self.family == "linear":
            self._vectors()
        elif self.family == "graph":
            self._graph()
        else:
            self._chain()

    # numbers

    def _maybe(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _number(self, low: int, high: int) -> int:
        """Return a number from ``low`` to ``high``, both included."""
        return int(self.rng.integers(low, high + 1))

    def _rounding(self) -> Rounding:
        return list(ROUNDINGS)[int(self.rng.choice(len(ROUNDINGS), p=list(ROUNDINGS.values())))]

    def _codes(self) -> dict[str, Any]:
        """Return bits, signedness and zero point of a tensor."""
        bits = 8 if self._maybe(0.6) else self._number(1, 8)
        signed = self._maybe(0.4)
        tensor = Tensor("", (1,), bits, signed)
        zero_point = self._number(tensor.lo, tensor.hi) if self._maybe(0.4) else 0
        return {"bits": bits, "signed": signed, "zero_point": zero_point}

    def _source(self) -> Tensor:
        if self.family == "linear":
            size = self._number(1, 40) if self._maybe(0.6) else self._number(40, 300)
            shape: tuple[int, ...] = (size,)
            if self._maybe(0.2):
                shape = (self._number(1, 4), self._number(1, 5), self._number(1, 5))
        elif self.family == "1-D":
            shape = (self._number(1, 4), 1, self._number(3, 40))
        elif self.family == "pointwise":
            shape = (self._number(1, 24), *self.rng.choice([(1, 1), (1, 2), (2, 2), (3, 1)]).tolist())
        else:
            shape = (self._number(1, 5), self._number(1, 12), self._number(1, 12))
        return Tensor("input", shape, scale=1 / 64, **self._codes())

    def _numbers(self) -> dict[str, Any]:
        """Return the fields of a layer with weights that say how its numbers are drawn."""
        grid = Grid(self.rng.choice([g.value for g in Grid], p=[0.2, 0.15, 0.35, 0.08, 0.1, 0.12]))
        if self.narrow and grid is Grid.CODEBOOK:
            grid = Grid.SIGNED
        most = NARROW_BITS if self.narrow else 8
        bits = {Grid.BINARY: 1, Grid.TERNARY: 2}.get(grid, self._number(2 if grid is Grid.SYMMETRIC else 1, most))
        options: dict[str, Any] = {"grid": grid, "bits": bits, "structure": "dense"}
        if self._maybe(0.75) and grid is not Grid.BINARY:
            options["structure"] = str(self.rng.choice(list(STRUCTURES), p=list(STRUCTURES.values())))
            options["keep"] = float(self.rng.choice(KEEPS))
        codes = self._codes()
        return options | {
            "out_bits": codes["bits"],
            "out_signed": codes["signed"],
            "out_zero_point": codes["zero_point"],
            "relu": self._maybe(0.6),
            "rounding": self.rounding if self._maybe(0.7) else self._rounding(),
            "power_of_two": self.power_of_two or self._maybe(0.05),
            "per_channel": self._maybe(self.per_channel),
            "varied_scales": self._maybe(0.25),
        }

    def _detailed(self, spec: Spec, columns: int) -> Spec:
        """Add what the structure of a layer with ``columns`` weights a row has to say; fall back where it cannot be."""
        area = spec.kernel[0] * spec.kernel[1]
        if spec.structure == "vector":
            return replace(spec, detail={"axis": "input" if self._maybe(0.8) else "output", "size": self.block})
        if spec.structure == "block":
            return replace(spec, detail={"rows": self._number(1, 3), "columns": self.block})
        if spec.structure == "pattern" and spec.kind is Kind.CONV2D:
            patterns = [
                sorted(self.rng.permutation(area)[: self._number(1, area)].tolist()) for _ in range(self._number(1, 4))
            ]
            return replace(spec, detail={"patterns": patterns})
        if spec.structure == "nm":
            m = int(self.rng.choice([2, 4, 8]))
            return replace(spec, detail={"n": self._number(1, m), "m": m})
        if spec.structure == "bank_balanced":
            banks = int(self.rng.choice([count for count in range(1, 9) if columns % count == 0]))
            return replace(spec, detail={"banks": banks})
        return replace(spec, structure="nonstructured") if spec.structure == "pattern" else spec

    def _empty(self, spec: Spec) -> Spec:
        """Take all weights of some rows, or of all."""
        if spec.grid is Grid.BINARY:
            return spec
        if spec.keep == 0 and spec.structure != "dense":
            return replace(spec, keep=1e-9, empty_rows=tuple(range(spec.out)))
        if self._maybe(0.2):
            rows = self.rng.permutation(spec.out)[: self._number(1, spec.out)]
            return replace(spec, empty_rows=tuple(sorted(rows.tolist())))
        return spec

    # layers

    def _append(self, spec: Spec, source: str) -> str | None:
        """Append a layer that reads ``source`` when its window fits and it is small enough; return its name."""
        shapes = [self.shapes[name] for name in spec.inputs or (source,)]
        blank = Layer("", spec.kind, ("",), "", kernel=spec.kernel, stride=spec.stride, padding=spec.padding)
        blank = replace(blank, dilation=spec.dilation)
        if spec.kind in (Kind.CONV2D, Kind.MAX_POOL2D, Kind.AVG_POOL2D):
            passing = replace(blank, kind=Kind.MAX_POOL2D)
            shape: tuple[int, ...] = (spec.out or shapes[0][0], *output_shape(passing, shapes[0])[1:])
            windows = [d * (k - 1) + 1 for k, d in zip(spec.kernel, spec.dilation, strict=True)]
            edges = [max(spec.padding[axis], spec.padding[axis + 2]) for axis in range(2)]
            if min(shape) < 1 or any(edge >= window for edge, window in zip(edges, windows, strict=True)):
                return None
        elif spec.kind is Kind.LINEAR:
            shape = (spec.out,)
        else:
            shape = output_shape(blank, *shapes) if spec.kind is Kind.CONCAT else shapes[0]
        inputs = spec.inputs or (source,)
        spec = replace(spec, inputs=inputs)
        name = self.counts.next(spec)
        self.specs.append(spec)
        self.shapes[name] = shape
        self.unread = [other for other in self.unread if other not in inputs] + [name]
        # a pooling passes the codes of its input through
        if spec.kind in (Kind.MAX_POOL2D, Kind.AVG_POOL2D) and self.foreign.intersection(inputs):
            self.foreign.add(name)
        return name

    def _geometry(self, source: str) -> dict[str, Any]:
        """Return kernel, stride, padding and dilation."""
        rows, columns = self.shapes[source][1:]

        def pair(*choices: int) -> tuple[int, int]:
            y, x = (int(self.rng.choice(choices)) for _ in range(2))
            return (1 if self.family == "1-D" else y), x

        kernel = (1, 1) if self._maybe(0.15) else pair(1, 2, 3, 3, 3, 5)
        stride = pair(1, 2, 3) if self._maybe(0.3) else (1, 1)
        dilation = pair(1, 2, 3) if self._maybe(0.2) else (1, 1)
        windows = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        padding = (0, 0, 0, 0)
        if self._maybe(0.6) or windows[0] > rows or windows[1] > columns:
            sizes = (windows[0], windows[1], windows[0], windows[1])
            drawn = [self._number(0, size - 1) for size in sizes]
            if self._maybe(0.5):
                drawn = [(size - 1) // 2 for size in sizes]
            padding = (drawn[0], drawn[1], drawn[2], drawn[3])
        return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}

    def _convolution(self, source: str, *, same: bool = False, **options: Any) -> str | None:
        channels = self.shapes[source][0]
        geometry = self._geometry(source)
        if same:
            size = (1, 3) if self.family == "1-D" else (int(self.rng.choice([1, 3])), int(self.rng.choice([1, 3])))
            border: Padding = (size[0] // 2, size[1] // 2, size[0] // 2, size[1] // 2)
            geometry = {"kernel": size, "stride": (1, 1), "padding": border, "dilation": (1, 1)}
        out, groups = self._number(1, 12), 1
        kind = self.rng.random()
        if kind < 0.2:
            groups = channels
            out = channels * (self._number(1, 2) if self._maybe(0.2) else 1)
        elif kind < 0.3:
            groups = int(self.rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
            out = groups * self._number(1, 3)
        kernel = geometry["kernel"]
        if out * channels // groups * kernel[0] * kernel[1] > MAX_WEIGHTS or out > 40:
            return None
        spec = conv(out, **geometry, groups=groups, **{**self._numbers(), **options})
        spec = self._detailed(spec, channels // groups * kernel[0] * kernel[1])
        return self._append(self._empty(spec), source)

    def _plain(self, out: int, **options: Any) -> Spec:
        """Return a convolution that fits everywhere."""
        return conv(out, 1, **{**self._numbers(), "structure": "dense", **options})

    def _pooling(self, source: str) -> str | None:
        rows, columns = self.shapes[source][1:]
        kernel = (1 if self.family == "1-D" else self._number(1, 3), self._number(1, 3))
        if self._maybe(0.15):
            kernel = (rows, columns)
        stride = kernel if self._maybe(0.6) else (self._number(1, 3), self._number(1, 3))
        if self._maybe(0.4):
            return self._append(avg_pool(kernel, stride), source)
        padding: Padding = (0, 0, 0, 0)
        if stride != kernel and self._maybe(0.4):
            edges = [self._number(0, size - 1) for size in (*kernel, *kernel)]
            padding = (edges[0], edges[1], edges[2], edges[3])
        return self._append(max_pool(kernel, stride, padding), source)

    def _linear(self, source: str, **options: Any) -> str | None:
        inputs = int(np.prod(self.shapes[source]))
        if inputs > MAX_INPUTS:
            return None
        out = self._number(1, 12) if self._maybe(0.6) else self._number(12, 80)
        out = max(1, min(out, MAX_WEIGHTS // inputs))
        spec = self._detailed(linear(out, **{**self._numbers(), **options}), inputs)
        return self._append(self._empty(spec), source)

    # families

    def _chain(self) -> None:
        """Convolutions and poolings, then up to two linear layers."""
        last = "input"
        for _ in range(self._number(1, 4)):
            draw = self._pooling if self._maybe(0.25) else self._convolution
            last = draw(last) or last
        linears = int(self.rng.choice([0, 1, 2], p=[0.35, 0.45, 0.2]))
        if not self.specs:
            linears = max(linears, 1)
        for _ in range(linears):
            last = self._linear(last) or last
        if not self.specs:
            self._append(self._plain(1), last)

    def _vectors(self) -> None:
        """Linear layers; sometimes two side by side whose outputs are joined."""
        last = "input"
        for _ in range(self._number(1, 3)):
            last = self._linear(last) or last
        if self._maybe(0.25):
            codes = self._joinable()
            parts = [self._linear(last, **codes), self._linear(last, **codes)]
            names = [name for name in parts if name is not None]
            last = self._append(concat(*names), last) or last if len(names) == 2 else last
            self._linear(last)

    def _joinable(self) -> dict[str, Any]:
        """Return options that give layers outputs of one code, so that they can be concatenated."""
        codes = self._codes()
        return {
            "out_bits": codes["bits"],
            "out_signed": codes["signed"],
            "out_zero_point": codes["zero_point"],
            "out_scale": 1 / 64,
        }

    def _graph(self) -> None:
        """Branches that are added and concatenated."""
        codes = self._joinable() if self._maybe(0.6) else None
        source = self.source
        if codes is None:
            codes = {
                "out_bits": source.bits,
                "out_signed": source.signed,
                "out_zero_point": source.zero_point,
                "out_scale": source.scale,
            }
        else:
            self.foreign.add("input")
        for _ in range(self._number(2, 6)):
            names = sorted(self.shapes)
            before = str(self.rng.choice(self.unread if self._maybe(0.6) else names))
            choice = self.rng.random()
            if choice < 0.3 and self._addition(before, codes):
                continue
            if choice < 0.45 and self._concatenation(before):
                continue
            if choice < 0.6:
                self._pooling(before)
            else:
                self._convolution(before, same=self._maybe(0.6), **codes)
        self._close(codes)

    def _addition(self, before: str, codes: Mapping[str, Any]) -> bool:
        shape = self.shapes[before]
        partners = [name for name in sorted(self.shapes) if self.shapes[name] == shape and name != before]
        if not partners:
            return False
        numbers = self._numbers()
        kept = ("rounding", "power_of_two", "relu")
        shift = self._number(0, 12) if self._maybe(0.5) else 0
        if numbers["rounding"] is Rounding.THRESHOLDS:
            numbers["rounding"] = Rounding.HALF_UP
        spec = add(before, str(self.rng.choice(partners)), left_shift=shift, **{k: numbers[k] for k in kept}, **codes)
        return self._append(spec, before) is not None

    def _concatenation(self, before: str) -> bool:
        """Join maps of equal size and code that no other concatenation holds."""
        size = self.shapes[before][1:]
        held = self.joined | self.foreign
        free = [name for name in sorted(self.shapes) if self.shapes[name][1:] == size and name not in held]
        if before in held or len(free) < 2:
            return False
        others = self.rng.permutation([name for name in free if name != before]).tolist()
        names = (before, *others[: self._number(1, 2)])
        self.joined.update(names)
        return self._append(concat(*names), before) is not None

    def _close(self, codes: Mapping[str, Any]) -> None:
        """Bring every map that nobody reads to one element a channel, join them, and end with a layer."""
        open_ends = [name for name in self.unread if name != "input"] or ["input"]
        if len(open_ends) > 1:
            ends = []
            for name in open_ends:
                rows, columns = self.shapes[name][1:]
                if name in self.foreign:
                    name = self._append(self._plain(2, **codes), name) or name
                ends.append(self._append(max_pool((rows, columns)), name) or name)
            self._append(concat(*ends), ends[0])
            open_ends = [self.unread[-1]]
        last = open_ends[0]
        if self._maybe(0.5):
            last = self._linear(last) or last
        if last == open_ends[0]:
            self._convolution(last, same=True) or self._append(self._plain(1), last)
