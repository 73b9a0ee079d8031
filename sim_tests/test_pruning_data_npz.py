"""Archives of arrays: what is read, and what is said of files that are missing, damaged, pickled, wrong or absurd."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from zeroskip.pruning import PruningError
from zeroskip.pruning.data import npz
from zeroskip.pruning.data.npz import Array, read_npz, read_parts

WANTED = {"x": Array("uint8", (None, 3))}
REMEDY = r"fetch or make it again as docs/formats\.md describes it \(Data folder\)"


def archive(path, **members):
    """Write a zip file whose members hold exactly these bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def npy_bytes(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npy_header(shape, dtype="|u1"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, write):
    x = np.arange(12, dtype=np.uint8).reshape(4, 3)
    write(tmp_path / "a.npz", x=x, other=np.zeros(3))
    assert np.array_equal(read_npz(tmp_path / "a.npz", WANTED)["x"], x)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.zeros((4, 3)), r"must hold 'x' as uint8 of shape \(N, 3\), not float64 of shape \(4, 3\)"),
        (np.zeros((4, 4), np.uint8), r"not uint8 of shape \(4, 4\)"),
        (np.zeros((4, 3, 1), np.uint8), r"not uint8 of shape \(4, 3, 1\)"),
        (np.zeros((0, 3), np.uint8), r"not uint8 of shape \(0, 3\)"),
        (np.array([[None] * 3]), r"must hold 'x' as uint8 of shape \(N, 3\), not object of shape \(1, 3\)"),
    ],
)
def test_wrong_shapes_and_types(tmp_path, x, text):
    np.savez(tmp_path / "a.npz", x=x)
    with pytest.raises(PruningError, match=f"Data file '.*a.npz' {'must hold' if 'must' not in text else ''}.*{text}"):
        read_npz(tmp_path / "a.npz", WANTED)


def test_missing_array_and_file(tmp_path):
    np.savez(tmp_path / "a.npz", y=np.zeros(3))
    with pytest.raises(PruningError, match=f"a.npz' has no array 'x', it holds y; {REMEDY}"):
        read_npz(tmp_path / "a.npz", WANTED)
    with pytest.raises(PruningError, match=f"none.npz' does not exist; {REMEDY}"):
        read_npz(tmp_path / "none.npz", WANTED)


def test_files_that_are_no_archive(tmp_path):
    path = tmp_path / "a.npz"
    for content in (b"", b"hello", b"\x80\x04pickle", npy_bytes(np.zeros((4, 3), np.uint8))):
        path.write_bytes(content)
        with pytest.raises(PruningError, match=f"a.npz' cannot be read .*; {REMEDY}"):
            read_npz(path, WANTED)


def test_every_cut_and_flipped_bytes_are_found(tmp_path):
    path = tmp_path / "a.npz"
    x = np.random.default_rng(0).integers(0, 256, (40, 3)).astype(np.uint8)
    np.savez_compressed(path, x=x)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(PruningError, match="a.npz'"):
            read_npz(path, WANTED)
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 0x5A
        path.write_bytes(damaged)
        # Some bytes of a zip file say nothing of the data, such as a time stamp.
        try:
            assert np.array_equal(read_npz(path, WANTED)["x"], x)
        except PruningError as error:
            assert "a.npz'" in str(error)


def test_sizes_are_checked_before_anything_is_unpacked(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.npz", x=npy_header((10**9, 3)))
    with pytest.raises(PruningError, match=r"a.npz' claims 30000\d+ bytes for 'x', more than 268435456"):
        read_npz(path, WANTED)
    archive(path, x=npy_header((50, 3)) + bytes(100))
    with pytest.raises(PruningError, match=r"a.npz' has a truncated array 'x': 228 bytes, not 278; fetch"):
        read_npz(path, WANTED)
    archive(path, x=npy_header((50, 3)) + bytes(151))
    with pytest.raises(PruningError, match="a.npz' has a too long array 'x'"):
        read_npz(path, WANTED)
    archive(path, x=npy_header((1, 3)) + bytes(5000))
    monkeypatch.setattr(npz, "_LIMIT", 2000)
    with pytest.raises(PruningError, match="a.npz' claims 5128 bytes for 'x', more than 2000"):
        read_npz(path, WANTED)


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    content = npy_bytes(np.array([[Trap()] * 3], dtype=object), allow_pickle=True)
    with pytest.raises(PruningError, match="not object of shape"):
        read_npz(archive(tmp_path / "a.npz", x=content), WANTED)


def parts(**changes):
    arrays = {
        "x_train": np.zeros((4, 3), np.float32), "y_train": np.arange(4, dtype=np.uint8),
        "x_test": np.zeros((2, 3), np.float32), "y_test": np.zeros(2, np.uint8),
    }  # fmt: skip
    return arrays | changes


def test_parts_have_int64_labels(tmp_path):
    np.savez(tmp_path / "a.npz", **parts())
    train, test = read_parts(tmp_path / "a.npz", Array("float32", (None, 3)), 4)
    assert train.y.dtype == np.int64 and train.y.tolist() == [0, 1, 2, 3]
    assert (test.x.shape, test.extra) == ((2, 3), {})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"y_train": np.arange(5, dtype=np.uint8)}, "has 4 samples in 'x_train', but 5 entries in 'y_train'"),
        ({"y_test": np.array([0, 4], np.uint8)}, "must hold 'y_test' from 0 to 3, not 4"),
        ({"y_test": np.array([0.0, 1.0])}, r"must hold 'y_test' as uint8 of shape \(N\), not float64 of shape"),
        ({"x_test": np.array([[np.nan, 1, np.inf]] * 2, np.float32)}, "has 4 values in 'x_test' that are not finite"),
    ],
)
def test_parts_are_checked(tmp_path, changes, text):
    np.savez(tmp_path / "a.npz", **parts(**changes))
    with pytest.raises(PruningError, match=f"Data file '.*a.npz' {text}.*; {REMEDY}"):
        read_parts(tmp_path / "a.npz", Array("float32", (None, 3)), 4)
