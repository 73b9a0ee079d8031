"""Recipes and the chain: parsing, stages that resume with the same bytes, reuse, the demo's rule of equal accuracy."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from constraint_sets import EVERY_SET
from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.compiler.inspect import describe
from zeroskip.pruning import Column, NonStructured, PruningError, build_artifact, prune
from zeroskip.pruning.chain import Built
from zeroskip.pruning.constraints.kinds import as_values
from zeroskip.pruning.data import ImageSet, load_digits
from zeroskip.pruning.demo import DIGITS_RECIPES, equal_accuracy
from zeroskip.pruning.networks import make_network
from zeroskip.pruning.recipe import Method
from zeroskip.pruning.recipe_files import builtin_recipes, load_recipe
from zeroskip.pruning.recipe_tables import parse_recipe
from zeroskip.pruning.toml import to_toml
from zeroskip.pruning.training import Phase, accuracy


def values(**changes):
    base = {
        "name": "tiny", "network": "digits_cnn", "dataset": "digits", "threads": 1, "batch": 64,
        "input": {"range": 16, "std": 0.5},
        "dense": {"epochs": 6, "lr": [8e-3, 1e-3]},
        "stages": [
            {
                "name": "half", "updates_per_epoch": 2,
                "layers": {
                    "conv*": {"kind": "nonstructured", "keep": 0.5}, "fc1": {"kind": "column", "keep": 8, "group": 4},
                },
                "admm": {"epochs": 2, "lr": [2e-3, 1e-3]}, "retrain": {"epochs": 2, "lr": [2e-3, 1e-3], "shift": 1},
            }
        ],
        "quantization": {"calibration": 100, "finetune": {"epochs": 2, "lr": [1e-3, 1e-4]}},
    }  # fmt: skip
    return base | changes


@pytest.fixture(scope="module")
def split():
    return load_digits()


def test_interrupted_run_resumes_with_the_same_bytes(tmp_path, split):
    layers = {
        "conv1": {"kind": "pattern", "keep": 6, "library": 3},
        "conv2": {"kind": "micro_block", "keep": 0.5, "mode": "both"},
        "fc1": {"kind": "joint", "structure": {"kind": "nm", "n": 2, "m": 4}, "levels": {"kind": "levels", "bits": 4}},
        "fc2": {"kind": "codebook", "k": 15},
    }  # fmt: skip
    recipe = parse_recipe(values(stages=[values()["stages"][0] | {"layers": layers}]))
    whole = build_artifact(recipe, tmp_path / "whole", split=split)

    class Interrupted(Exception):
        pass

    def interrupt(step, elapsed, expected):
        if step.startswith("finetune"):
            raise Interrupted

    with pytest.raises(Interrupted):
        build_artifact(recipe, tmp_path / "parts", checkpoints=tmp_path / "stages", progress=interrupt, split=split)
    assert not (tmp_path / "parts").exists()
    assert {p.name.rpartition("-")[0] for p in (tmp_path / "stages").iterdir()} == {"dense", "half"}
    steps = []
    parts = build_artifact(
        recipe, tmp_path / "parts", checkpoints=tmp_path / "stages", progress=lambda *a: steps.append(a[0]), split=split
    )
    assert steps[:2] == ["dense: reused", "half: reused"]
    assert whole.path.read_bytes() == parts.path.read_bytes()
    kinds = [layer["structure"]["kind"] for layer in whole.header["layers"] if "structure" in layer]
    assert kinds == ["pattern", "micro_block", "nm", "dense"]
    assert len(whole.header["layers"][0]["structure"]["patterns"]) == 3
    logs = [b.path.with_name("tiny.log.jsonl").read_bytes() for b in (whole, parts)]
    assert logs[0] == logs[1]
    phases = {json.loads(line)["phase"] for line in logs[0].splitlines()}
    assert phases == {
        "dense", "admm", "residual", "mapped", "mapping", "retrain", "goal", "calibrated", "finetune", "float",
        "integer",
    }  # fmt: skip
    # The test images are read at the end, and only there.
    read = [json.loads(line)["stage"] == "test" for line in logs[0].splitlines()]
    assert read[-2:] == [True, True] and not any(read[:-2])

    again = build_artifact(recipe, tmp_path / "parts", split=split)
    assert again.reused
    assert not build_artifact(replace(recipe, seed=1), tmp_path / "parts", split=split).reused


class Dropping(nn.Module):
    """A network with Dropout, which takes its random numbers from torch's global generator."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 24)
        self.fc2 = nn.Linear(24, 10)

    def forward(self, x):
        return self.fc2(nn.functional.dropout(torch.relu(self.fc1(x.flatten(1))), 0.5, self.training))


