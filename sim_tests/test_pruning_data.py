"""Data sets: the digits split, and what is said of missing, damaged and inconsistent idx files."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch

from zeroskip.pruning import PruningError
from zeroskip.pruning.data import ImageSet, load, load_digits, load_mnist, read_idx


def idx_bytes(array, magic=None):
    head = struct.pack(">I", magic if magic is not None else 0x800 + array.ndim)
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder, **replaced):
    """Write a whole, made-up MNIST; ``replaced`` gives other bytes for some files."""
    root = folder / "mnist"
    root.mkdir()
    arrays = {
        "train-images-idx3-ubyte": np.zeros((60_000, 28, 28)), "train-labels-idx1-ubyte": np.zeros(60_000),
        "t10k-images-idx3-ubyte": np.zeros((10_000, 28, 28)), "t10k-labels-idx1-ubyte": np.zeros(10_000),
    }  # fmt: skip
    for name, array in arrays.items():
        (root / name).write_bytes(replaced.get(name.split("-ubyte")[0].replace("-", "_"), None) or idx_bytes(array))
    return folder


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


def test_idx_round_trip_plain_and_gz(tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(array)))
    assert np.array_equal(read_idx(tmp_path / "a"), array)
    assert np.array_equal(read_idx(tmp_path / "a.gz"), array)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            idx_bytes(np.zeros((2, 3, 4)))[:-1],
            r"'.*file' is truncated: 23 bytes of data, but its header says 24; fetch it again",
        ),
        (idx_bytes(np.zeros((2, 3, 4))) + b"x", "is too long: 25 bytes of data, but its header says 24"),
        (b"\0\0", "is truncated: 2 bytes, but the magic number needs 4"),
        (b"\0\0\x08\x03\0\0", "is truncated inside its header"),
        (idx_bytes(np.zeros(3), magic=0x0D01), "has magic number 0x00000d01, but idx files of bytes begin with"),
    ],
)
def test_damaged_idx_files(tmp_path, content, text):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(PruningError, match=text):
        read_idx(tmp_path / "file")


def test_truncated_gz_and_missing_file(tmp_path):
    whole = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 255, (20, 8, 8))))
    (tmp_path / "file.gz").write_bytes(whole[:-20])
    with pytest.raises(PruningError, match=r"'.*file\.gz' cannot be read \(.*\); fetch it again"):
        read_idx(tmp_path / "file.gz")
    with pytest.raises(PruningError, match=r"'.*other' does not exist; put the idx file there, plain or as \.gz"):
        read_idx(tmp_path / "other")


def test_missing_folders(tmp_path, monkeypatch):
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    with pytest.raises(PruningError, match="No data folder is known; give --data DIR or set ZEROSKIP_DATA"):
        load_mnist()
    with pytest.raises(PruningError, match="Data folder '.*nowhere' does not exist; give --data DIR"):
        load_mnist(tmp_path / "nowhere")
    with pytest.raises(PruningError, match="Data folder '.*mnist' does not exist; put MNIST's four idx files there"):
        load_mnist(tmp_path)
    with pytest.raises(PruningError, match="Unknown data set 'cifar'; known are: digits, mnist"):
        load("cifar")


def test_count_mismatch_names_both_files(tmp_path):
    folder = write_mnist(tmp_path, train_labels_idx1=idx_bytes(np.zeros(59_999)))
    with pytest.raises(
        PruningError, match="'train-images-idx3-ubyte' has 60000 images, but 'train-labels-idx1-ubyte' has 59999"
    ):
        load_mnist(folder)


def test_labels_out_of_range(tmp_path):
    folder = write_mnist(tmp_path, t10k_labels_idx1=idx_bytes(np.full(10_000, 12)))
    with pytest.raises(PruningError, match="t10k-labels-idx1-ubyte' must hold one label from 0 to 9 an image"):
        load_mnist(folder)


def test_real_mnist_has_its_parts(data_folder):
    split = load_mnist(data_folder)
    assert [len(p) for p in (split.train, split.validation, split.test)] == [55_000, 5_000, 10_000]
    assert np.bincount(split.test.y.numpy()).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_image_set_refuses_wrong_shapes():
    with pytest.raises(PruningError, match=r"Images must be uint8 of shape \(N, C, H, W\), not torch\.float32"):
        ImageSet(torch.zeros(2, 1, 4, 4), torch.zeros(2))
    with pytest.raises(PruningError, match="The set has 2 images, but labels of shape"):
        ImageSet(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3))
