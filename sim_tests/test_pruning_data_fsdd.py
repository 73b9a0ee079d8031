"""Spoken digits: the official part, folds by digit and speaker, and what the provenance says of speakers."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.pruning import PruningError
from zeroskip.pruning.data import load_fsdd


def write(folder, speakers=6):
    """Write 5 training and 1 test recording of every digit and speaker; the first code names the recording."""
    (folder / "fsdd").mkdir()
    arrays = {}
    for part, count in (("train", 5), ("test", 1)):
        digit, speaker = (a.ravel().astype(np.uint8) for a in np.mgrid[:10, :speakers, :count][:2])
        x = np.random.default_rng(count).integers(0, 256, (len(digit), 48, 32)).astype(np.uint8)
        arrays |= {f"x_{part}": x, f"y_{part}": digit, f"speaker_{part}": speaker}
    np.savez(folder / "fsdd" / "fsdd_logmel.npz", **arrays)
    return arrays


def test_official_part(tmp_path):
    arrays = write(tmp_path)
    split = load_fsdd(tmp_path, validation=60)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [240, 60, 60]
    assert split.train.x.shape == (240, 1, 48, 32)
    assert np.array_equal(split.test.x[:, 0], arrays["x_test"])
    assert np.bincount(split.validation.y).tolist() == [6] * 10
    assert "Test recordings of speakers 0 to 5: 10, 10, 10, 10, 10, 10; 6 of them also speak in" in split.provenance


def test_folds_test_every_recording_once_and_hold_every_speaker(tmp_path):
    arrays = write(tmp_path)
    tested = []
    for fold in range(5):
        split = load_fsdd(tmp_path, validation=60, fold=fold)
        assert [len(part) for part in (split.train, split.validation, split.test)] == [228, 60, 72]
        assert set(np.bincount(split.test.y)) <= {7, 8}
        assert f"Test: fold {fold} of 5 over all recordings, stratified by digit and speaker" in split.provenance
        assert "6 of them also speak in training" in split.provenance
        tested += map(bytes, split.test.x.flatten(1).numpy())
    every = np.concatenate([arrays["x_train"], arrays["x_test"]]).reshape(360, -1)
    assert sorted(tested) == sorted(map(bytes, every))


def test_an_unknown_speaker_is_refused(tmp_path):
    write(tmp_path, speakers=7)
    with pytest.raises(PruningError, match="fsdd_logmel.npz' must hold 'speaker_train' from 0 to 5, not 6"):
        load_fsdd(tmp_path)


def test_real_spoken_digits(data_folder):
    split = load_fsdd(data_folder, fold=2)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [2_100, 300, 600]
    assert np.bincount(split.test.y).tolist() == [60] * 10
    assert "speakers 0 to 5: 100, 100, 100, 100, 100, 100;" in split.provenance
