"""Dense starts: published weights are loaded without running anything, and what does not fit is named."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from zeroskip.pruning import Input, PruningError, fold_channels
from zeroskip.pruning.checkpoints import Checkpoints, StageResult
from zeroskip.pruning.data import load_cifar10
from zeroskip.pruning.networks import ResNet20, load_start
from zeroskip.pruning.networks import start as start_module
from zeroskip.pruning.training import accuracy


def network():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{n}": v for n, v in s.items()}}])
def test_tensors_are_loaded(tmp_path, wrap):
    first, second = network(), network()
    state = first.state_dict()
    del state["1.num_batches_tracked"]
    torch.save(wrap(state), tmp_path / "a.th")
    load_start(second, tmp_path / "a.th")
    assert torch.equal(first[0].weight, second[0].weight)


def test_sparse_checkpoints_keep_their_zeros_and_values(tmp_path):
    first = network()
    prune.l1_unstructured(first[0], "weight", 7)
    pruned = first[0].weight.detach().clone()
    assert int((pruned == 0).sum()) == 7
    state = first.state_dict()
    assert "0.weight_orig" in state
    save_file(state, tmp_path / "masked.safetensors")
    prune.remove(first[0], "weight")
    save_file(first.state_dict(), tmp_path / "plain.safetensors")
    torch.save(first.state_dict() | {"0.weight": pruned.to_sparse()}, tmp_path / "coo.pt")
    for name in ("masked.safetensors", "plain.safetensors", "coo.pt"):
        second = network()
        load_start(second, tmp_path / name)
        assert torch.equal(second[0].weight, pruned), name
    path = tmp_path / "plain.safetensors"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(PruningError, match=r"plain.safetensors' cannot be read \(.*\); fetch it again"):
        load_start(network(), path)


def test_the_files_of_a_run_are_loaded(tmp_path):
    first = network()
    with torch.no_grad():
        first[0].weight[0] = 0
    kept = Checkpoints(tmp_path)
    kept.save("half", "a" * 64, first, StageResult({"0": first[0].weight != 0}, {}, []))
    kept.save_good("dense", "dense", "b" * 64, {f"module.{n}": v for n, v in first.state_dict().items()})
    paths = sorted(tmp_path.iterdir())
    assert [path.name.rpartition("-")[0] for path in paths] == ["dense-dense-last-good", "half"]
    for path in paths:
        second = network()
        load_start(second, path)
        assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items()), path
    with pytest.raises(PruningError, match="half-.*' has no tensor '2.weight', which the network needs"):
        load_start(nn.Sequential(*network(), nn.Linear(3, 3)), paths[1])


def test_statistics_of_channels_are_not_folded_twice(tmp_path):
    codes = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8)
    model, source = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), Input(255, (0.1, 0.2, 0.6), 0.5)
    wanted = fold_channels(model, codes, source)
    path = Checkpoints(tmp_path).save_good("dense", "dense", "a" * 64, model.state_dict())
    again = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    load_start(again, path)
    text = f"already; give the input mean = {wanted.mean!r} and std = 0.5, or start from other weights"
    for started in (again, copy.deepcopy(again)):
        with pytest.raises(PruningError, match=re.escape(text)):
            fold_channels(started, codes, source)
    assert fold_channels(again, codes, wanted) is wanted
    torch.save(model.state_dict(), tmp_path / "plain.th")
    load_start(again, tmp_path / "plain.th")
    assert fold_channels(again, codes, source) == wanted


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"0.weight": torch.ones(3, 4, dtype=torch.int8)}, "has '0.weight' of type torch.int8, but the network needs "),
        (
            {"0.weight": None},
            "has no tensor '0.weight', which the network needs; the nearest are: .*1.weight.*; choose",
        ),
        ({"0.weight": torch.zeros(4, 3)}, r"has '0.weight' of shape \(4, 3\), but the network needs \(3, 4\); choose"),
        ({"0.bias": torch.tensor([0, 1, torch.nan])}, "has values in '0.bias' that are not finite; fetch it again"),
        ({"2.bias": torch.zeros(3)}, "has a tensor '2.bias', which the network lacks; the nearest are: .*; choose the"),
        ({"epoch": 3}, r"holds no table of tensors; save the model's state_dict\(\) again"),
    ],
)
def test_other_networks_are_refused(tmp_path, changes, text):
    state = {name: value for name, value in (network().state_dict() | changes).items() if value is not None}
    torch.save(state, tmp_path / "a.th")
    with pytest.raises(PruningError, match=f"Checkpoint '.*a.th' {text}"):
        load_start(network(), tmp_path / "a.th")


def test_missing_damaged_and_large_files(tmp_path, monkeypatch):
    path = tmp_path / "a.th"
    with pytest.raises(PruningError, match="a.th' does not exist; put it there or leave out 'start'"):
        load_start(network(), path)
    torch.save(network().state_dict(), path)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(PruningError, match=r"a.th' cannot be read \(.*\); fetch it again"):
            load_start(network(), path)
    path.write_bytes(whole)
    monkeypatch.setattr(start_module, "_LIMIT", 100)
    with pytest.raises(PruningError, match=r"a.th' takes \d+ bytes, more than 100; check that it is a checkpoint"):
        load_start(network(), path)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("run",)


def test_nothing_in_the_file_is_run(tmp_path):
    path = tmp_path / "a.th"
    torch.save({"0.weight": Trap()}, path)
    text = r"a\.th' holds Python objects beside tensors, and nothing in a checkpoint is run; save the model's"
    with pytest.raises(PruningError, match=text):
        load_start(network(), path)
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(PruningError, match=r"cannot be read|holds Python objects"):
        load_start(network(), path)
    torch.save(network(), path)
    with pytest.raises(PruningError, match=text):
        load_start(network(), path)


def test_published_resnet20_reaches_its_accuracy_also_with_one_mean(data_folder):
    model, test = ResNet20(), load_cifar10(data_folder).test
    load_start(model, data_folder / "models" / "resnet20-12fca82f.th")
    model.eval()
    source = Input(255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert accuracy(model, test, source) == pytest.approx(0.915, abs=0.001)
    folded = fold_channels(model, test.x, source)
    assert (folded.mean, folded.range) == (114 / 255, 255)
    # Only the border of the image is seen differently.
    assert accuracy(model, test, folded) == pytest.approx(0.915, abs=0.005)
