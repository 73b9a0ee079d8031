"""MNIST and Fashion-MNIST: idx files of unsigned bytes, every field checked."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zeroskip.pruning.data.sets import ImageSet, Split, check_validation, data_folder
from zeroskip.pruning.errors import DataError

__all__ = ["load_fashion_mnist", "load_mnist", "read_idx"]

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 60_000),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 10_000),
}
_NAMES = "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"
# MNIST's training images take 47 MB; a file that claims or unpacks to more is not one of ours.
_LIMIT = 1 << 27
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
_INSTALL = "run: apt-get install dataset-fashion-mnist"


@dataclass(frozen=True)
class _Source:
    """One family of four files: how errors call it, and where it comes from."""

    name: str
    title: str
    provenance: str


_MNIST = _Source(
    "mnist",
    "MNIST",
    "MNIST (Y. LeCun, C. Cortes, C. J. C. Burges), commonly given as CC BY-SA 3.0; training images as rebuilt from "
    "lossless PNG sheets of github.com/taneishi/convnetjs (MIT), where pixels of value 1 are 0; test images and "
    "labels are the original files. The golden samples hold 16 of its images.",
)
_FASHION = _Source(
    "fashion_mnist",
    "Fashion-MNIST",
    "Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf; (c) 2017 Zalando SE, MIT), the original files. The golden samples "
    "hold 16 of its images.",
)


def _content(path: Path) -> bytes:
    """Return the bytes of a file, unpacked when its name ends in ``.gz``."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw: bytes = file.read(_LIMIT + 1)
    except FileNotFoundError:
        raise DataError(f"Data file '{path}' does not exist; put the idx file there, plain or as .gz") from None
    except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
        raise DataError(f"Data file '{path}' cannot be read ({error}); fetch it again") from error
    if len(raw) > _LIMIT:
        raise DataError(f"Data file '{path}' holds more than {_LIMIT} bytes; check that it is what its name says")
    return raw


def read_idx(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read one idx file of unsigned bytes (plain, or gzip when the name ends in ``.gz``), every field checked."""
    raw = _content(path)
    if len(raw) < 4:
        raise DataError(
            f"Data file '{path}' is truncated: {len(raw)} bytes, but the magic number needs 4; fetch it again"
        )
    zero, kind, axes = struct.unpack(">HBB", raw[:4])
    if zero != 0 or kind != 8 or axes not in (1, 3):
        raise DataError(
            f"Data file '{path}' has magic number 0x{raw[:4].hex()}, but idx files of bytes begin with 0x00000801 or "
            "0x00000803; check that the file is what its name says"
        )
    if len(raw) < 4 + 4 * axes:
        raise DataError(f"Data file '{path}' is truncated inside its header; fetch it again")
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    # Python's integers: a product of three 32-bit sizes does not fit 64 bits.
    expected, found = 1, len(raw) - 4 - 4 * axes
    for size in shape:
        expected *= size
    if found != expected:
        state = "is truncated" if found < expected else "is too long"
        raise DataError(
            f"Data file '{path}' {state}: {found} bytes of data, but its header says {expected}; fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_pair(folder: Path, part: str, title: str) -> ImageSet:
    images_name, labels_name, count = _FILES[part]
    arrays = []
    for name in (images_name, labels_name):
        plain = folder / name
        path = plain if plain.exists() else folder / f"{name}.gz"
        arrays.append((path, read_idx(path)))
    (images_path, images), (labels_path, labels) = arrays
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise DataError(
            f"Data file '{images_path}' holds shape {images.shape}, but {title} images are (N, 28, 28); fetch it again"
        )
    if labels.ndim != 1 or (labels.size and int(labels.max()) > 9):
        raise DataError(f"Data file '{labels_path}' must hold one label from 0 to 9 an image; fetch it again")
    if len(images) != len(labels):
        raise DataError(
            f"'{images_path.name}' has {len(images)} images, but '{labels_path.name}' has {len(labels)} labels; "
            f"fetch both files of '{folder}' again from one source"
        )
    if len(images) != count:
        raise DataError(
            f"Data file '{images_path}' has {len(images)} images, but {title}'s {part} part has {count}; fetch it again"
        )
    return ImageSet(torch.tensor(images).unsqueeze(1), torch.tensor(labels, dtype=torch.int64))


def _load(root: Path, source: _Source, validation: int) -> Split:
    full, test = (_read_pair(root, part, source.title) for part in ("train", "test"))
    check_validation(validation, len(full))
    cut = len(full) - validation
    provenance = f"{source.provenance} Validation: the last {validation} training images."
    return Split(source.name, full.take(0, cut), full.take(cut, len(full)), test, provenance)


def load_mnist(folder: Path | str | None = None, validation: int = 5_000) -> Split:
    """Load MNIST from ``folder/mnist/*-ubyte[.gz]``; the last ``validation`` training images are set apart."""
    root = data_folder(folder, f"mnist/{_NAMES}") / "mnist"
    if not root.is_dir():
        raise DataError(f"Data folder '{root}' does not exist; put MNIST's four idx files there, as {_NAMES} or plain")
    return _load(root, _MNIST, validation)


def load_fashion_mnist(folder: Path | str | None = None, validation: int = 5_000) -> Split:
    """Load Fashion-MNIST; the last ``validation`` training images are set apart.

    The files are those of ``folder/fashion_mnist``, else of the Debian package ``dataset-fashion-mnist``.
    """
    root = _fashion_folder(folder)
    if not root.is_dir():
        raise DataError(
            f"Data folder '{root}' does not exist; put Fashion-MNIST's four idx files there, as {_NAMES} or plain, "
            f"or {_INSTALL}"
        )
    return _load(root, _FASHION, validation)


def _fashion_folder(folder: Path | str | None) -> Path:
    """Return the folder of the idx files, the data folder's own where it has one."""
    debian = _DEBIAN_FASHION.is_dir()
    if debian and folder is None and not os.environ.get("ZEROSKIP_DATA"):
        return _DEBIAN_FASHION
    own = data_folder(folder, f"fashion_mnist/{_NAMES}, or {_INSTALL}") / "fashion_mnist"
    return _DEBIAN_FASHION if debian and not own.is_dir() else own
