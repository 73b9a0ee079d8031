"""Heartbeats: the stated quantization, folds, and the normal beats an autoencoder is trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zeroskip.pruning import PruningError
from zeroskip.pruning.data import load_ecg, load_normal_ecg
from zeroskip.pruning.data.ecg import series_codes


def write(folder, labels=None):
    (folder / "ecg5000").mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 70), ("test", 30)):
        arrays[f"x_{part}"] = random.normal(0, 2, (count, 140)).astype(np.float32)
        arrays[f"y_{part}"] = (
            np.minimum(np.arange(count) % 6, 4) if labels is None else np.full(count, labels)
        ).astype(np.uint8)
    np.savez(folder / "ecg5000" / "ecg5000_500.npz", **arrays)
    return arrays


def test_codes_are_sixteenths_half_to_even_and_saturate():
    series = np.array([0.0, 1.0, -1.0, 0.5 / 16, 1.5 / 16, -0.5 / 16, 7.9375, 8.0, -8.0, -9.0])
    assert series_codes(series).tolist() == [0, 16, -16, 0, 2, 0, 127, 127, -128, -128]
    assert series_codes(series).dtype == np.int8


def test_own_part_and_folds(tmp_path):
    arrays = write(tmp_path)
    split = load_ecg(tmp_path, validation=20)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [50, 20, 30]
    assert split.train.x.dtype == torch.int8
    assert np.array_equal(split.test.x[:, 0], series_codes(arrays["x_test"]))
    assert "int8 codes of 1/16 (half to even, saturating at 8)" in split.provenance
    tested = [row for fold in range(5) for row in map(bytes, load_ecg(tmp_path, 20, fold).test.x.flatten(1).numpy())]
    every = series_codes(np.concatenate([arrays["x_train"], arrays["x_test"]]))
    assert sorted(tested) == sorted(map(bytes, every))


def test_training_part_of_the_autoencoder_is_normal(tmp_path):
    write(tmp_path)
    for fold in (None, 0, 4):
        classes, normal = load_ecg(tmp_path, 20, fold), load_normal_ecg(tmp_path, 20, fold)
        assert not normal.train.y.any()
        assert len(normal.train) == int((classes.train.y == 0).sum())
        assert torch.equal(normal.train.x, classes.train.x[classes.train.y == 0])
        assert torch.equal(normal.test.x, classes.test.x)
        assert torch.equal(normal.test.y, (classes.test.y != 0).long())
        assert set(normal.validation.y.tolist()) == {0, 1}
        left_out = len(classes.train) - len(normal.train)
        assert f"the {left_out} other beats of the training part are left out" in normal.provenance


@pytest.mark.parametrize("label", [0, 3])
def test_beats_of_one_kind_are_refused(tmp_path, label):
    write(tmp_path, label)
    with pytest.raises(PruningError, match=r"ecg5000_500.npz' must hold normal beats \(class 0\) and others; fetch it"):
        load_normal_ecg(tmp_path)


def test_real_beats(data_folder):
    split = load_ecg(data_folder, fold=0)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [330, 70, 100]
    assert int(split.train.x.min()) > -128 and int(split.train.x.max()) < 127
    normal = load_normal_ecg(data_folder, fold=0)
    assert [len(part) for part in (normal.train, normal.validation, normal.test)] == [192, 70, 100]
