"""SqueezeNet v1.0 (Iandola et al. 2016), and the weights that the authors of Deep Compression pruned and shared."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from zeroskip.pruning.errors import PruningError, nearest
from zeroskip.pruning.inputs import Input

__all__ = ["SQUEEZENET_PIXELS", "SqueezeNet", "load_deep_compression"]

SQUEEZENET_PIXELS = Input(range=1, mean=(104.0, 117.0, 123.0))
"""How the network sees its images: codes 0 to 255, channels blue, green, red, less the mean of each."""

_CODES = 256


class _Fire(nn.Module):
    """A squeeze convolution and two expanding ones, 1x1 and 3x3, whose results are concatenated."""

    def __init__(self, before: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.conv1x1_1 = nn.Conv2d(before, squeeze, 1)
        self.conv1x1_2 = nn.Conv2d(squeeze, expand, 1)
        self.conv3x3_2 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1x1_1(x))
        return torch.cat([F.relu(self.conv1x1_2(x)), F.relu(self.conv3x3_2(x))], 1)


class SqueezeNet(nn.Module):
    """SqueezeNet v1.0: 26 convolutions in 8 fire modules between a first and a last one, 1,244,448 weights.

    Max pools of 3x3 with stride 2 round their size up, as in Caffe; the last convolution's maps are averaged. Layers
    are called as in the published stream (``fire2.conv1x1_1`` ...).
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, 2)
        self.fire2, self.fire3, self.fire4 = _Fire(96, 16, 64), _Fire(128, 16, 64), _Fire(128, 32, 128)
        self.fire5, self.fire6 = _Fire(256, 32, 128), _Fire(256, 48, 192)
        self.fire7, self.fire8 = _Fire(384, 48, 192), _Fire(384, 64, 256)
        self.fire9 = _Fire(512, 64, 256)
        # the authors' border: it holds nothing but biases, and counts in the average
        self.conv_final = nn.Conv2d(512, classes, 1, padding=1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``x`` (N, 3, H, W), 227 x 227 in the paper, at least 31 x 31."""
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(self.fire4(self.fire3(self.fire2(x))))
        x = self.pool(self.fire8(self.fire7(self.fire6(self.fire5(x)))))
        x = F.relu(self.conv_final(F.dropout(self.fire9(x), 0.5, self.training)))
        return x.mean((2, 3))


def load_deep_compression(model: SqueezeNet, path: Path | str) -> None:
    """Load the decoded stream of Deep Compression's SqueezeNet into ``model``, in place; codes and zeros as they are.

    The ``.npz`` file holds for every layer ``<layer>/codes`` (uint8, shaped as the weight), ``<layer>/codebook``
    (256 float32, entry 0 is 0) and ``<layer>/bias``; slashes stand for the dots of module names.

    Raises
    ------
    PruningError
        Naming file, array and remedy, if the file is missing, damaged or of another network.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise PruningError(f"Weights '{path}' do not exist; put them there") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PruningError(f"Weights '{path}' cannot be read ({error}); fetch them again") from error
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        stem = name.replace(".", "/")
        shapes = {"codes": tuple(module.weight.shape), "codebook": (_CODES,), "bias": (module.out_channels,)}
        found = {part: _array(path, arrays, f"{stem}/{part}", shape) for part, shape in shapes.items()}
        if found["codes"].dtype != np.uint8 or found["codebook"][0] != 0:
            raise PruningError(
                f"Weights '{path}' must have uint8 codes and a codebook whose entry 0 is 0 in '{stem}'; fetch them "
                "again"
            )
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(found["codebook"][found["codes"]]))
            module.bias.copy_(torch.from_numpy(found["bias"]))  # type: ignore[union-attr]


def _array(path: Path, arrays: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if name not in arrays:
        raise PruningError(f"Weights '{path}' have no array '{name}'; the nearest are: {nearest(name, arrays)}")
    if arrays[name].shape != shape:
        raise PruningError(
            f"Weights '{path}' have '{name}' of shape {arrays[name].shape}, but the network needs {shape}"
        )
    return arrays[name]
