"""Inputs: normalization of codes, signed codes, and statistics of each channel folded into the first layer."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zeroskip.pruning import Input, PruningError, fold_channels, quantize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.325)


def codes(*shape, signed=False):
    generator = torch.Generator().manual_seed(1)
    if signed:
        return torch.randint(-128, 128, shape, generator=generator).to(torch.int8)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_statistics_of_each_channel():
    x = codes(2, 3, 4, 4)
    wanted = torch.stack([(x[:, c] / 255 - MEAN[c]) / STD[c] for c in range(3)], 1)
    torch.testing.assert_close(Input(255, MEAN, STD).normalize(x), wanted)
    torch.testing.assert_close(Input(255, 0.5, STD).normalize(x)[:, 2], (x[:, 2] / 255 - 0.5) / STD[2])


def test_signed_codes():
    x = codes(2, 1, 9, signed=True)
    assert torch.equal(Input(16, signed=True).normalize(x), x.float() / 16)
    with pytest.raises(
        PruningError, match=r"Input codes must be torch\.uint8, not torch\.int8; set signed as the codes"
    ):
        Input(16).normalize(x)


@given(st.integers(1, 255), st.floats(-2, 2), st.floats(0.1, 4))
def test_background_is_the_normalized_code_0(size, mean, std):
    source, zero = Input(size, mean, std), torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    torch.testing.assert_close(source.background(zero).expand(1, 1, 2, 2), source.normalize(zero))


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), (0.2, STD), (MEAN, 0.5)])
def test_background_of_each_channel(mean, std):
    source, zero = Input(255, mean, std), torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    torch.testing.assert_close(source.background(zero).expand(1, 3, 2, 2), source.normalize(zero))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"range": 0}, "Input range must be from 1 to 255, not 0"),
        ({"range": 200, "signed": True}, "Input range must be from 1 to 128, not 200"),
        ({"std": (1.0, 0.0)}, "Input mean must be finite and std positive"),
        ({"mean": ()}, "Input mean must be finite and std positive"),
        ({"mean": float("nan")}, "Input mean must be finite and std positive"),
    ],
)
def test_bad_inputs(options, text):
    with pytest.raises(PruningError, match=text):
        Input(**options)


def test_number_of_channels_must_fit():
    with pytest.raises(
        PruningError, match=r"Input has statistics of 2 channels, but the samples have shape \(1, 3, 4, 4"
    ):
        Input(255, (0.1, 0.2)).normalize(codes(1, 3, 4, 4))


class Grouped(nn.Module):
    """A grouped convolution with BatchNorm behind a pool."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(nn.functional.max_pool2d(x, 2))))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


NETWORKS = {
    "biased": (lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 2)), (3, 8, 8)),
    "grouped": (Grouped, (4, 8, 8)),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), (3, 4, 4)),
    "series": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(54, 3)), (2, 20)),
}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_folding_changes_no_result_without_padding(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model, x = make().eval(), codes(6, *shape)
    source = Input(255, (0.4, 0.1, 0.7, 0.55)[: shape[0]], (0.2, 0.5, 0.3, 0.9)[: shape[0]])
    wanted = model(source.normalize(x))
    folded = fold_channels(model, x, source)
    assert isinstance(folded.mean, float) and isinstance(folded.std, float)
    torch.testing.assert_close(model(folded.normalize(x)), wanted, rtol=1e-4, atol=1e-4)
    assert fold_channels(model, x, folded) is folded


def test_padding_stands_for_one_whole_code():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).eval()
    x, source = codes(2, 3, 8, 8), Input(255, MEAN, STD)
    before = copy.deepcopy(model)
    folded = fold_channels(model, x, source)
    assert folded.mean * 255 == round(255 * sum(MEAN) / 3) == 114
    got, wanted = model(folded.normalize(x)), before(source.normalize(x))
    torch.testing.assert_close(got[:, :, 1:-1, 1:-1], wanted[:, :, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
    # At the border the network sees what it would see of an image with a frame of code 114.
    framed = nn.functional.pad(x.float(), (1, 1, 1, 1), value=114).to(torch.uint8)
    unpadded = nn.functional.conv2d(source.normalize(framed), before[0].weight, before[0].bias).relu()
    torch.testing.assert_close(got, unpadded, rtol=1e-4, atol=1e-4)


def test_a_layer_without_bias_and_norm_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU())
    with pytest.raises(PruningError, match="Layer '0' has neither bias nor BatchNorm to take the means of the input's"):
        fold_channels(model, codes(2, 3, 8, 8), Input(255, MEAN, STD))


def test_quantization_needs_one_mean_and_one_deviation():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), codes(8, 3, 8, 8)
    source = Input(255, MEAN, STD)
    with pytest.raises(PruningError, match=r"Input has a mean or std for each channel, .* call fold_channels\(model"):
        quantize(model, x[:2], x, input=source)
    folded = fold_channels(model, x, source)
    net = quantize(model, x[:2], x, weights=8, input=folded)
    got = net.golden.run(x)["output"] * net.golden.tensors["output"].scale
    assert float((got - model(folded.normalize(x)).detach()).abs().max()) < 0.1
