"""Start a project: a folder with a project file, a network, a data loader and a few words."""

from __future__ import annotations

import re
from pathlib import Path

from zeroskip.boards.steps import write_atomically
from zeroskip.compiler.errors import InputError
from zeroskip.project_file import FILE_NAME

__all__ = ["write_project"]

PROJECT = """\
# What `zeroskip build` does with this folder. A key that is left out has its default; a wrong key is refused by name.
format = "1.0"
name = "{name}"

[network]
module = "network.py"
factory = "build"
# start = "weights.safetensors"                          # a checkpoint; with 0 epochs everywhere it is only quantized

[data]
module = "data.py"

[prune]
seed = 0
batch = 64
dense = {{ epochs = 100, lr = [8e-3, 1e-4], shift = 1 }}
rho = [1e-3, 3.0]                                        # first and last penalty; or by layer, as in [prune.layers]
updates_per_epoch = 1
admm = {{ epochs = 40, lr = [8e-3, 2e-3] }}
retrain = {{ epochs = 120, lr = [6e-3, 1e-4] }}

# Sets by layer name, or by a glob such as "fc*". `keep` is a fraction (0.25) or a count (125).
# kind = "column" drops whole columns of the weight matrix, `group` adjacent ones together.
# Other kinds: filter, channel, filter_column, kernel, vector, block, nm, bank_balanced, pattern, micro_block, codebook,
# levels, and joint for a structure on levels.
[prune.layers]
conv1 = {{ kind = "nonstructured", keep = 0.50 }}
conv2 = {{ kind = "nonstructured", keep = 0.15 }}
"fc*" = {{ kind = "nonstructured", keep = 0.10 }}
fc2 = {{ kind = "nonstructured", keep = 0.25 }}            # a name wins over a glob

[quantize]
weights = 4                                              # bits, without a level 0: a pruned weight has no code
activations = 8
power_of_two = false                                     # true: no requantization multiplier
per_channel = false                                      # true: a weight scale for each output channel
finetune = {{ epochs = 40, lr = [1e-3, 1e-5] }}
input = {{ range = 16, mean = 0.0, std = 0.5 }}            # x = (code / range - mean) / std

[compile]
engine = "auto"                                          # dense, sparse or auto
# board = "ulx3s-25f"                                    # sizes the design; the smallest board below by default
settings = {{ lanes = 4 }}                                 # columns, cores, results; left out: what fits best
# parameters = "flash"                                   # weights and indices from the board's flash

[synthesize]
boards = ["ulx3s-25f"]                                   # `zeroskip boards` lists them
seeds = 1
"""

NETWORK = '''\
"""The network: two convolutions and two linear layers for 8x8 images."""

import torch.nn.functional as F
from torch import nn


class DigitsCnn(nn.Module):
    """3,592 weights; the layer names are those of `[prune.layers]` in project.toml."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc1 = nn.Linear(64, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        """Return the logits of images `x` (N, 1, 8, 8)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


def build():
    """Return a fresh network; its weights come from torch's random state, which `[prune] seed` sets."""
    return DigitsCnn()
'''

DATA = '''\
"""The data: scikit-learn's digits, 1,797 images of 8x8 pixels with codes 0 to 16.

`train`, `validation` and `test` each return `(codes, labels)`: uint8 of shape (N, C, H, W), and N class numbers.
All choices are made on the validation images; the test images are read once, at the end.
"""

import numpy as np
from sklearn.datasets import load_digits

TEST, VALIDATION = 500, 200


def _part(start, stop):
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[start:stop]
    return digits.images[order, None].astype(np.uint8), digits.target[order]


def train():
    """Return the images that the weights are trained on."""
    return _part(TEST + VALIDATION, None)


def validation():
    """Return the images that scales are chosen on."""
    return _part(TEST, TEST + VALIDATION)


def test():
    """Return the images that the accuracy is measured on."""
    return _part(0, TEST)
'''

README = """\
# {name}

    zeroskip build project.toml

trains the network of `network.py` on the images of `data.py`, prunes and quantizes it as `project.toml` says, compiles
it to Verilog, simulates that against the integer network, and places and routes it for the boards named there. Finished
steps and training stages are kept: after a change only what depends on it runs again, and a stopped build starts only
the one in progress again.

| file | what it is for |
|---|---|
| `project.toml` | what to prune, how many bits, which engine, which boards |
| `network.py` | `build()` returns the PyTorch network |
| `data.py` | `train()`, `validation()` and `test()` return uint8 images and labels |
| `build/{name}/` | the artifact, the Verilog, the bitstreams, `report/` with the measured numbers |
"""


def write_project(folder: Path | str) -> Path:
    """Write a project that builds as it is into ``folder`` and return its project file.

    Raises
    ------
    InputError
        If the folder is not empty or cannot be written.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"Folder '{folder}' must be empty or new, but it holds files; name another one")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.absolute().name).strip("-._") or "project"
    files = {
        "network.py": NETWORK,
        "data.py": DATA,
        "README.md": README.format(name=name),
        FILE_NAME: PROJECT.format(name=name),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            write_atomically(folder / file, text)
    except OSError as error:
        raise InputError(f"Folder '{folder}' cannot be written: {error.strerror}; name another one") from error
    return folder / FILE_NAME
