"""CIFAR-10: parts, strata and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.pruning import PruningError
from zeroskip.pruning.data import load_cifar10


def write(folder, shape=(3, 32, 32)):
    (folder / "cifar10").mkdir()
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 200), ("test", 20)):
        arrays[f"x_{part}"] = random.integers(0, 256, (count, *shape)).astype(np.uint8)
        arrays[f"y_{part}"] = (np.arange(count) % 10).astype(np.uint8)
    np.savez(folder / "cifar10" / "cifar10_train10k_test1k.npz", **arrays)
    return arrays


def test_parts_are_disjoint_and_stratified(tmp_path):
    arrays = write(tmp_path)
    split = load_cifar10(tmp_path, validation=50)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [150, 50, 20]
    assert np.bincount(split.validation.y).tolist() == [5] * 10
    rows = np.concatenate([split.train.x.flatten(1), split.validation.x.flatten(1)])
    assert sorted(map(bytes, rows)) == sorted(map(bytes, arrays["x_train"].reshape(200, -1)))
    assert np.array_equal(split.test.x, arrays["x_test"])
    assert load_cifar10(tmp_path, validation=50).train.digest() == split.train.digest()
    assert "Validation: 50 training images, stratified by class, seed 0" in split.provenance


def test_wrong_shape_names_the_file_and_the_remedy(tmp_path):
    write(tmp_path, (32, 32, 3))
    with pytest.raises(PruningError, match=r"test1k.npz' must hold 'x_train' as uint8 of shape \(N, 3, 32, 32\), not"):
        load_cifar10(tmp_path)


def test_real_cifar10(data_folder):
    split = load_cifar10(data_folder)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [9_000, 1_000, 1_000]
    assert split.test.y[:5].tolist() == [3, 8, 8, 0, 6]
