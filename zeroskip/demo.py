"""The demo: one small network pruned three ways at equal accuracy, taken all the way to placed and routed designs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroskip import api
from zeroskip.disk import require_space
from zeroskip.report import Column, board_text, comparison_table, render, result_rows

__all__ = ["run_demo"]

KINDS = ("dense", "column", "nonstructured")
ENGINE = {"dense": "dense", "column": "dense", "nonstructured": "sparse"}
LANES = 4
"""The same four multipliers for every design."""

BOARD = "ulx3s-25f"
SMALL_BOARD = "icebreaker"
FULL_SEEDS = 5
DISK_MB = 500

FIRST_TABLE = (
    Column("errors of {n}", "errors", "low"),
    Column("weights kept", "kept", "low"),
    Column("bits: weights", "value", "low"),
    Column("index", "index", "low"),
    Column("filler", "filler", "low"),
    Column("tables", "tables", "low"),
    Column("padding", "padding", "low"),
    Column("total", "storage", "low"),
    Column("cycles", "cycles", "low"),
    Column("utilization", "utilization", "high", "{:.3f}"),
)
SECOND_TABLE = (
    Column("LUT", "lut", "low"),
    Column("FF", "ff", "low"),
    Column("BRAM", "bram", "low"),
    Column("DSP", "dsp", "low"),
    Column("Fmax MHz", "fmax", "high", "{:.1f}"),
    Column("cycles", "cycles", "low"),
    Column("latency us", "latency", "low", "{:.1f}"),
    Column("inferences/s", "throughput", "high", "{:,.0f}"),
)


@dataclass(frozen=True)
class Candidate:
    """One way of pruning: its artifact, its design and what training measured."""

    kind: str
    design: api.Design
    errors: int
    samples: int
    kept: int


class Steps:
    """Numbered progress lines with elapsed and expected time."""

    def __init__(self, total: int, quiet: bool) -> None:
        self.total = total
        self.quiet = quiet
        self.number = 0
        self.started = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line to stderr."""
        if not self.quiet:
            # one write a line: designs are built side by side
            sys.stderr.write(f"[{time.monotonic() - self.started:5.0f} s] {line}\n")
            sys.stderr.flush()

    def told_by(self, kind: str) -> Callable[[str], None]:
        """Return a :meth:`say` that names the design."""
        return lambda line: self.say(f"  {kind}: {line}")

    def next(self, title: str, expected: float) -> None:
        """Announce the next step and how long it usually takes."""
        self.number += 1
        self.say(f"[{self.number}/{self.total}] {title} (expected {expected:.0f} s when not finished before)")


def run_demo(
    out: Path, *, full: bool = False, jobs: int = 2, seed: int | None = None, quiet: bool = False, show: bool = True
) -> dict[str, Any]:
    """Run the demo into ``out`` and return its results; finished steps are reused.

    Parameters
    ----------
    out : folder
    full : both boards and five seeds for every design
    jobs : place-and-route processes at a time
    seed : the training seed (0 is the one of the recipes)
    quiet : no progress lines
    show : print tables and verdict to stdout
    """
    require_space(out, DISK_MB)
    show_line: Callable[[str], None] = print if show else (lambda line: None)
    steps = Steps(4, quiet)
    steps.next("train, prune with ADMM and quantize three ways", 60)
    candidates = [_compile(built, out) for built in _train(out, steps, seed)]
    steps.next("simulate every layer of every design and compare", 40)
    values = [_simulate(candidate, steps) for candidate in candidates]
    show_line(_first_table(candidates))
    steps.next("synthesize, check the mapped netlist, place and route", 360)
    builds = _synthesize(candidates, full, jobs, steps)
    steps.next("compare", 1)
    result = _result(candidates, builds, sum(values))
    for line in _second_part(candidates, builds, result, full):
        show_line(line)
    show_line(
        f"files: {out}/<kind>/ holds report/, rom/, rtl/, synth/<board>/; a page: zeroskip report --html {out}/column"
    )
    return result


def _train(out: Path, steps: Steps, seed: int | None) -> Sequence[Any]:
    from zeroskip.pruning.demo import train_digits

    if seed not in (None, 0):
        steps.say("the demo's recipes are trained with seed 0; --seed is for zeroskip prune")
    last = [0.0]

    def progress(step: str, elapsed: float, expected: float | None) -> None:
        if elapsed - last[0] > 3 or expected is None:
            last[0] = elapsed
            steps.say(f"  {step}" + ("" if expected is None else f" ({elapsed:.0f} of about {expected:.0f} s)"))

    return train_digits(out / "artifacts", progress)


def _compile(built: Any, out: Path) -> Candidate:
    kind = next(kind for kind in KINDS if f"-{kind}-" in built.path.name)
    settings = {"lanes": str(LANES)}
    if ENGINE[kind] == "dense":
        settings["columns"] = "1"
    folder = out / kind
    design = api.reuse(built.path, folder, settings) or api.compile(built.path, folder, ENGINE[kind], settings=settings)
    header = built.header
    samples = header["accuracy"]["samples"]
    kept = sum(plan.layer.nonzero for plan in design.program.layers)
    return Candidate(kind, design, samples - header["samples_correct"]["integer"], samples, kept)