def two_stages(first, second):
    """Return a recipe of two short stages, each given as its layers."""
    stage = values()["stages"][0]
    stages = [stage | {"name": f"s{number}", "layers": layers} for number, layers in enumerate((first, second))]
    return parse_recipe(values(stages=stages, dense={"epochs": 2, "lr": [8e-3, 1e-3]}))


@pytest.mark.parametrize("stop", ["dense", "s0 admm", "s1 retrain", "finetune"])
def test_dropout_resumes_with_the_same_bytes(tmp_path, split, stop):
    recipe = two_stages(
        {"fc1": {"kind": "nonstructured", "keep": 0.3}}, {"fc1": {"kind": "nonstructured", "keep": 0.2}}
    )

    def run(**options):
        torch.manual_seed(0)
        return prune(Dropping(), split.train, split.validation, recipe, **options)

    class Interrupted(Exception):
        pass

    def interrupt(step, elapsed, expected):
        if step.startswith(stop):
            raise Interrupted

    whole = run().save(tmp_path / "whole.safetensors").read_bytes()
    with pytest.raises(Interrupted):
        run(checkpoints=tmp_path / "stages", progress=interrupt)
    random = torch.random.get_rng_state()
    assert run(checkpoints=tmp_path / "stages").save(tmp_path / "parts.safetensors").read_bytes() == whole
    torch.manual_seed(0)
    Dropping()
    assert torch.equal(random, torch.random.get_rng_state())


def test_layers_that_a_later_stage_leaves_out_stay_on_their_sets(tmp_path, split):
    recipe = two_stages(
        {
            "conv1": {"kind": "levels", "bits": 2, "grid": "ternary"},
            "conv2": {"kind": "column", "keep": 0.5, "group": 4},
        },
        {"fc1": {"kind": "codebook", "k": 5}, "fc2": {"kind": "micro_block", "mode": "unify"}},
    )
    torch.manual_seed(0)
    model = make_network("digits_cnn")
    net = prune(model, split.train, split.validation, recipe, checkpoints=tmp_path)
    assert len(model.conv1.weight.detach().abs().unique()) <= 2
    assert net.grids["conv1"].bits == 2
    assert len(model.fc1.weight.detach().unique()) <= 6
    assert net.structures["conv2"]["kind"] == "column"
    assert net.structures["fc2"]["kind"] == "micro_block"
    torch.manual_seed(0)
    again = prune(make_network("digits_cnn"), split.train, split.validation, recipe, checkpoints=tmp_path)
    assert again.save(tmp_path / "b.safetensors").read_bytes() == net.save(tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["oneshot", "gradual", "scratch"])
def test_controls_keep_earlier_sets_too(split, method):
    recipe = two_stages({"fc1": {"kind": "codebook", "k": 5}}, {"conv2": {"kind": "nonstructured", "keep": 0.5}})
    stages = (recipe.stages[0], replace(recipe.stages[1], method=Method(method)))
    torch.manual_seed(0)
    model = make_network("digits_cnn")
    prune(model, split.train, split.validation, replace(recipe, stages=stages))
    assert len(model.fc1.weight.detach().unique()) <= 6


def test_accuracies_are_of_the_test_samples_which_are_read_once_at_the_end(split, tmp_path):
    recipe = parse_recipe(values())
    part = ImageSet(split.test.x[:50], split.test.y[:50])
    torch.manual_seed(0)
    net = prune(
        make_network("digits_cnn"), split.train, split.validation, recipe, test=part, log=tmp_path / "log.jsonl"
    )
    shares = net.record.accuracy
    assert shares["samples"] == 50 and shares["integer"] == net.accuracy(part) != net.accuracy(split.validation)
    assert net.record.correct == {name: round(50 * shares[name]) for name in ("float", "integer")}
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    read = [number for number, line in enumerate(lines) if line["stage"] == "test"]
    assert read == [len(lines) - 2, len(lines) - 1]


def test_the_float_score_is_that_of_the_network_before_it_was_rounded(split):
    recipe = parse_recipe(values(quantization={"weights": 1, "finetune": {"epochs": 2, "lr": [1e-2, 1e-3]}}))
    plain = replace(recipe, quantization=replace(recipe.quantization, finetune=Phase(0, (1e-3, 1e-3))))
    found = []
    for one in (recipe, plain):
        torch.manual_seed(0)
        model = make_network("digits_cnn")
        found.append(prune(model, split.train, split.validation, one).record.accuracy["float"])
    assert found[0] == found[1] == accuracy(model.eval(), split.validation, plain.input)


