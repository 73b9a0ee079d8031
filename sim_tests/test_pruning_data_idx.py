"""Idx files: MNIST and Fashion-MNIST, and what is said of missing, damaged and inconsistent files."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from zeroskip.pruning import PruningError
from zeroskip.pruning.data import idx
from zeroskip.pruning.data.idx import load_fashion_mnist, load_mnist, read_idx


def idx_bytes(array, magic=None):
    head = struct.pack(">I", magic if magic is not None else 0x800 + array.ndim)
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder, name="mnist", **replaced):
    """Write a whole, made-up MNIST; ``replaced`` gives other bytes for some files."""
    root = folder / name
    root.mkdir()
    arrays = {
        "train-images-idx3-ubyte": np.zeros((60_000, 28, 28)), "train-labels-idx1-ubyte": np.zeros(60_000),
        "t10k-images-idx3-ubyte": np.zeros((10_000, 28, 28)), "t10k-labels-idx1-ubyte": np.zeros(10_000),
    }  # fmt: skip
    for name, array in arrays.items():
        (root / name).write_bytes(replaced.get(name.split("-ubyte")[0].replace("-", "_"), None) or idx_bytes(array))
    return folder


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
        (struct.pack(">IIII", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1), "is truncated: 0 bytes of data, but its header"),
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


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "_LIMIT", 1000)
    (tmp_path / "file.gz").write_bytes(gzip.compress(bytes(5000)))
    with pytest.raises(PruningError, match=r"'.*file\.gz' holds more than 1000 bytes; check that it is what its name"):
        read_idx(tmp_path / "file.gz")


def test_wrong_image_shape_and_count(tmp_path):
    folder = write_mnist(tmp_path, t10k_images_idx3=idx_bytes(np.zeros((10_000, 8, 8))))
    with pytest.raises(
        PruningError, match=r"holds shape \(10000, 8, 8\), but MNIST images are \(N, 28, 28\); fetch it"
    ):
        load_mnist(folder)
    root = folder / "mnist"
    (root / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((10, 28, 28))))
    (root / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(10)))
    with pytest.raises(PruningError, match="has 10 images, but MNIST's test part has 10000; fetch it again"):
        load_mnist(folder)


def test_fashion_mnist_is_found_in_the_data_folder_or_the_debian_package(tmp_path, monkeypatch):
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    monkeypatch.setattr(idx, "_DEBIAN_FASHION", tmp_path / "debian")
    with pytest.raises(PruningError, match="No data folder is known"):
        load_fashion_mnist()
    with pytest.raises(PruningError, match="fashion_mnist' does not exist; .*apt-get install dataset-fashion-mnist"):
        load_fashion_mnist(tmp_path)
    bright = idx_bytes(np.full((60_000, 28, 28), 7))
    write_mnist(tmp_path, "debian", train_images_idx3=bright)
    first = load_fashion_mnist()
    assert [len(p) for p in (first.train, first.validation, first.test)] == [55_000, 5_000, 10_000]
    assert load_fashion_mnist(tmp_path).train.x[0, 0, 0, 0] == 7
    write_mnist(tmp_path, "fashion_mnist")
    assert load_fashion_mnist(tmp_path).train.x[0, 0, 0, 0] == 0


def test_real_fashion_mnist_has_its_parts(data_folder):
    split = load_fashion_mnist(data_folder)
    assert [len(p) for p in (split.train, split.validation, split.test)] == [55_000, 5_000, 10_000]
    assert np.bincount(split.test.y.numpy()).tolist() == [1000] * 10
    assert "Validation: the last 5000 training images." in split.provenance
