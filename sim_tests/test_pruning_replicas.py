"""Two ranks under torchrun: the same state on both, the samples shared out, an accuracy like that of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchrun_digits
from zeroskip.pruning import build_artifact
from zeroskip.pruning.devices import repeatable
from zeroskip.pruning.replicas import average_, check_same, from_first, joined, rank, share, size

RECIPE = """
name = "tiny"
network = "digits_cnn"
dataset = "digits"
threads = 1
batch = 64
input = { range = 16, std = 0.5 }
dense = { epochs = 12, lr = [8e-3, 1e-3], shift = 1, crop = 1 }

[[stages]]
name = "half"
admm = { epochs = 3, lr = [3e-3, 1e-3] }
retrain = { epochs = 4, lr = [3e-3, 1e-3], distill = 0.5 }
layers.conv2 = { kind = "column", keep = 0.5 }
layers."fc*" = { kind = "nonstructured", keep = 0.3 }

[quantization]
weights = 8
finetune = { epochs = 2, lr = [1e-3, 1e-4] }
"""


def torchrun(*arguments):
    """Start two ranks on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    paths = [str(Path(torchrun_digits.__file__).parent), *sys.path]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The user's own loop and the recipe runner, both with two ranks, side by side."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "tiny.toml").write_text(RECIPE)
    loop = torchrun(torchrun_digits.__file__, str(folder / "loop.json"))
    queue = torchrun(
        "-m", "zeroskip.pruning.zoo_build", str(folder / "tiny.toml"),
        "--out", str(folder / "out"), "--checkpoints", str(folder / "stages"),
    )  # fmt: skip
    ended = [(run.communicate(), run.returncode) for run in (loop, queue)]
    for (out, error), code in ended:
        assert code == 0, out + error
    return folder, ended[1][0]


@pytest.fixture(scope="module")
def loop(launched):
    folder, _ = launched
    return json.loads((folder / "loop.json").read_text())


def test_ranks_hold_the_same_weights_and_see_different_samples(loop):
    first, second = (found["loop"] for found in loop)
    assert first["state"] == second["state"]
    assert first["accuracy"] == second["accuracy"]
    # conv2 has 72 columns of 16 weights.
    assert first["kept"] == {"conv2": 576, "fc1": 614, "fc2": 96}
    assert not set(first["seen"]) & set(second["seen"])
    # Of 1,097 samples 548 each, in whole batches of 32.
    assert len(first["seen"]) == len(second["seen"]) == 544


def test_accuracy_of_two_ranks_is_within_the_noise_of_seeds(loop):
    with repeatable(1):
        alone = [torchrun_digits.prune(seed)["accuracy"] for seed in (0, 1)]
    # Two seeds show less than the whole noise, so each end may be passed by a few of the 500 test samples.
    assert min(alone) - 0.03 <= loop[0]["loop"]["accuracy"] <= max(alone) + 0.03


def test_ranks_that_disagree_are_told_which_layer(loop):
    remedy = "start every rank from the same weights, as DistributedDataParallel does"
    for found in loop:
        told = found["refusals"]
        assert f"Layer 'fc2' has another W on rank 1 than on rank 0 (after update 2); {remedy}" in told["W"]
        assert "Layer 'fc1' has another U on rank 1 than on rank 0 (after update 2); " in told["U"]
        assert "Layer 'fc1' has another W on rank 1 than on rank 0 (as the optimizer was attached); " in told["start"]
        assert told["sets"].startswith("Rank 1 prunes the layers ['fc1'], but rank 0 ['fc2'] (after update 1); give")
        assert told["share"] == "A batch of 5 samples has no equal parts for 2 ranks; change batch"


def test_a_recipe_on_two_ranks_is_as_on_one(launched, tmp_path):
    folder, (out, error) = launched
    assert out.count("tiny: ") == 1 and error.count("1 of 1 rows finished") == 1
    one_rank = build_artifact(folder / "tiny.toml", tmp_path / "out", checkpoints=tmp_path / "stages")
    logs = [
        [json.loads(line) for line in (place / "out" / "tiny.log.jsonl").read_text().splitlines()]
        for place in (folder, tmp_path)
    ]
    assert [(line["stage"], line["phase"]) for line in logs[0]] == [(line["stage"], line["phase"]) for line in logs[1]]
    two, one = ([line["loss"] for line in log if line["phase"] == "dense"] for log in logs)
    # The same samples in every step: only the order of the sums differs.
    assert two[:2] == pytest.approx(one[:2], rel=1e-3)
    result = json.loads((folder / "out" / "tiny.json").read_text())
    shares = [result["accuracy"]["integer"], one_rank.header["accuracy"]["integer"]]
    assert min(shares) > 0.85 and shares[0] == pytest.approx(shares[1], abs=0.02)
    # Another number of ranks sums in another order, so its stages are not taken for these.
    names = [{path.name for path in (place / "stages").iterdir()} for place in (folder, tmp_path)]
    assert not names[0] & names[1]


def test_one_process_is_its_own_group():
    with joined():
        assert (size(), rank()) == (1, 0)
        batch = torch.arange(5.0)
        average_([batch])
        assert torch.equal(share(batch), torch.arange(5.0))
        check_same({"fc": {"W": batch}}, "now")
        assert from_first("value") == "value"