def allocated(budget, **more):
    """Return the changes that let the recipe's stage share a budget."""
    layers = {"conv*": {"kind": "nonstructured", "keep": 1.0}, "fc1": {"kind": "nonstructured", "keep": 1.0}}
    return {"stages": [values()["stages"][0] | {"layers": layers, "allocation": {"budget": budget} | more}]}


def test_a_stage_shares_its_budget_among_the_layers_and_resumes_with_the_same_bytes(tmp_path, split):
    short = {"trials": 4, "retrain": {"epochs": 1, "lr": [1e-3, 1e-3]}, "samples": 128, "floor": 5}
    recipe = parse_recipe(values(**allocated({"macs": 9000}, **short)))
    steps = []
    whole = build_artifact(
        recipe, tmp_path / "a", checkpoints=tmp_path / "stages", progress=lambda *a: steps.append(a[0]), split=split
    )
    assert sum(step.startswith("half split ") for step in steps) == 4
    parts = build_artifact(recipe, tmp_path / "b", checkpoints=tmp_path / "stages", split=split)
    apart = build_artifact(recipe, tmp_path / "c", split=split)
    assert whole.path.read_bytes() == parts.path.read_bytes() == apart.path.read_bytes()
    text = whole.path.with_name("tiny.log.jsonl").read_bytes()
    assert text == parts.path.with_name("tiny.log.jsonl").read_bytes()
    lines = [json.loads(line) for line in text.splitlines()]
    (line,) = [line for line in lines if line["phase"] == "allocation"]
    assert line["budget"] == {"macs": 9000} and len([line for line in lines if line["phase"] == "split"]) == 4
    assert whole.header["provenance"]["allocation"] == {"half": line["keep"]}
    # The network's MACs are the compiler's: fc2 keeps all of its 320 weights.
    counted = describe(load_artifact(whole.path))
    kept = {row["name"]: row["kept"] for row in counted["layers"] if row["weights"]}
    assert kept == line["keep"] | {"fc2": 320} and min(kept.values()) >= 5
    assert counted["total"]["macs_nonzero"] == line["cost"] == 9000
    assert parse_recipe(tomllib.loads(to_toml(recipe.as_dict()))).digest() == recipe.digest()


def test_a_budget_of_bits_is_of_the_recipes_bits(tmp_path, split):
    kept = []
    for bits in (3, 8):
        changes = allocated({"bits": 9000}, trials=1) | {"quantization": values()["quantization"] | {"weights": bits}}
        torch.manual_seed(0)
        net = prune(
            make_network("digits_cnn"), split.train, split.validation, parse_recipe(values(**changes)),
            checkpoints=tmp_path,
        )  # fmt: skip
        kept.append(sum(net.record.provenance["allocation"]["half"].values()))
    assert kept[0] > kept[1]


def test_a_budget_that_cannot_be_met_names_the_stage(split):
    recipe = parse_recipe(values(**allocated({"macs": 400}), dense={"epochs": 1, "lr": [1e-3, 1e-3]}))
    with pytest.raises(PruningError, match="Stage 'half': A budget of 400 macs is below the least of 401 .*other lay"):
        prune(make_network("digits_cnn"), split.train, split.validation, recipe)


KILLED = """
import os, signal, sys
from pathlib import Path

from zeroskip.pruning import build_artifact

recipe, out, checkpoints, last = sys.argv[1:]


def progress(step, elapsed, expected):
    if step.startswith(last):
        os.kill(os.getpid(), signal.SIGKILL)


build_artifact(Path(recipe), Path(out), checkpoints=Path(checkpoints), progress=progress)
"""


