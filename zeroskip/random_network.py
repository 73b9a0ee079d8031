"""Random networks for the soak test: layers, their geometries, numbers and structures of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from zeroskip.compiler.ir import Grid, Kind, Layer, Rounding, Tensor
from zeroskip.compiler.shapes import output_shape
from zeroskip.compiler.synthetic import LAYER_NAMES, Padding, Spec, add, avg_pool, concat, conv, linear, max_pool

__all__ = ["FAMILIES", "KEEPS", "STRUCTURES", "Counts", "RandomNetwork"]

MAX_WEIGHTS = 4000
MAX_INPUTS = 1500
NARROW_BITS = 4
"""Weights of at most so many bits where two products share a multiplier."""

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


class Counts:
    """Names of layers as :func:`zeroskip.compiler.synthetic.build_model` gives them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def next(self, spec: Spec) -> str:
        """Return the name of the next layer."""
        stem = LAYER_NAMES[spec.kind]
        self._numbers[stem] = self._numbers.get(stem, 0) + 1
        return f"{stem}{self._numbers[stem]}"


class RandomNetwork:
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
