"""The chain for series, autoencoders, distillation, dense starts and inputs with statistics of each channel."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.compiler.reference import run
from zeroskip.pruning import PruningError, build_artifact
from zeroskip.pruning.data import ImageSet, Split
from zeroskip.pruning.export import read_header
from zeroskip.pruning.networks import make_network
from zeroskip.pruning.recipe_tables import parse_recipe
from zeroskip.pruning.training import Task

SHORT = {"epochs": 2, "lr": [5e-3, 1e-3]}
QUIET = {"epochs": 0, "lr": [1e-3, 1e-3]}


def values(**changes):
    base = {
        "name": "tiny", "network": "cnn1d", "dataset": "ecg5000", "threads": 1, "batch": 32,
        "input": {"range": 16, "signed": True}, "dense": {**SHORT, "shift": 4},
        "quantization": {"calibration": 40, "finetune": {"epochs": 1, "lr": [1e-3, 1e-4], "distill": 0.5}},
        "stages": [
            {
                "name": "half", "updates_per_epoch": 2, "layers": {"conv*": {"kind": "nonstructured", "keep": 0.5}},
                "admm": SHORT, "retrain": {**SHORT, "distill": 0.7},
            }
        ],
    }  # fmt: skip
    return base | changes


def part(count, shape, seed, labels=2):
    """Return samples whose brightness is their label."""
    random = np.random.default_rng(seed)
    y = random.integers(0, labels, count)
    noise = random.integers(-20, 20, (count, *shape))
    codes = noise + 50 * y.reshape(-1, *(1,) * len(shape))
    if len(shape) == 2:
        return ImageSet(torch.from_numpy(codes.astype(np.int8)), torch.from_numpy(y))
    return ImageSet(torch.from_numpy((codes + 20).astype(np.uint8)), torch.from_numpy(y))


def split(shape=(1, 140), count=96):
    return Split("made", part(count, shape, 0), part(40, shape, 1), part(60, shape, 2), "made up")


def exact(path, codes):
    """Return the compiler's output for ``codes``, and check the golden samples of every layer."""
    loaded = load_artifact(path)
    for name, wanted in run(loaded, loaded.golden[loaded.input]).items():
        np.testing.assert_array_equal(wanted, loaded.golden[name], err_msg=name)
    return run(loaded, codes)[loaded.output]


def test_series_with_batch_norm_and_distillation_resume_with_the_same_bytes(tmp_path):
    recipe, data = parse_recipe(values()), split()
    whole = build_artifact(recipe, tmp_path / "whole", split=data)

    class Interrupted(Exception):
        pass

    def interrupt(step, elapsed, expected):
        if step.startswith("finetune"):
            raise Interrupted

    with pytest.raises(Interrupted):
        build_artifact(recipe, tmp_path / "parts", checkpoints=tmp_path / "kept", progress=interrupt, split=data)
    steps = []
    again = build_artifact(
        recipe, tmp_path / "parts", checkpoints=tmp_path / "kept", split=data, progress=lambda *a: steps.append(a[0])
    )
    assert steps[:2] == ["dense: reused", "half: reused"]
    assert whole.path.read_bytes() == again.path.read_bytes()
    header = read_header(whole.path)
    assert header["tensors"]["input"] == {
        "shape": [1, 1, 140],
        "bits": 8,
        "signed": True,
        "scale": 1 / 16,
        "zero_point": 0,
    }
    assert header["recipe"]["stages"][0]["retrain"]["distill"] == 0.7
    assert "distill" not in header["recipe"]["dense"]
    last = json.loads((tmp_path / "whole" / "tiny.log.jsonl").read_text().splitlines()[-1])
    assert (last["stage"], last["samples"]) == ("test", 60)
    assert 1 - len(last["wrong"]) / 60 == pytest.approx(header["accuracy"]["integer"])
    out = exact(whole.path, data.test.x.numpy()[:, :, None])
    share = float(np.mean(out.reshape(60, -1).argmax(1) == data.test.y.numpy()))
    assert share == pytest.approx(header["accuracy"]["integer"])


def test_logged_validation_is_that_of_the_network_in_eval_mode(tmp_path):
    quantization = {"calibration": 40, "finetune": QUIET, "weights": 8}
    recipe = parse_recipe(values(stages=[], quantization=quantization, batch=96))
    data = split()
    data = Split("made", data.train, data.test, data.test, "made up")
    built = build_artifact(recipe, tmp_path, split=data)
    lines = [json.loads(line) for line in (tmp_path / "tiny.log.jsonl").read_text().splitlines()]
    dense = [line["validation"] for line in lines if line["phase"] == "dense"]
    assert dense[-1] == pytest.approx(built.header["accuracy"]["float"], abs=1e-6)


