"""Image data sets as uint8 codes in memory: scikit-learn's digits, and idx files such as MNIST."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.errors import PruningError

__all__ = ["ImageSet", "Split", "data_folder", "load", "load_digits", "load_mnist", "read_idx"]

_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 60_000),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 10_000),
}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images ``x`` (N, C, H, W) uint8 codes and labels ``y`` (N,) int64."""

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.x.dtype != torch.uint8 or self.x.dim() != 4:
            raise PruningError(f"Images must be uint8 of shape (N, C, H, W), not {self.x.dtype} {tuple(self.x.shape)}")
        if self.y.dim() != 1 or len(self.x) != len(self.y):
            raise PruningError(f"The set has {len(self.x)} images, but labels of shape {tuple(self.y.shape)}")

    def __len__(self) -> int:
        return len(self.y)

    def take(self, start: int, stop: int) -> ImageSet:
        """Return the samples ``start`` to ``stop`` (exclusive)."""
        return ImageSet(self.x[start:stop], self.y[start:stop])

    def digest(self) -> str:
        """Return the sha256 of images and labels."""
        h = hashlib.sha256(repr(tuple(self.x.shape)).encode())
        h.update(self.x.contiguous().numpy().tobytes())
        h.update(self.y.contiguous().numpy().astype("<i8").tobytes())
        return h.hexdigest()


@dataclass(frozen=True, eq=False)
class Split:
    """A data set in its parts: ``train``, ``validation`` (for every choice) and ``test`` (read at the end of a run).

    ``test_use`` says how often the test part was looked at while the zoo's recipes were made.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    provenance: str
    test_use: str = "read once"


def data_folder(folder: Path | str | None = None) -> Path:
    """Return the folder of downloaded data sets: ``folder``, else the environment variable ``ZEROSKIP_DATA``."""
    chosen = folder or os.environ.get("ZEROSKIP_DATA")
    if not chosen:
        raise PruningError("No data folder is known; give --data DIR or set ZEROSKIP_DATA to a folder with mnist/*.gz")
    path = Path(chosen)
    if not path.is_dir():
        raise PruningError(
            f"Data folder '{path}' does not exist; give --data DIR or set ZEROSKIP_DATA to one that does"
        )
    return path


def read_idx(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read one idx file of unsigned bytes (plain, or gzip when the name ends in ``.gz``), every field checked."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise PruningError(f"Data file '{path}' does not exist; put the idx file there, plain or as .gz") from None
    except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
        raise PruningError(f"Data file '{path}' cannot be read ({error}); fetch it again") from error
    if len(raw) < 4:
        raise PruningError(
            f"Data file '{path}' is truncated: {len(raw)} bytes, but the magic number needs 4; fetch it again"
        )
    zero, kind, axes = struct.unpack(">HBB", raw[:4])
    if zero != 0 or kind != 8 or axes not in (1, 3):
        raise PruningError(
            f"Data file '{path}' has magic number 0x{raw[:4].hex()}, but idx files of bytes begin with 0x00000801 or "
            "0x00000803; check that the file is what its name says"
        )
    if len(raw) < 4 + 4 * axes:
        raise PruningError(f"Data file '{path}' is truncated inside its header; fetch it again")
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    expected, found = int(np.prod(shape, dtype=np.int64)), len(raw) - 4 - 4 * axes
    if found != expected:
        state = "is truncated" if found < expected else "is too long"
        raise PruningError(
            f"Data file '{path}' {state}: {found} bytes of data, but its header says {expected}; fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_pair(folder: Path, part: str) -> ImageSet:
    images_name, labels_name, count = _MNIST_FILES[part]
    arrays = []
    for name in (images_name, labels_name):
        plain = folder / name
        path = plain if plain.exists() else folder / f"{name}.gz"
        arrays.append((path, read_idx(path)))
    (images_path, images), (labels_path, labels) = arrays
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise PruningError(f"Data file '{images_path}' holds shape {images.shape}, but MNIST images are (N, 28, 28)")
    if labels.ndim != 1 or (labels.size and int(labels.max()) > 9):
        raise PruningError(f"Data file '{labels_path}' must hold one label from 0 to 9 an image")
    if len(images) != len(labels):
        raise PruningError(
            f"'{images_path.name}' has {len(images)} images, but '{labels_path.name}' has {len(labels)} labels; "
            "fetch both files again from one source"
        )
    if len(images) != count:
        raise PruningError(f"Data file '{images_path}' has {len(images)} images, but MNIST's {part} part has {count}")
    return ImageSet(torch.tensor(images).unsqueeze(1), torch.tensor(labels, dtype=torch.int64))


def load_mnist(folder: Path | str | None = None, validation: int = 5_000) -> Split:
    """Load MNIST from ``folder/mnist/*-ubyte[.gz]``; the last ``validation`` training images are set apart."""
    root = data_folder(folder) / "mnist"
    if not root.is_dir():
        raise PruningError(f"Data folder '{root}' does not exist; put MNIST's four idx files there, plain or as .gz")
    full, test = _read_pair(root, "train"), _read_pair(root, "test")
    if not 0 < validation < len(full):
        raise PruningError(f"validation must be between 1 and {len(full) - 1} images, not {validation!r}")
    provenance = (
        "MNIST (Y. LeCun, C. Cortes, C. J. C. Burges), commonly given as CC BY-SA 3.0; training images as rebuilt from "
        "lossless PNG sheets of github.com/taneishi/convnetjs (MIT), where pixels of value 1 are 0; test images and "
        "labels are the original files. The golden samples hold 16 of its images."
    )
    cut = len(full) - validation
    return Split("mnist", full.take(0, cut), full.take(cut, len(full)), test, provenance)


def load_digits(validation: int = 200, test: int = 500, seed: int = 0) -> Split:
    """Load scikit-learn's digits (1,797 images 1x8x8, codes 0..16) in a fixed split with equal shares of each class."""
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError:
        raise PruningError(
            "scikit-learn is missing, it holds the digits data set; run: pip install scikit-learn"
        ) from None
    bunch = sklearn_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    if not 0 < validation + test < len(labels):
        raise PruningError(f"validation + test must be between 1 and {len(labels) - 1} images, not {validation + test}")
    order = _stratified(labels, seed)
    parts = (order[test + validation :], order[test : test + validation], order[:test])
    train, held, tested = (ImageSet(torch.tensor(images[p]).unsqueeze(1), torch.tensor(labels[p])) for p in parts)
    provenance = (
        "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI Machine Learning Repository, "
        "CC BY 4.0), as shipped in scikit-learn (BSD-3-Clause). The golden samples hold 16 of its images."
    )
    use = "read after each of several pruning rates, which were then lowered"
    return Split("digits", train, held, tested, provenance, use)


def _stratified(labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], seed: int) -> list[int]:
    """Return a seeded order whose every prefix holds the classes in nearly their overall shares."""
    rng = np.random.default_rng(seed)
    keyed: list[tuple[float, int]] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        offset = rng.random()
        keyed += [((place + offset) / len(members), int(index)) for place, index in enumerate(members)]
    return [index for _, index in sorted(keyed)]


def load(name: str, folder: Path | str | None = None, validation: int | None = None) -> Split:
    """Load the data set ``name`` (``digits`` or ``mnist``) with ``validation`` images set apart."""
    if name == "digits":
        return load_digits() if validation is None else load_digits(validation)
    if name == "mnist":
        return load_mnist(folder) if validation is None else load_mnist(folder, validation)
    raise PruningError(f"Unknown data set '{name}'; known are: digits, mnist")