@pytest.mark.slow
def test_a_run_killed_again_and_again_gives_the_same_bytes(tmp_path, split):
    lr = [2e-3, 1e-3]
    stage = values()["stages"][0] | {"admm": {"epochs": 4, "lr": lr}, "retrain": {"epochs": 2, "lr": lr}}
    tiny = values(
        dense={"epochs": 10, "lr": lr}, stages=[stage],
        quantization={"calibration": 100, "finetune": {"epochs": 4, "lr": lr}},
    )  # fmt: skip
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(tiny))
    # 20 epochs: 30, 60 and 95 % of them; each run goes on from what the one before has kept.
    ends = {"dense dense epoch 6/10": set(), "half admm epoch 2/4": {"dense"}}
    ends["finetune finetune epoch 3/4"] = {"dense", "half"}
    for end, finished in ends.items():
        arguments = [recipe, tmp_path / "parts", tmp_path / "stages", end]
        ran = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], capture_output=True, text=True)
        assert ran.returncode == -signal.SIGKILL, ran.stderr
        assert {path.name.rpartition("-")[0] for path in (tmp_path / "stages").glob("*")} == finished
        assert not (tmp_path / "parts").exists()
    parts = build_artifact(recipe, tmp_path / "parts", checkpoints=tmp_path / "stages", split=split)
    whole = build_artifact(recipe, tmp_path / "whole", split=split)
    for name in ("tiny.safetensors", "tiny.log.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not parts.reused and parts.header == whole.header


def test_damaged_checkpoint_is_trained_again(tmp_path, split):
    recipe = parse_recipe(values(stages=[]))
    first = build_artifact(recipe, tmp_path / "a", checkpoints=tmp_path / "stages", split=split)
    for path in (tmp_path / "stages").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    second = build_artifact(recipe, tmp_path / "b", checkpoints=tmp_path / "stages", split=split)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_prune_in_one_call_keeps_the_structure(split, tmp_path):
    torch.manual_seed(0)
    recipe = parse_recipe(values(dense={"epochs": 25, "lr": [8e-3, 1e-3]}))
    elapsed = []
    net = prune(
        make_network("digits_cnn"),
        split.train,
        split.validation,
        recipe,
        log=tmp_path / "log.jsonl",
        progress=lambda s, e, x: elapsed.append((e, x)),
    )
    phases = [json.loads(line)["phase"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert phases[0] == "dense" and phases[-1] == "finetune" and phases.count("residual") == 4 * 3
    assert list(net.record.provenance["goals"]) == ["half"]
    assert net.accuracy(split.validation) > 0.85
    weights = {layer.name: layer.weight for layer in net.golden.layers if layer.weight is not None}
    assert int((weights["conv2"] != 0).sum()) == 576
    assert int((weights["fc1"] != 0).any(0).sum()) == 32
    assert int((weights["fc2"] == 0).sum()) == 0
    assert net.record.recipe["stages"][0]["layers"]["fc1"] == {"kind": "column", "keep": 8, "group": 4}
    assert all(expected is None or expected >= spent for spent, expected in elapsed)


class Wide(nn.Module):
    """Takes other images than the digits are."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(100, 10)

    def forward(self, x):
        return self.fc(x.flatten(1))


def test_a_network_that_cannot_be_quantized_is_refused_before_training(split):
    normed = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    recipe = parse_recipe(values(stages=[], quantization=values()["quantization"] | {"power_of_two": True}))
    steps = []
    with pytest.raises(PruningError, match="Layer '0' has BatchNorm, which needs a multiplier a channel"):
        prune(normed, split.train, split.validation, recipe, progress=lambda *a: steps.append(a))
    assert not steps


def second_stage(**layers):
    first = values()["stages"][0]
    return {"stages": [first, first | {"name": "next", "layers": layers}]}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"train": [1, 2]}, "train must be an ImageSet of codes and labels, not a list"),
        ({"val": lambda split: split.validation.take(0, 0)}, "val must hold samples, but it is empty"),
        (
            {"val": lambda split: ImageSet(split.validation.x[:, :, :4], split.validation.y)},
            r"train has samples of shape \(1, 8, 8\), but val of \(1, 4, 8\)",
        ),
        (
            {"train": lambda split: ImageSet(split.train.x, split.train.y + 1)},
            "Layer 'fc2' has 10 outputs, but train has the label 10; give the network more outputs",
        ),
        (
            {"train": lambda split: ImageSet(split.train.x.to(torch.int8), split.train.y)},
            r"Input codes must be torch\.uint8, not torch\.int8; set signed as the codes are",
        ),
        (
            {"model": Wide()},
            r"cannot be captured with samples of shape \(1, 8, 8\): .*64.*100.* at .*\.py:\d+ \(return self\.fc",
        ),
        (
            {"recipe": second_stage(conv3={"kind": "nonstructured", "keep": 0.1})},
            "No layer with weights is called 'conv3'; the nearest are: conv2, conv1",
        ),
        (
            {"recipe": second_stage(fc1={"kind": "nonstructured", "keep": 5000})},
            "Layer 'fc1': keep is 5000, but the layer has 2048 groups",
        ),
        (
            {"recipe": second_stage(conv1={"kind": "channel", "keep": 0.5})},
            "Layer 'conv1': Channel needs two or more input channels",
        ),
        (
            {"recipe": second_stage(conv2={"kind": "micro_block", "mode": "unify"})},
            "Layer 'conv2' has pruned weights of an earlier stage to which MicroBlock",
        ),
        (
            {"recipe": {"batch": 600}},
            "Stage 'half' has updates_per_epoch 2, but an epoch of 1097 samples has 1 steps of batch 600; choose fewer",
        ),
        (
            {"model": make_network("digits_cnn").double()},
            r"Parameter 'conv1.weight' is torch.float64; call model.float",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(split, change, text):
    given = {"model": make_network("digits_cnn"), "train": split.train, "val": split.validation, "recipe": {}}
    given |= {name: value(split) if callable(value) and name != "model" else value for name, value in change.items()}
    steps = []
    with pytest.raises(PruningError, match=text) as error:
        prune(**given | {"recipe": parse_recipe(values(**given["recipe"]))}, progress=lambda *a: steps.append(a))
    assert not steps and "\n" not in str(error.value)


def test_builtin_recipes_are_legal_and_their_names_agree():
    recipes = {name: load_recipe(name) for name in builtin_recipes()}
    assert all(recipe.name == name for name, recipe in recipes.items())
    assert set(DIGITS_RECIPES) <= set(recipes)
    shared = {
        (recipe.dense, recipe.batch, recipe.threads) for name, recipe in recipes.items() if name in DIGITS_RECIPES
    }
    assert len(shared) == 1


def rule(**table):
    """Return the changes that put one rule into the recipe."""
    return {"stages": [values()["stages"][0] | {"layers": {"x": table}}]}


def test_rules_become_constraint_sets():
    stage = parse_recipe(values()).stages[0]
    assert stage.layers["conv*"].constraint() == NonStructured(0.5)
    assert stage.layers["fc1"].constraint() == Column(8, 4)


@pytest.mark.parametrize("constraint", EVERY_SET, ids=lambda c: as_values(c)["kind"])
def test_every_set_can_be_said_in_a_recipe(constraint):
    table = json.loads(json.dumps({k: v for k, v in as_values(constraint).items() if v is not None}))
    recipe = parse_recipe(values(**rule(**table)))
    assert recipe.stages[0].layers["x"].constraint() == constraint
    assert parse_recipe(values(**rule(**recipe.as_dict()["stages"][0]["layers"]["x"]))).digest() == recipe.digest()


def test_defaults_of_a_rule_are_stated_in_its_recipe():
    recipe = parse_recipe(values(**rule(kind="block", keep=0.5)))
    assert recipe.as_dict()["stages"][0]["layers"]["x"] == {"kind": "block", "keep": 0.5, "rows": 4, "columns": 4}
    # The digests of the zoo's recipes began when every rule had a group.
    plain = parse_recipe(values(**rule(kind="nonstructured", keep=0.5))).as_dict()
    assert plain["stages"][0]["layers"]["x"] == {"kind": "nonstructured", "keep": 0.5, "group": 1}


def quantized(**changes):
    return {"quantization": values()["quantization"] | changes}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epoch": 3}, "recipe has an unknown key 'epoch'"),
        ({"dense": {"epochs": 1}}, "recipe.dense lacks the key 'lr'"),
        ({"dense": {"epochs": 1, "lr": 0.1}}, r"recipe\.dense\.lr must be two numbers, not 0\.1"),
        ({"dense": {"epochs": "1", "lr": [1, 1]}}, r"recipe\.dense\.epochs must be of type int, not '1'"),
        ({"seed": True}, "recipe.seed must be of type int, not True"),
        ({"format": "2.0"}, "Recipe format must be 1.0, not '2.0'"),
        ({"input": {"range": 300}}, "Input range must be from 1 to 255, not 300"),
        ({"stages": [values()["stages"][0]] * 2}, "Stage names must differ"),
        (
            {"stages": [values()["stages"][0] | {"layers": {"x": {"kind": "row", "keep": 1}}}]},
            r"layers\.x has the unknown kind 'row'; the nearest are: .*column",
        ),
        (
            rule(kind="column", keep=0.5, axis="input"),
            "'axis', which belongs to kind vector; kind column has keep, group",
        ),
        (rule(kind="nonstructured", keep=0.5, group=2), "'group', which belongs to kind column"),
        (rule(kind="vector", keep=0.5, sise=4), "unknown key 'sise'; the nearest are: size"),
        (rule(kind="nm", n=2), "lacks the key 'm'"),
        (rule(kind="nm", n="2", m=4), r"\.n must be of type int, not '2'"),
        (rule(kind="block", keep=2.0), r"layers\.x: keep must be a fraction"),
        (rule(keep=2.0), r"layers\.x lacks the key 'kind'"),
        (
            rule(kind="joint", structure={"kind": "nm", "n": 2, "k": 4}, levels={"kind": "levels", "bits": 4}),
            r"layers\.x\.structure has the key 'k', which belongs to kind codebook; kind nm has n, m",
        ),
        (
            rule(kind="joint", structure={"kind": "levels", "bits": 4}, levels={"kind": "levels", "bits": 4}),
            "Joint needs a set that prunes",
        ),
        (allocated({"mac": 9}), r"allocation\.budget has an unknown key 'mac'; the nearest are: macs"),
        (allocated({"macs": 9.5}), r"allocation\.budget\.macs must be of type int \| None, not 9\.5"),
        (allocated({"macs": 9, "bits": 9}), r"allocation\.budget: A budget must be one of .*not macs and bits"),
        (allocated({"macs": 9}, shares=0.1), r"allocation\.shares must be a list of numbers, not 0\.1"),
        (allocated({"macs": 9}, trials=0), r"allocation: trials must be at least 1, not 0"),
        (
            {"stages": [allocated({"macs": 9})["stages"][0] | {"layers": {"x": {"kind": "nm", "n": 2, "m": 4}}}]},
            "Stage 'half', layer 'x': An allocation needs a set that keeps the groups of largest sum .*, not NM",
        ),
        (
            {"stages": [allocated({"macs": 9})["stages"][0] | {"method": "scratch"}]},
            "Stage 'half' keeps the zeros of the stages before it; leave out the allocation",
        ),
        (allocated({"macs": 9}, samples=0), "allocation: samples must be at least 1, not 0"),
        (quantized(weights=9), "quantization: weights must be from 1 to 8 bits, not 9"),
        (quantized(activations=16), "quantization: activations must be from 1 to 8 bits, not 16"),
        (quantized(freeze=1.0), "quantization: freeze must be a share from 0 to 1, and above 0 for rounds, not 1.0"),
        (quantized(rounds=2), "quantization: freeze must be a share from 0 to 1, and above 0 for rounds, not 0.0"),
        (quantized(calibration=0), "quantization: calibration must be at least 1, not 0"),
        (
            quantized(finetune={"epochs": 1, "lr": [1, 1], "distill": 0.5}) | {"task": "reconstruct"},
            "A reconstruction has no classes whose logits could be distilled",
        ),
        (rule(kind="micro_block", keep=1), "mode unify prunes nothing, so keep must be 1.0, not 1; use mode both"),
        (
            rule(kind="micro_block", mode="prune", unified=1),
            "mode prune unifies nothing, so unified must be 1.0, not 1",
        ),
        (rule(kind="pattern", patterns=[1, 2]), "A pattern must be a list of positions from 0 on, not 1"),
    ],
)
def test_bad_recipes(changes, text):
    with pytest.raises(PruningError, match=text):
        parse_recipe(values(**changes))


def test_unknown_recipe_network_and_toml(tmp_path):
    with pytest.raises(
        PruningError, match="Recipe 'digits-dense' does not exist; the nearest are: .*digits-dense-w4a8"
    ):
        load_recipe("digits-dense")
    with pytest.raises(PruningError, match="Unknown network 'lenet'; the nearest are: lenet5"):
        make_network("lenet")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(PruningError, match="Recipe '.*bad.toml' is not valid TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_phase_saw_tooth():
    phase = Phase(2, (1.0, 0.1), restarts=2)
    rates = [phase.rate(step, 10) for step in range(10)]
    assert rates[:5] == rates[5:]
    assert rates[0] == 1.0
    assert rates[4] == pytest.approx(0.1)
    assert rates == sorted(rates[:5], reverse=True) * 2


def test_equal_accuracy_counts_errors():
    def built(errors):
        return Built(Path("x"), {"accuracy": {"samples": 500}, "samples_correct": {"integer": 500 - errors}}, False)

    assert equal_accuracy([built(8), built(11), built(2)])
    assert not equal_accuracy([built(8), built(12)])