def test_an_autoencoder_is_pruned_and_judged_by_its_auc(tmp_path):
    data = split()
    normal = data.train.pick(np.flatnonzero(data.train.y.numpy() == 0))
    data = Split("made", normal, data.validation, data.test, "made up")
    stages = [values()["stages"][0] | {"layers": {"*coder*": {"kind": "nonstructured", "keep": 0.5}}, "retrain": SHORT}]
    quantization = {"weights": 8, "calibration": 40, "finetune": {"epochs": 1, "lr": [1e-3, 1e-4]}}
    recipe = parse_recipe(
        values(
            network="autoencoder",
            dataset="ecg5000_normal",
            task="reconstruct",
            stages=stages,
            quantization=quantization,
            batch=16,
        )
    )
    assert recipe.task is Task.RECONSTRUCT
    built = build_artifact(recipe, tmp_path, split=data)
    assert built.header["recipe"]["task"] == "reconstruct"
    assert built.header["samples_correct"] == {}
    assert "sum((input code - output code)^2), exact" in built.header["provenance"]["accuracy"]
    codes = data.test.x.numpy()
    out = exact(built.path, codes[:, :, None])
    errors = np.square(codes.reshape(60, -1).astype(int) - out.reshape(60, -1).astype(int)).sum(1)
    y = data.test.y.numpy()
    pairs = [(a > b) + (a == b) / 2 for a in errors[y == 1] for b in errors[y == 0]]
    assert built.header["accuracy"]["integer"] == pytest.approx(np.mean(pairs))
    assert built.header["accuracy"]["integer"] > 0.9
    last = json.loads((tmp_path / "tiny.log.jsonl").read_text().splitlines()[-1])
    assert last["squared_errors"] == errors.tolist() and last["anomalous"] == np.flatnonzero(y).tolist()


def test_a_dense_start_and_statistics_of_each_channel(tmp_path, monkeypatch):
    torch.manual_seed(4)
    model = make_network("resnet8")
    torch.save(model.state_dict(), tmp_path / "dense.th")
    recipe = parse_recipe(
        values(
            network="resnet8",
            dataset="cifar10",
            start="dense.th",
            dense=QUIET,
            stages=[],
            threads=2,
            input={"range": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            quantization={"calibration": 16, "weights": 8, "finetune": QUIET},
        )  # fmt: skip
    )
    shape = (3, 32, 32)
    data = Split("made", part(16, shape, 0), part(16, shape, 1), part(16, shape, 2), "made up")
    built = build_artifact(recipe, tmp_path / "out", data=tmp_path, split=data)
    assert built.header["provenance"]["start"].startswith("dense weights of dense.th, sha256 ")
    assert built.header["tensors"]["input"]["zero_point"] == 114
    exact(built.path, data.test.x.numpy())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"task": "cluster"}, "recipe.task must be classify or reconstruct, not 'cluster'"),
        ({"start": 3}, r"recipe\.start must be of type str \| None, not 3"),
        ({"fold": "a"}, r"recipe\.fold must be of type int \| None, not 'a'"),
        ({"dense": {**SHORT, "distill": 0.5}}, "The dense phase has nothing to distill"),
        ({"dense": {**SHORT, "shift": [1, 2, 3]}}, r"recipe\.dense\.shift must be a whole number, or two of them"),
        ({"dense": {**SHORT, "shift": 1.5}}, r"recipe\.dense\.shift must be a whole number, or two of them"),
        ({"dense": {**SHORT, "flip": 1}}, r"recipe\.dense\.flip must be of type bool, not 1"),
        (
            {"dense": {**SHORT, "precision": "half"}},
            r"precision must be float32 or bfloat16, not 'half'",
        ),
        ({"input": {"mean": "0"}}, r"recipe\.input\.mean must be a number, or a list with one a channel, not '0'"),
        ({"input": {"std": []}}, r"recipe\.input\.std must be a number, or a list with one a channel, not \[\]"),
    ],
)
def test_bad_recipes(changes, text):
    with pytest.raises(PruningError, match=text):
        parse_recipe(values(**changes))


def test_defaults_of_later_keys_leave_a_recipes_digest_as_it_was():
    plain = parse_recipe(values())
    spelled = parse_recipe(
        values(task="classify", dense={**SHORT, "shift": 4, "flip": False, "crop": 0, "distill": 0.0})
    )
    assert plain.digest() == spelled.digest()
    assert parse_recipe(values(fold=1)).digest() != plain.digest()


def test_real_folds_and_starts_are_loaded_by_name(data_folder, tmp_path):
    recipe = parse_recipe(values(fold=3, stages=[], dense=QUIET, quantization={"calibration": 40, "finetune": QUIET}))
    built = build_artifact(recipe, tmp_path, data=data_folder)
    assert built.header["accuracy"]["samples"] == 100
    assert "Test: fold 3 of 5 over all beats" in built.header["provenance"]["dataset"]
