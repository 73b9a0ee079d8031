"""The scan of sensitivities: every layer alone at every density, by the network's own projections, without a trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zeroskip.pruning import NM, Admm, Column, Filter, Joint, Levels, NonStructured, PruningError, sensitivities
from zeroskip.pruning.sensitivity import DENSITIES


class Net(nn.Module):
    """A convolution with batch norm and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(96, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))


def net():
    torch.manual_seed(0)
    return Net()


X = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_every_layer_is_pruned_alone():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = sensitivities(model, {"conv": Filter(1.0), "fc": NonStructured(1.0)}, lambda f: float(f(X).sum()))
    assert [(point.layer, point.density) for point in found] == [(n, d) for n in ("conv", "fc") for d in DENSITIES]
    assert [point.kept for point in found[:6]] == [3, 2, 2, 1, 1, 1]
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for point in found:
        other = net().eval()
        constraint = Filter(point.density) if point.layer == "conv" else NonStructured(point.density)
        Admm(other, {point.layer: constraint}).harden()
        with torch.no_grad():
            assert point.score == pytest.approx(float(other(X).sum()))


def test_zeros_of_a_parent_and_levels_hold():
    model = net().eval()
    parent = Admm(model, {"fc": NonStructured(0.2)})
    parent.harden()
    seen = []

    def judge(forward):
        seen.append(forward(X))
        return 0.0

    dense, same = sensitivities(model, {"fc": Column(1.0)}, judge, densities=[1.0, 1], parent=parent)
    assert dense.kept == same.kept == 96
    with torch.no_grad():
        assert torch.equal(seen[0], model(X))
    (joint,) = sensitivities(model, {"fc": Joint(NonStructured(1.0), Levels(2))}, judge, densities=[0.1])
    assert joint.kept == 38


@pytest.mark.parametrize(
    ("sets", "densities", "text"),
    [
        ({"fc9": Column(1.0)}, [0.5], "No layer with weights is called 'fc9'; the nearest are: fc"),
        ({"fc": NM(2, 4)}, [0.5], "needs a set that keeps the groups of largest sum"),
        ({"fc": Column(1.0)}, [0.5, 1.5], r"densities must be shares above 0 and at most 1, not \(0.5, 1.5\)"),
        ({"fc": Column(1.0)}, [], r"densities must be shares above 0 and at most 1, not \(\)"),
    ],
)
def test_refusals(sets, densities, text):
    with pytest.raises(PruningError, match=text):
        sensitivities(net(), sets, lambda forward: 0.0, densities=densities)
