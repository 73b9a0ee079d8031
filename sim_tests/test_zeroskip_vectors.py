"""The user's arrays: what is a code, what is quantized, what is refused, and that output files are whole."""

from __future__ import annotations

import errno
import re

import numpy as np
import pytest

from zeroskip.compiler.errors import InputError
from zeroskip.compiler.ir import Model, Tensor
from zeroskip.vectors import check_outputs, read_inputs, sample_inputs, to_codes, to_floats, write_outputs

IMAGE = Tensor("image", (1, 2, 3), bits=8, signed=False, scale=0.5, zero_point=4)
CODES = np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3)
ARCHIVE = re.escape("must be an .npz archive; write it with numpy.savez('x.npz', image=...)")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.npz"


def test_integers_are_codes(path):
    np.savez(path, image=CODES, other=np.zeros(3))
    codes = read_inputs(path, IMAGE)
    assert codes.dtype == np.int64
    assert np.array_equal(codes, CODES)


def test_a_single_array_may_have_any_name(path):
    np.savez(path, anything=CODES)
    assert np.array_equal(read_inputs(path, IMAGE), CODES)


def test_a_missing_channel_axis_of_one_is_added(path):
    np.savez(path, image=CODES[:, 0])
    assert np.array_equal(read_inputs(path, IMAGE), CODES)


def test_floats_are_quantized_half_to_even_and_clamped():
    values = np.array([-100.0, -0.25, 0.25, 0.75, 1.0, 1000.0], np.float32).reshape(1, 1, 2, 3)
    assert to_codes(values, IMAGE, "Inputs").ravel().tolist() == [0, 4, 4, 6, 6, 255]


def test_an_input_with_boundaries_of_its_own_has_no_other_rule():
    tensor = Tensor("x", (3,), 2, True, boundaries=(-np.inf, 0.25, 0.75))
    values = np.array([[-9.0, 0.0, 0.25], [0.5, 0.75, 9.0]], np.float32)
    assert to_codes(values, tensor, "Inputs").tolist() == [[-1, -1, 0], [0, 1, 1]]
    assert to_codes(np.array([[-2, 0, 1]]), tensor, "Inputs").tolist() == [[-2, 0, 1]]


def test_floats_of_codes_give_the_codes_back():
    values = (CODES.astype(np.float64) - IMAGE.zero_point) * IMAGE.scale
    assert np.array_equal(to_codes(values, IMAGE, "Inputs"), CODES)
    assert np.array_equal(to_floats(CODES, IMAGE, "Inputs"), values)
    assert np.array_equal(to_floats(values, IMAGE, "Inputs"), values)


def test_the_floats_of_codes_with_boundaries_are_the_least_that_have_them():
    tensor = Tensor("x", (3,), 2, True, boundaries=(-np.inf, 0.25, 0.75))
    codes = np.array([[-1, 0, 1]])
    floats = to_floats(codes, tensor, "Inputs")
    assert floats.tolist() == [[float(np.nextafter(np.float32(0.25), np.float32(-1))), 0.25, 0.75]]
    assert np.array_equal(to_codes(floats, tensor, "Inputs"), codes)


SHAPE = "must have shape (vectors, 1, 2, 3) with at least one vector, not"


def test_a_sequence_gets_its_height():
    sequence = np.arange(10, dtype=np.uint8).reshape(1, 2, 5)
    assert np.array_equal(to_codes(sequence, Tensor("x", (2, 1, 5)), "Inputs"), sequence[:, :, None])
    assert np.array_equal(to_codes(sequence[:, :1], Tensor("x", (1, 1, 5)), "Inputs"), sequence[:, :1, None])


