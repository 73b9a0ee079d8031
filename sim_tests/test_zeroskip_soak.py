"""The soak test: what it draws, what it finds, and a few configurations of it."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner

from zeroskip import soak
from zeroskip.compiler import reference
from zeroskip.compiler.ir import Grid, Kind, Rounding
from zeroskip.compiler.target import Format
from zeroskip.configurations import Configuration, draw_configuration

SEED = 11
DRAWN = 300


@pytest.fixture(scope="module")
def drawn() -> list[Configuration]:
    """As many configurations as the features are counted in."""
    return [draw_configuration(SEED, index) for index in range(DRAWN)]


@pytest.fixture(scope="module")
def programs(drawn):
    """What the compiler made of each of them, or why it refused."""
    results = []
    for configuration in drawn:
        try:
            results.append(soak.compile_configuration(configuration))
        except soak.Refused as refusal:
            results.append(str(refusal))
    return results


def test_configuration_depends_on_seed_and_index_alone(drawn):
    again = draw_configuration(SEED, 7)
    assert again == drawn[7]
    np.testing.assert_array_equal(again.model.golden["output"], drawn[7].model.golden["output"])
    assert draw_configuration(SEED + 1, 7) != drawn[7]


def test_every_feature_is_drawn(drawn):
    specs = [spec for configuration in drawn for spec in configuration.specs]
    weighted = [spec for spec in specs if spec.kind in (Kind.CONV2D, Kind.LINEAR)]
    windowed = [spec for spec in specs if spec.kind is Kind.CONV2D]
    assert {spec.kind for spec in specs} == set(Kind)
    assert {spec.grid for spec in weighted} == set(Grid)
    assert {spec.rounding for spec in weighted} == set(Rounding)
    assert {spec.bits for spec in weighted} == set(range(1, 9))
    assert {configuration.family for configuration in drawn} == {"chain", "graph", "1-D", "linear", "pointwise"}
    features = {
        "stride": any(max(spec.stride) > 1 for spec in windowed),
        "dilation": any(max(spec.dilation) > 1 for spec in windowed),
        "padding": any(len(set(spec.padding)) > 1 for spec in windowed),
        "padded pooling": any(spec.kind is Kind.MAX_POOL2D and any(spec.padding) for spec in specs),
        "overlapping pooling": any(spec.kind is Kind.MAX_POOL2D and spec.kernel != spec.stride for spec in specs),
        "groups": any(1 < spec.groups < spec.out for spec in windowed),
        "depthwise": any(1 < spec.groups == spec.out for spec in windowed),
        "signed": any(spec.out_signed for spec in weighted),
        "zero point": any(spec.out_zero_point for spec in weighted),
        "empty layer": any(len(spec.empty_rows) == spec.out for spec in weighted),
        "empty row": any(0 < len(spec.empty_rows) < spec.out for spec in weighted),
        "one weight": any(spec.keep == 1e-9 and not spec.empty_rows for spec in weighted),
        "widest gap": any(spec.structure == "ends" for spec in weighted),
        "power of two": any(spec.power_of_two for spec in weighted),
        "varied scales of two steps": any(
            spec.varied_scales and spec.rounding is Rounding.TFLITE_DOUBLE for spec in weighted
        ),
        "thresholds beside scales": any(
            0 < sum(spec.rounding is Rounding.THRESHOLDS for spec in configuration.specs) < len(configuration.specs)
            for configuration in drawn
        ),
        "thresholds of all widths": {spec.out_bits for spec in weighted if spec.rounding is Rounding.THRESHOLDS}
        == set(range(1, 9)),
        "one scale": any(not spec.per_channel for spec in weighted),
        "varied scales": any(spec.varied_scales for spec in weighted),
        "one output": any(spec.out == 1 for spec in weighted),
        "stalls": any(configuration.stalls for configuration in drawn),
        "index bits": any(configuration.index_bits for configuration in drawn),
        "products in logic": any(configuration.geometry.get("logic_products") for configuration in drawn),
        "vectors over the banks": any("banked_vectors" in configuration.geometry for configuration in drawn),
        "paired products": any("paired_products" in configuration.geometry for configuration in drawn),
        "shared multipliers": any("sign_adds" in configuration.geometry for configuration in drawn),
        "micro-blocks": any(spec.structure == "micro_block" for spec in weighted),
        "parameters in SPRAM": any(configuration.spram for configuration in drawn),
        "no passes": any(not configuration.passes for configuration in drawn),
    }
    assert [name for name, found in features.items() if not found] == []
    for size, least in (("lanes", 4), ("columns", 8), ("cores", 5), ("results", 5)):
        assert len({configuration.geometry.get(size) for configuration in drawn}) >= least, size


def test_most_are_compiled_and_every_format_is_used(programs):
    refused = Counter(reason for reason in programs if isinstance(reason, str))
    assert refused.total() < DRAWN // 4
    compiled = [program for program in programs if not isinstance(program, str)]
    assert {plan.format for program in compiled for plan in program.layers} == set(Format)


def test_compiled_networks_compute_the_same(drawn, programs):
    for configuration, program in zip(drawn, programs, strict=True):
        if isinstance(program, str):
            continue
        model = configuration.model
        outputs = reference.run(program.model, model.golden[model.input])[program.model.output]
        np.testing.assert_array_equal(outputs, model.golden[model.output], err_msg=configuration.describe())


@pytest.mark.slow
def test_configurations_pass():
    tally, left = soak.run_soak(SEED, count=8, jobs=2)
    assert tally.failed == []
    assert tally.passed >= 5 and tally.values > 0 and tally.cycles_compared > 0
    assert left is None
    assert sum(count for name, count in tally.features.items() if name.startswith("family: ")) == tally.passed


def test_failure_names_its_command(monkeypatch, tmp_path):
    def broken(configuration):
        raise RuntimeError("lowering is broken")

    monkeypatch.setattr(soak, "compile_configuration", broken)
    outcome = soak.check_configuration(SEED, 3, tmp_path)
    assert re.fullmatch(r"RuntimeError at test_zeroskip_soak.py:\d+: lowering is broken", outcome.failure)
    tally = soak.Tally()
    tally.add(outcome)
    assert tally.text(SEED).splitlines()[-1] == f"failed: python -m zeroskip.soak --seed {SEED} --first 3 --count 1"


def test_log_is_gone_on_with_and_failures_are_repeated(monkeypatch, tmp_path):
    log = tmp_path / "soak.jsonl"
    rows = [
        (SEED, soak.Outcome(0, "first", 1.5, values=7, cycles_compared=True, features=("lanes: 4",))),
        (SEED, soak.Outcome(1, "second", 0.5, refused="Layer 'fc1' is refused")),
        (SEED, soak.Outcome(2, "third", 1.0, failure="once wrong")),
        (SEED + 1, soak.Outcome(3, "of another seed", 1.0)),
        (SEED, soak.Outcome(9, "outside", 1.0)),
    ]
    for seed, outcome in rows:
        soak._append(log, seed, outcome)
    log.write_text(log.read_text() + '{"seed": 1')
    tally, left = soak.run_soak(SEED, count=2, log=log)
    assert (tally.done, tally.passed, tally.values, left) == (2, 1, 7, None)
    head = "2 configurations in 2 s: 1 passed, 1 refused, 0 failed; 7 values equal the reference"
    assert tally.text(SEED).startswith(head)
    assert tally.features == Counter(["lanes: 4"])

    class Pool:
        def __init__(self, *arguments, **options):
            pass

        def submit(self, function, seed, index, keep):
            future = soak.Future()
            future.set_result(soak.Outcome(index, "again", 1.0))
            return future

        def shutdown(self, **options):
            pass

    monkeypatch.setattr(soak, "ProcessPoolExecutor", Pool)
    tally, left = soak.run_soak(SEED, first=2, minutes=0, count=None, log=log)
    assert (tally.done, left) == (1, 2)  # number 9; those before 2 are not asked for
    lines: list[str] = []
    tally, left = soak.run_soak(SEED, count=4, log=log, report=lines.append)
    assert [line.split(": ")[0].split("] ")[1] for line in lines] == ["2", "3"]
    assert [line[:5] for line in lines] == ["[3/4,", "[4/4,"]
    assert (tally.passed, tally.failed, left) == (3, [], None)


def test_refusals_are_counted_by_reason():
    tally = soak.Tally()
    for layer in ("conv1", "conv22"):
        tally.add(soak.Outcome(0, "", 1.0, refused=f"Layer '{layer}' averages 9 elements"))
    assert tally.text(SEED).splitlines()[1] == "refused 2 times: Layer ... averages N elements"


def test_time_over_says_where_to_go_on():
    result = CliRunner().invoke(soak.main, ["--minutes", "0", "--first", "5"])
    assert result.exit_code == 0
    assert "0 configurations in 0 s: 0 passed, 0 refused, 0 failed" in result.output
    assert "go on with: python -m zeroskip.soak --seed 0 --first 5" in result.output
