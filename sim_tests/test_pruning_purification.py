"""Purification: which channels are tried, that they go for good, and that an undone trial leaves nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from zeroskip.pruning import PruningError, prune
from zeroskip.pruning.data import ImageSet, load_digits
from zeroskip.pruning.networks import make_network
from zeroskip.pruning.purification import Purification, weak_channels
from zeroskip.pruning.recipe_tables import parse_recipe


def recipe(rules, **purify):
    """Return a short recipe for digits_cnn with one stage of these rules."""
    return parse_recipe(
        {
            "name": "purified", "network": "digits_cnn", "dataset": "digits", "threads": 1, "batch": 64,
            "input": {"range": 16, "std": 0.5}, "dense": {"epochs": 3, "lr": [8e-3, 1e-3]},
            "stages": [
                {
                    "name": "pruned", "layers": rules, "purify": purify,
                    "admm": {"epochs": 2, "lr": [2e-3, 1e-3]}, "retrain": {"epochs": 1, "lr": [2e-3, 1e-3]},
                }
            ],
            "quantization": {"weights": 8, "finetune": {"epochs": 0, "lr": [1e-3, 1e-3]}},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def split():
    whole = load_digits()
    return replace(whole, train=ImageSet(whole.train.x[:500], whole.train.y[:500]))


def run(split, chosen, folder, **options):
    """Return the network, its model and the log of a run."""
    torch.manual_seed(0)
    model = make_network("digits_cnn")
    net = prune(model, split.train, split.validation, chosen, log=folder / "log.jsonl", **options)
    return net, model, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def channels_of(model):
    """Return the input channels of conv2 that have a weight."""
    return model.conv2.weight.detach().abs().sum((0, 2, 3)).nonzero().flatten().tolist()


def test_weak_channels_are_empty_enough_and_light_enough():
    weight = torch.zeros(2, 4, 3, 3)
    weight[:, 0] = 1.0
    weight[0, 1, 0, 0] = 0.5
    weight[1, 2, 0, :2] = 0.1
    weight[0, 3, 0, 0] = 9.0
    # Norms 4.2, 0.5, 0.14 and 9: channel 0 has no empty column, and 3 is heavy.
    assert weak_channels(weight, 4, Purification()) == [2, 1]
    assert weak_channels(weight, 4, Purification(empty=8 / 9)) == [1]
    assert weak_channels(weight, 4, Purification(weak=0.1)) == [2]
    assert weak_channels(weight, 4, Purification(weak=10.0)) == [2, 1, 3]
    # A linear layer's columns are channel by channel; channel 2 has lost all of its weights already.
    linear = torch.tensor([[3.0, 3.0, 0.0, 0.1, 0.0, 0.0]])
    assert weak_channels(linear, 3, Purification()) == [1]
    # The last channel stays, and a layer without weights has none to lose.
    assert weak_channels(torch.tensor([[0.0, 1.0, 0.0, 1.0]]), 2, Purification(weak=1.0)) == [0]
    assert weak_channels(torch.zeros(2, 4), 2, Purification()) == []


def test_channels_go_for_good_and_the_run_resumes(split, tmp_path):
    rules = {"conv2": {"kind": "nonstructured", "keep": 0.1}}
    _, before, _ = run(split, recipe(rules, drop=0.0, weak=0.0), tmp_path)
    chosen = recipe(rules, drop=1.0, weak=1.0, empty=0.3)
    net, model, log = run(split, chosen, tmp_path, checkpoints=tmp_path / "stages")
    trials = [line for line in log if line["phase"] == "purification"]
    assert [trial["kept"] for trial in trials] == [True] and trials[0]["layer"] == "conv2"
    gone = trials[0]["channels"]
    assert gone and not set(gone) & set(channels_of(model)) and set(gone) <= set(channels_of(before))
    index = next(i for i, line in enumerate(log) if line["phase"] == "purification")
    assert log[index - 1]["phase"] == "purify"
    again, _, _ = run(split, chosen, tmp_path, checkpoints=tmp_path / "stages")
    paths = [one.save(tmp_path / f"{name}.safetensors") for name, one in (("a", net), ("b", again))]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("reason", ["too much accuracy", "blocks that share a magnitude", "diverged"])
def test_a_trial_that_is_undone_leaves_the_network_as_it_was(split, tmp_path, monkeypatch, reason):
    rules = {"conv2": {"kind": "nonstructured", "keep": 0.1}}
    options = {"drop": 1.0, "weak": 1.0, "empty": 0.3}
    if reason == "too much accuracy":
        # A rate at which the network forgets what it has learned.
        options |= {"drop": 0.0, "retrain": {"epochs": 1, "lr": [10.0, 10.0]}}
    elif reason == "diverged":
        options |= {"retrain": {"epochs": 1, "lr": [1e30, 1e30]}}
    else:
        rules = {"conv2": {"kind": "micro_block", "mode": "both", "columns": 8, "keep": 0.1}}
    _, model, log = run(split, recipe(rules, **options), tmp_path)
    trials = [line for line in log if line["phase"] == "purification"]
    assert trials and not any(trial["kept"] for trial in trials)
    # Half as many channels are tried each time.
    counts = [len(trial["channels"]) for trial in trials]
    assert all(after == count // 2 for count, after in zip(counts, counts[1:], strict=False)) and counts[-1] == 1
    monkeypatch.setattr("zeroskip.pruning.methods.purify", lambda run, stage, admm, *_: admm)
    _, other, _ = run(split, recipe(rules, **options), tmp_path)
    left = other.state_dict()
    assert all(torch.equal(value, left[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("purify", "message"),
    [
        ({"empty": 0}, r"purify: empty must be above 0 and at most 1, not 0"),
        ({"weak": -1.0}, r"purify: weak must be from 0 to inf, not -1.0"),
        ({"drop": 2}, r"purify: drop must be from 0 to 1, not 2"),
        ({"emty": 0.5}, r"purify has an unknown key 'emty'; the nearest are: empty"),
        ({"retrain": {"epochs": 1}}, r"purify.retrain lacks the key 'lr'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(purify, message):
    with pytest.raises(PruningError, match=message):
        recipe({"conv2": {"kind": "nonstructured", "keep": 0.1}}, **purify)