REFUSED = {
    "shape": (CODES[..., :2], f"{SHAPE} (2, 1, 2, 2)"),
    "no batch axis": (CODES[0, 0], f"{SHAPE} (2, 3)"),
    "no vector": (CODES[:0], f"{SHAPE} (0, 1, 2, 3)"),
    "too large": (
        np.full(CODES.shape, 256),
        "must hold codes from 0 to 255, but it has 256 to 256; give floats to have them quantized",
    ),
    "negative": (
        CODES.astype(np.int8) - 1,
        "must hold codes from 0 to 255, but it has -1 to 10; give floats to have them quantized",
    ),
    "truth values": (CODES > 3, "must hold integers (codes) or floats, not bool"),
    "complex numbers": (CODES * 1j, "must hold integers (codes) or floats, not complex128"),
    "text": (np.full(CODES.shape, "a"), "must hold integers (codes) or floats, not <U1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unusable_array_is_refused(path, name):
    array, text = REFUSED[name]
    np.savez(path, image=array)
    with pytest.raises(InputError, match=re.escape(f"File '{path}' {text}") + "$"):
        read_inputs(path, IMAGE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_named_with_its_place(path, value):
    values = np.zeros(CODES.shape, np.float32)
    values[1, 0, 1, 2] = value
    np.savez(path, image=values)
    with pytest.raises(InputError, match=rf"finite numbers, but at \(1, 0, 1, 2\) it has {value}; correct it$"):
        read_inputs(path, IMAGE)


def test_a_missing_file_is_refused(path):
    with pytest.raises(InputError, match=r"x\.npz' does not exist; name another one with --inputs$"):
        read_inputs(path, IMAGE)


def test_arrays_of_other_names_are_refused(path):
    np.savez(path, a=CODES, b=CODES)
    with pytest.raises(InputError, match=r"must hold an array 'image', but it holds a, b; write it with numpy\.savez"):
        read_inputs(path, IMAGE)


def test_an_archive_without_arrays_is_refused(path):
    np.savez(path)
    with pytest.raises(InputError, match="must hold an array 'image', but it holds none; write it"):
        read_inputs(path, IMAGE)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04pickle"])
def test_another_file_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match=ARCHIVE):
        read_inputs(path, IMAGE)


def test_a_single_npy_file_is_refused(path):
    with path.open("wb") as file:
        np.save(file, CODES)
    with pytest.raises(InputError, match=ARCHIVE):
        read_inputs(path, IMAGE)


def test_a_truncated_archive_is_refused(path):
    np.savez(path, image=CODES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=ARCHIVE):
        read_inputs(path, IMAGE)


def test_a_flipped_byte_is_found(path):
    np.savez(path, image=CODES)
    content = bytearray(path.read_bytes())
    content[content.index(CODES.tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is not a readable \.npz archive .* \(Bad CRC-32.*; write it again$"):
        read_inputs(path, IMAGE)


def test_objects_are_never_unpickled(path):
    np.savez(path, image=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="of plain arrays .*allow_pickle=False"):
        read_inputs(path, IMAGE)


def test_outputs_are_written_under_their_name(path):
    write_outputs(path, "output", CODES)
    with np.load(path) as archive:
        assert archive.files == ["output"]
        assert np.array_equal(archive["output"], CODES)
    assert [entry.name for entry in path.parent.iterdir()] == ["x.npz"]


def test_outputs_in_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"Folder '.*none' of .* does not exist; make it, or name another"):
        check_outputs(tmp_path / "none" / "y.npz")
    assert not (tmp_path / "none").exists()


def test_a_folder_as_output_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be written; name another one with --outputs$"):
        write_outputs(tmp_path, "output", CODES)


def test_a_full_disk_leaves_the_old_outputs_and_nothing_else(path, monkeypatch):
    write_outputs(path, "output", CODES)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device; name another one"):
        write_outputs(path, "output", CODES + 1)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["x.npz"]


def test_samples_are_golden_or_random_of_a_fixed_seed():
    golden = Model("net", (), {"image": IMAGE}, "image", "image", {"image": CODES})
    assert sample_inputs(golden) is CODES
    plain = Model("net", (), {"image": IMAGE}, "image", "image")
    samples = sample_inputs(plain)
    assert samples.shape == (2, 1, 2, 3)
    assert np.array_equal(samples, sample_inputs(plain))
    assert np.array_equal(to_codes(samples, IMAGE, "Inputs"), samples)
