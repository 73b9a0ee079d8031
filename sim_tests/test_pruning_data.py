"""Data sets: loading by name, sets of samples, and the digits split."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from zeroskip.pruning import PruningError
from zeroskip.pruning.data import DATA_SETS, ImageSet, idx, load, load_digits
from zeroskip.pruning.errors import DataError


def test_digits_split_is_fixed_disjoint_and_stratified():
    first, second = load_digits(), load_digits()
    parts = (first.train, first.validation, first.test)
    assert [len(p) for p in parts] == [1097, 200, 500]
    assert all(
        a.digest() == b.digest() for a, b in zip(parts, (second.train, second.validation, second.test), strict=True)
    )
    assert first.train.x.dtype == torch.uint8
    assert int(first.train.x.max()) == 16
    counts = np.bincount(first.test.y.numpy(), minlength=10)
    assert counts.min() >= 47
    assert counts.max() <= 53
    rows = torch.cat([p.x.flatten(1) for p in parts])
    from sklearn.datasets import load_digits as original

    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, original().data.astype(int).tolist()))


def test_unknown_sets_and_folds_are_refused():
    known = "cifar10, digits, ecg5000, ecg5000_normal, fashion_mnist, fsdd, mnist"
    with pytest.raises(PruningError, match=f"Unknown data set 'cifar'; known are: {known}"):
        load("cifar")
    with pytest.raises(
        PruningError, match="Data set 'digits' has a test part of its own and no folds; folds have ecg5"
    ):
        load("digits", fold=1)


FILES = {
    "cifar10": "cifar10/cifar10_train10k_test1k.npz",
    "ecg5000": "ecg5000/ecg5000_500.npz",
    "ecg5000_normal": "ecg5000/ecg5000_500.npz",
    "fashion_mnist": "fashion_mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
    "fsdd": "fsdd/fsdd_logmel.npz",
    "mnist": "mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
}


@pytest.mark.parametrize("name", FILES)
def test_missing_data_are_named_by_folder_and_file(name, tmp_path, monkeypatch):
    assert FILES.keys() == DATA_SETS.keys()
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    monkeypatch.setattr(idx, "_DEBIAN_FASHION", tmp_path / "debian")
    wanted = f"; give --data DIR or set ZEROSKIP_DATA to a folder with {FILES[name]}"
    for folder, text in (
        (None, "No data folder is known"),
        (tmp_path / "x", f"Data folder '{tmp_path}/x' does not exist"),
    ):
        with pytest.raises(DataError, match=re.escape(text + wanted)):
            load(name, folder)
    place, file = FILES[name].split("/")
    with pytest.raises(DataError, match=re.escape(f"'{tmp_path / place}")) as error:
        load(name, tmp_path)
    assert file in str(error.value) and "does not exist" in str(error.value)


def test_validation_part_can_be_chosen():
    assert len(load("digits", validation=100).validation) == 100


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (
            torch.zeros(2, 1, 4, 4),
            torch.zeros(2),
            r"Samples must be uint8 or int8 of shape \(N, C, H, W\) or \(N, C, T\)",
        ),
        (torch.zeros(2, 4, dtype=torch.uint8), torch.zeros(2), r"not torch\.uint8 \(2, 4\); turn floats into codes"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3), "The set has 2 samples, but labels of shape"),
        (torch.zeros(2, 1, 4, dtype=torch.int8), torch.zeros(2), "Labels must be int64, not torch.float32"),
        (torch.zeros(0, 1, 4, dtype=torch.int8), torch.zeros(0), "Labels must be int64, not torch.float32"),
        (torch.zeros(1, 1, 4, dtype=torch.int8), torch.tensor([-1]), "from 0 on, but the least is -1"),
    ],
)
def test_image_set_refuses_wrong_shapes_and_types(x, y, text):
    with pytest.raises(PruningError, match=text):
        ImageSet(x, y)


def test_digest_knows_the_sign_of_codes():
    codes, labels = torch.arange(8, dtype=torch.uint8).reshape(2, 1, 4), torch.tensor([0, 1])
    unsigned, signed = ImageSet(codes, labels), ImageSet(codes.to(torch.int8), labels)
    assert unsigned.digest() != signed.digest()
    assert unsigned.pick([1, 0]).y.tolist() == [1, 0]
    assert unsigned.pick([1, 0]).pick([1, 0]).digest() == unsigned.digest()
