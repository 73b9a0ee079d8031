"""The networks of the zoo and of the experiments, one module a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from zeroskip.pruning.errors import PruningError, nearest
from zeroskip.pruning.networks.lenet import DigitsCnn, LeNet5, LeNet300100
from zeroskip.pruning.networks.resnet import ResNet8, ResNet20
from zeroskip.pruning.networks.series import Autoencoder, Cnn1d, DsCnn
from zeroskip.pruning.networks.squeezenet import SQUEEZENET_PIXELS, SqueezeNet, load_deep_compression
from zeroskip.pruning.networks.start import load_start
from zeroskip.pruning.networks.vgg import SmallVgg

__all__ = [
    "NETWORKS",
    "SQUEEZENET_PIXELS",
    "Autoencoder",
    "Cnn1d",
    "DigitsCnn",
    "DsCnn",
    "LeNet5",
    "LeNet300100",
    "ResNet8",
    "ResNet20",
    "SmallVgg",
    "SqueezeNet",
    "load_deep_compression",
    "load_start",
    "make_network",
]

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "autoencoder": Autoencoder,
    "cnn1d": Cnn1d,
    "digits_cnn": DigitsCnn,
    "ds_cnn": DsCnn,
    "lenet300_100": LeNet300100,
    "lenet5": LeNet5,
    "resnet8": ResNet8,
    "resnet20": ResNet20,
    "small_vgg": SmallVgg,
    "small_vgg_cifar10": partial(SmallVgg, channels=3, size=32),
}


def make_network(name: str) -> nn.Module:
    """Return a fresh network of the zoo; its weights come from torch's random state."""
    if name not in NETWORKS:
        raise PruningError(f"Unknown network '{name}'; the nearest are: {nearest(name, NETWORKS)}")
    return NETWORKS[name]()