def _simulate(candidate: Candidate, steps: Steps) -> int:
    if candidate.design.is_simulated():
        steps.say(f"  {candidate.kind}: simulated before, reused")
        return int(candidate.design.report()["rtl_values"])
    result = candidate.design.simulate().check()
    steps.say(f"  {candidate.kind}: {result.values_compared:,} values of every layer compared, 0 differ")
    return result.values_compared


def _first_table(candidates: Sequence[Candidate]) -> str:
    rows = []
    for candidate in candidates:
        row = result_rows(candidate.design.report())
        row["tables"] = sum(row[key] for key in ("row_end", "tap_table", "bias", "requantize"))
        rows.append((candidate.kind, {**row, "errors": candidate.errors, "kept": candidate.kept}))
    from zeroskip.pruning.demo import ERROR_TOLERANCE

    columns = [Column(c.title.format(n=candidates[0].samples), c.key, c.better, c.form) for c in FIRST_TABLE]
    title = (
        f"4-bit weights, 8-bit activations, one training seed; equal accuracy: within {ERROR_TOLERANCE} errors of dense"
    )
    return render(comparison_table(title, rows, columns), width=140)


def _smallest(candidates: Sequence[Candidate]) -> Candidate:
    return min(candidates, key=lambda candidate: result_rows(candidate.design.report())["storage"])


def _synthesize(candidates: Sequence[Candidate], full: bool, jobs: int, steps: Steps) -> dict[tuple[str, str], Any]:
    work = [(candidate, BOARD) for candidate in candidates]
    work += [(candidate, SMALL_BOARD) for candidate in (candidates if full else [_smallest(candidates)])]
    # several designs side by side keep the cores busier than several seeds of one
    with ThreadPoolExecutor(max_workers=max(1, min(jobs, len(work)))) as pool:
        futures = {
            (candidate.kind, board): pool.submit(
                candidate.design.synthesize,
                board,
                FULL_SEEDS if full else 1,
                jobs=1,
                progress=steps.told_by(candidate.kind),
            )
            for candidate, board in work
        }
        results = {key: future.result() for key, future in futures.items()}
    return {key: result.check for key, result in results.items()}


def _result(candidates: Sequence[Candidate], builds: Mapping[tuple[str, str], Any], rtl_values: int) -> dict[str, Any]:
    designs = []
    for candidate in candidates:
        boards = {board: candidate.design.report(board) for kind, board in builds if kind == candidate.kind}
        designs.append(
            {
                "kind": candidate.kind,
                "errors": candidate.errors,
                "samples": candidate.samples,
                "kept": candidate.kept,
                "folder": str(candidate.design.directory),
                "boards": boards,
            }
        )
    differ = sum(candidate.design.report()["accuracy"]["rtl_mismatches"] for candidate in candidates)
    differ += sum(check.mismatches for check in builds.values())
    netlist = sum(check.values for check in builds.values())
    return {"designs": designs, "values": {"rtl": rtl_values, "netlist": netlist, "differ": differ}}


def _second_part(
    candidates: Sequence[Candidate], builds: Mapping[tuple[str, str], Any], result: Mapping[str, Any], full: bool
) -> list[str]:
    """Return the second table, the exactness line and the verdict."""
    rows = {kind: result_rows(result_of(result, kind)["boards"][BOARD]) for kind in KINDS}
    seeds = f"median of {FULL_SEEDS} seeds" if full else "one place-and-route seed"
    title = f"Placed and routed on {BOARD} (ECP5 LFE5U-25F, speed 6), {seeds}, netlists checked"
    lines = [render(comparison_table(title, list(rows.items()), SECOND_TABLE), width=140)]
    for kind, board in builds:
        if board != BOARD:
            lines.append(f"{kind} on " + board_text(board, result_of(result, kind)["boards"][board]))
    values = result["values"]
    lines.append(
        f"PyTorch = integer = RTL = netlist: {values['rtl'] + values['netlist']:,} values "
        f"({values['rtl']:,} in RTL, {values['netlist']:,} in mapped netlists), {values['differ']} differ"
    )
    lines.append(_verdict(rows, candidates))
    return lines


def result_of(result: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return the entry of one kind of pruning."""
    found: Mapping[str, Any] = next(entry for entry in result["designs"] if entry["kind"] == kind)
    return found


def _verdict(rows: Mapping[str, Mapping[str, Any]], candidates: Sequence[Candidate]) -> str:
    """Return one sentence: what sparsity and its structure changed, in measured ratios."""
    column, sparse, dense = rows["column"], rows["nonstructured"], rows["dense"]
    kept = {candidate.kind: candidate.kept for candidate in candidates}

    def ratio(a: float, b: float) -> str:
        return f"{a / b:.2f}x"

    faster = "non-structured" if sparse["throughput"] > column["throughput"] else "column"
    leaner = "non-structured" if sparse["lut"] < column["lut"] else "column"
    speeds = [ratio(row["throughput"], dense["throughput"]) for row in (sparse, column)]
    bits = [ratio(row["storage"], dense["storage"]) for row in (sparse, column)]
    luts = [ratio(row["lut"], dense["lut"]) for row in (sparse, column)]
    return (
        f"verdict (one seed): at equal accuracy non-structured pruning keeps {kept['nonstructured']:,} weights "
        f"and column pruning {kept['column']:,} of {kept['dense']:,}; against dense they run {speeds[0]} and "
        f"{speeds[1]} as fast with {bits[0]} and {bits[1]} of the bits and {luts[0]} and {luts[1]} of the LUTs: "
        f"{faster} wins on speed, {leaner} on logic."
    )
