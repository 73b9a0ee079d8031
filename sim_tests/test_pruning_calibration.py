"""Fake quantization: rounding with its gradient, and pools that come before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from zeroskip.pruning import Input
from zeroskip.pruning.calibration import Activation, calibrate, fake_quant_forward
from zeroskip.pruning.capture import capture
from zeroskip.pruning.quantizers import fake_quantize

SOURCE = Input(16, 0.0, 0.5)


def test_rounding_is_half_up_clamped_and_straight_through():
    form = Activation(3, True, 0.5)
    values = torch.tensor([-9.0, -2.25, -0.75, -0.25, 0.25, 1.24, 1.5, 9.0], requires_grad=True)
    rounded = form.fake(values)
    assert rounded.tolist() == [-2.0, -2.0, -0.5, 0.0, 0.5, 1.0, 1.5, 1.5]
    (rounded * torch.arange(1.0, 9.0)).sum().backward()
    assert values.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 0.0]


class Pooled(nn.Module):
    """Max pools behind a ReLU, behind none, and behind a layer that another one reads too."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv3 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        x = self.conv3(x)
        return self.fc(torch.cat([F.max_pool2d(x, 2), F.avg_pool2d(x, 2)], 1).flatten(1))


def test_pools_before_the_rounding_change_no_value():
    torch.manual_seed(0)
    model = Pooled().eval()
    x = SOURCE.normalize(torch.randint(0, 17, (16, 1, 8, 8), dtype=torch.uint8))
    graph = capture(model, x[:1])
    tensors = graph.tensors(model)
    plan = calibrate(graph, tensors, x, SOURCE, 4, 3)

    def weight(op, value):
        return fake_quantize(value, plan.grids[op.name], plan.weight_scales[op.name], None)

    def activation(op, y):
        name = "output" if op is graph.ops[-1] else op.name
        return y if op.name in ("pool1", "pool2", "pool3", "concat1") else plan.activations[name].fake(y)

    assert [op.name for op in graph.ops][:5] == ["conv1", "pool1", "conv2", "pool2", "conv3"]
    assert sorted(op.name for op in graph.ops)[-1] == "pool4"
    # As the layers stand in the network: convolution, ReLU, rounding, pool.
    wanted = graph.forward(tensors, x, weight, activation)
    assert torch.equal(fake_quant_forward(graph, tensors, plan, {})(x), wanted)


def test_the_gradient_goes_to_the_largest_value_of_a_window():
    class Largest(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)

        def forward(self, x):
            return F.max_pool2d(F.relu(self.conv(x)), (1, 2))

    model = Largest()
    nn.init.ones_(model.conv.weight)
    # Both round to the same code; only the second is the largest.
    x = torch.tensor([0.30, 0.32]).reshape(1, 1, 1, 2).requires_grad_()
    graph = capture(model, x.detach())
    tensors = graph.tensors(model)
    plan = calibrate(graph, tensors, torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2), Input(16), 8, 2)
    fake_quant_forward(graph, tensors, plan, {})(x).sum().backward()
    assert x.grad.flatten().tolist()[0] == 0 and x.grad.flatten().tolist()[1] != 0
