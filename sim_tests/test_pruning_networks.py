"""The networks: shapes and sizes, and that each goes through artifact and compiler exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from torch_networks import shaken
from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.compiler.reference import run
from zeroskip.pruning import Input, PruningError, quantize
from zeroskip.pruning.networks import NETWORKS, make_network

# Sample shape, input, outputs, and weights in convolutions and linear layers.
ZERO_CODE = 118 / 255
NETS = {
    "autoencoder": ((1, 140), Input(16, signed=True), 140, 19_968),
    "cnn1d": ((1, 140), Input(16, signed=True), 5, 1_544),
    "digits_cnn": ((1, 8, 8), Input(16), 10, 3_592),
    "ds_cnn": ((1, 48, 32), Input(255, 0.4, 0.25), 10, 6_848),
    "lenet300_100": ((1, 28, 28), Input(255, 0.1307, 0.3081), 10, 266_200),
    "lenet5": ((1, 28, 28), Input(255, 0.1307, 0.3081), 10, 430_500),
    "resnet8": ((3, 32, 32), Input(255, ZERO_CODE, 0.25), 10, 77_360),
    "resnet20": ((3, 32, 32), Input(255, ZERO_CODE, 0.25), 10, 268_336),
    "small_vgg": ((1, 28, 28), Input(255), 10, 40_464),
    "small_vgg_cifar10": ((3, 32, 32), Input(255, ZERO_CODE, 0.25), 10, 45_232),
}


def test_every_network_is_listed_here():
    assert sorted(NETS) == sorted(NETWORKS)


@pytest.mark.parametrize("name", sorted(NETS))
def test_random_codes_give_the_same_integers_in_torch_and_in_the_compiler(name, tmp_path):
    shape, source, classes, weights = NETS[name]
    torch.manual_seed(3)
    model = shaken(make_network(name))
    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) == weights
    lo, hi = (-128, 128) if source.signed else (0, source.range + 1)
    codes = torch.randint(lo, hi, (12, *shape)).to(source.dtype)
    net = quantize(model, codes[:2], codes, weights=4, activations=8, input=source, reconstruct=name == "autoencoder")
    loaded = load_artifact(net.save(tmp_path / "net.safetensors"))
    assert loaded.metadata["tensors"]["input"]["scale"] == 1 / source.range
    assert loaded.metadata["tensors"]["input"]["signed"] == source.signed
    taken = net.codes(codes)
    ours, theirs = net.golden.run(taken[:4]), run(loaded, taken[:4].numpy())
    assert set(ours) == set(theirs)
    for tensor, values in theirs.items():
        np.testing.assert_array_equal(ours[tensor].numpy(), values, err_msg=tensor)
    with torch.no_grad():
        wanted = model(source.normalize(codes[:4])).numpy()
    assert wanted.shape == (4, classes)
    got = theirs["output"].reshape(wanted.shape) * loaded.tensors["output"].scale
    # 4-bit weights without any fine-tuning: near, by far not equal.
    assert np.corrcoef(wanted.ravel(), got.ravel())[0, 1] > 0.7


def test_shortcut_of_option_a_is_subsampling_and_zero_channels():
    model = make_network("resnet20")
    x = torch.rand(2, 16, 8, 8)
    shortcut = model.layer2[0].shortcut
    wanted = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
    assert torch.equal(shortcut(x), wanted)
    assert not list(shortcut.parameters()) and not shortcut.state_dict()


def test_unknown_network():
    with pytest.raises(PruningError, match="Unknown network 'resnet18'; the nearest are: resnet8, resnet20"):
        make_network("resnet18")
