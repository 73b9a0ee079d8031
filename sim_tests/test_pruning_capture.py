"""Capture: the supported forms become layers, everything else is refused with its name and source line."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torch_networks import GRAPHS, Clipped, Pooled, Residual, Sequence, Shortcut, shaken
from zeroskip.pruning import PruningError
from zeroskip.pruning.capture import capture
from zeroskip.pruning.graph import Kind


class Full(nn.Module):
    """Every supported form."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=(1, 2), bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 8, 4, padding="same", groups=2), nn.MaxPool2d((2, 1)), nn.ReLU(inplace=True), nn.Dropout(0.5),
        )  # fmt: skip
        self.head = nn.Linear(8 * 2 * 2, 6)
        self.norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        x = F.avg_pool2d(self.features(x), (1, 2))
        x = F.relu(self.norm(self.head(x.view(x.size(0), -1))))
        return self.last(F.dropout(x, 0.3, self.training))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_every_supported_form_equals_the_module():
    model = Full()
    shaken(model).train()
    x = torch.randn(3, 2, 8, 6)
    graph = capture(model, x)
    assert model.training
    kinds = [op.kind for op in graph.ops]
    pool, average = Kind.MAX_POOL2D, Kind.AVG_POOL2D
    assert kinds == [Kind.CONV2D, pool, Kind.CONV2D, pool, average, Kind.LINEAR, Kind.LINEAR]
    names = [op.name for op in graph.ops]
    assert names == ["features_0", "pool1", "features_4", "pool2", "pool3", "head", "last"]
    assert [op.relu for op in graph.ops] == [True, False, True, False, False, True, False]
    assert graph.ops[0].padding == (1, 2, 1, 2)
    assert graph.ops[2].padding == (1, 1, 2, 2)
    model.eval()
    torch.testing.assert_close(graph.forward(graph.tensors(model), x), model(x))


def twice(x, form):
    """Use a tensor and a form of it."""
    return x + form(x)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_graphs_equal_their_module(name):
    torch.manual_seed(0)
    make, shape = GRAPHS[name]
    model, x = shaken(make()), torch.randn(3, *shape)
    graph = capture(model, x)
    result = graph.forward(graph.tensors(model), x)
    torch.testing.assert_close(F.softmax(result, 1) if name == "pooled" else result, model(x))


def test_a_residual_network_becomes_sums_with_their_relu():
    graph = capture(Residual(), torch.randn(2, 3, 8, 8))
    add = [op for op in graph.ops if op.kind is Kind.ADD]
    assert [op.inputs for op in add] == [("blocks_0_conv2", "stem_0"), ("blocks_1_conv2", "blocks_1_downsample_0")]
    assert all(op.relu for op in add)
    by_name = {op.name: op for op in graph.ops}
    assert by_name["blocks_0_conv1"].relu and not by_name["blocks_0_conv2"].relu
    assert by_name["pool1"].kernel == (4, 4)
    assert by_name["fc"].inputs == ("pool1",)


def test_activation_functions_are_limits_of_the_layer_before():
    graph = capture(Clipped(), torch.randn(2, 3, 9, 9))
    clips = {op.name: op.clip for op in graph.ops if op.clips}
    inf = math.inf
    assert clips == {
        "stem_0": (0, 6), "deep": (-1, 1), "left": (0, inf), "right": (0, 2), "add1": (-2, inf), "fc": (-4, 4)
    }  # fmt: skip
    deep = next(op for op in graph.ops if op.name == "deep")
    assert (deep.groups, deep.padding) == (4, (0, 0, 1, 1))


def test_poolings_of_every_size_and_an_end_on_the_host(caplog):
    graph = capture(Pooled(), torch.randn(2, 2, 13, 13))
    pools = [(op.kind, op.kernel, op.stride, op.padding, op.out_shape[1:]) for op in graph.ops if not op.weight]
    maximum, average = Kind.MAX_POOL2D, Kind.AVG_POOL2D
    assert pools == [
        (maximum, (3, 3), (2, 2), (1, 1, 1, 1), (7, 7)),
        (maximum, (2, 2), (2, 2), (0, 0, 1, 1), (4, 4)),
        (average, (2, 2), (2, 2), (0, 0, 0, 0), (2, 2)),
        (maximum, (2, 1), (2, 1), (0, 0, 0, 0), (1, 2)),
        (maximum, (1, 2), (1, 2), (0, 0, 0, 0), (1, 1)),
    ]
    assert "softmax at the end is left to the host: the outputs are the values before it" in caplog.text


def test_sequences_are_maps_of_height_1():
    graph = capture(Sequence(), torch.randn(2, 2, 40))
    assert graph.in_shape == (2, 1, 40)
    first = graph.ops[0]
    assert (first.kernel, first.stride, first.padding) == ((1, 7), (1, 2), (0, 3, 0, 3))
    assert (graph.ops[1].kernel, graph.ops[1].out_shape) == ((1, 2), (4, 1, 10))


class Refused(nn.Module):
    """A network with one form too many."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.pair = nn.Conv2d(1, 2, 3)
        self.fc = nn.Linear(form(self.eval(), torch.zeros(2, 1, 8, 8)).flatten(1).shape[1], 3)

    def forward(self, x):
        return self.fc(self.form(self, x).flatten(1))


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (lambda m, x: F.gelu(m.conv(x)), r"operation 'aten\.gelu\.default' at .*test_pruning_capture\.py:\d+ \("),
        (lambda m, x: torch.sigmoid(m.conv(x)), r"operation 'aten\.sigmoid\.default'"),
        (lambda m, x: m.conv(x) + 1.0, r"operation 'aten\.add\.Tensor' with a number"),
        (lambda m, x: torch.add(m.conv(x), x[:, :, 2:, 2:]), r"operation 'aten\.slice\.Tensor'"),
        (lambda m, x: torch.add(m.conv(x), m.pair(x), alpha=2), r"operation 'aten\.add\.Tensor' with a number"),
        (lambda m, x: m.conv(x) + m.pair(x)[:, :1], r"operation 'aten\.slice\.Tensor'"),
        (
            lambda m, x: torch.cat([m.conv(x), F.avg_pool2d(x, 3, 1)], 1),
            r"the network's input in 'aten\.cat\.default'; put a convolution",
        ),
        (lambda m, x: m.conv(x) + m.conv.bias[:, None, None], r"operation 'aten\.\w+\.\w+'"),
        (lambda m, x: m.conv(x) + F.max_pool2d(m.pair(x), 6), "a sum of tensors of different shapes"),
        (
            lambda m, x: torch.cat([m.conv(x), m.pair(x)], 2),
            "torch.cat along axis 2; only the channels, axis 1, are known",
        ),
        (
            lambda m, x: torch.cat([m.conv(x).flatten(1), m.pair(x).flatten(1)], 1),
            r"flattened maps in 'aten\.cat\.default'; join the maps and flatten the result",
        ),
        (lambda m, x: twice(m.conv(x), F.relu), "ReLU of layer 'conv', whose result without it is used as well"),
        (lambda m, x: twice(m.conv(x), m.norm), "BatchNorm of layer 'conv', whose result without it is used as well"),
        (
            lambda m, x: twice(m.conv(x), lambda y: F.relu(F.max_pool2d(y, 1))),
            "ReLU of layer 'conv', whose result without it is used as well",
        ),
        (lambda m, x: m.conv(x).mean(1, keepdim=True), r"a mean over the axes \[1\]; only all positions of a map"),
        (
            lambda m, x: m.norm(F.relu(m.conv(x))),
            "BatchNorm that does not follow a convolution or linear layer directly",
        ),
        (lambda m, x: m.conv(F.relu(x)), "ReLU that does not follow a convolution or linear layer"),
        (
            lambda m, x: F.max_pool2d(m.conv(x), 2, dilation=2),
            r"a max pooling with dilation at .*; the nearest supported form is one without dilation\. Supported are",
        ),
        (
            lambda m, x: F.avg_pool2d(m.conv(x), 3, 2, 1, count_include_pad=False),
            "an average pooling that divides by the positions inside the map",
        ),
        (lambda m, x: F.avg_pool2d(m.conv(x), 4, ceil_mode=True), "an average pooling with ceil_mode or"),
        (lambda m, x: F.adaptive_max_pool2d(m.conv(x), 1, True)[1].float(), r"operation '<built-in function getitem>'"),
        (
            lambda m, x: F.hardswish(m.conv(x)),
            r"Node 'hardswish' is unsupported: .*; the nearest supported form is ReLU6\.",
        ),
        (lambda m, x: m.conv(x).clamp(min=m.conv.bias[0]), r"aten\.select"),
        (lambda m, x: m.conv(x).clamp(2, 1), "clamp whose limits are no two ascending numbers"),
        (lambda m, x: F.avg_pool2d(m.conv(x), 2).clamp(0, 1), "clamp that does not follow a convolution or linear"),
        (
            lambda m, x: twice(torch.cat([m.conv(x), m.pair(x)], 1), F.relu),
            "ReLU of layer 'concat1', whose result without it is used as well",
        ),
        (
            lambda m, x: m.conv(x) + F.pad(F.max_pool2d(m.pair(x), 3), (2, 2, 2, 2)),
            "on a zero padding; pad in",
        ),
        (lambda m, x: F.softmax(m.conv(x), 1), "softmax before the end of the network"),
        (lambda m, x: F.softmax(m.conv(x).flatten(1), 0), "softmax .*, or not over one axis of classes"),
        (lambda m, x: F.dropout(m.conv(x), 0.5, True), "dropout in training mode"),
        (lambda m, x: F.relu(m.conv(x)).view(-1, 2, 3, 12), r"a change of shape to \(2, 3, 12\)"),
        (
            lambda m, x: F.adaptive_avg_pool2d(m.conv(x), 4),
            r"adaptive average pooling to \[4, 4\] of a map of 6 x 6 at .*; the nearest supported form is an output",
        ),
        (lambda m, x: F.conv2d(x, m.conv.weight * 2), r"operation 'aten\.mul\.Tensor'"),
        (
            lambda m, x: F.pad(m.conv(x), (1, -1, 0, 0)),
            r"operation 'aten\.pad\.default' that does more than add channels of zeros",
        ),
        (lambda m, x: F.pad(m.conv(x), (0, 0, 0, 0, 1, 1), value=1.0), "that does more than add channels of zeros"),
        (lambda m, x: F.pad(m.conv(x), (0, 0, 0, 0, -1, 0)), "that does more than add channels of zeros"),
        (lambda m, x: F.pad(m.conv(x), (1, 1, 1, 1), "reflect"), "that does more than add channels of zeros"),
        (
            lambda m, x: m.conv(x)[:, ::2],
            r"operation 'aten\.slice\.Tensor' that does more than take x\[:, :, ::n, ::n\]",
        ),
        (lambda m, x: m.conv(x)[:, :, 1::2], "that does more than take"),
        (lambda m, x: m.conv(x)[:, :, :-1], "that does more than take"),
        (
            lambda m, x: m.conv(x[:, :, ::2, ::2]),
            r"operation 'aten\.slice\.Tensor' on the network's input; put a convolution between them",
        ),
    ],
)
def test_refusals_name_operation_line_and_supported_forms(form, text):
    with pytest.raises(PruningError, match=text) as error:
        capture(Refused(form), torch.randn(2, 1, 8, 8))
    assert "Supported are: Conv2d" in str(error.value)


class Chosen(nn.Module):
    """A network whose way depends on the data."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else x


def test_data_dependent_control_flow_is_refused(capfd):
    line = r"at .*test_pruning_capture\.py:\d+ \(return self\.fc\(x\) if x\.sum\(\) > 0 else x\)"
    text = rf"The network cannot be captured with samples of shape \(4,\): .* {line}\. Supported are: Conv2d"
    with pytest.raises(PruningError, match=text) as error:
        capture(Chosen(), torch.randn(2, 4))
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


class Images(nn.Module):
    """A network of images of two channels."""

    def __init__(self, channels=2):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)
        self.fc = nn.Linear(144, 3)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.fc(x.flatten(1))


@pytest.mark.parametrize(
    ("channels", "shape", "remedy"),
    [
        (2, (2, 8, 8), "; the input of shape (2, 8, 8) lacks the batch axis: give it as (1, 2, 8, 8), as by x[None]"),
        (1, (8, 8), "lacks the axes of batch and channels: give it as (1, 1, 8, 8), as by x[None, None]"),
        (1, (5, 8, 8), "lacks the axis of channels: give it as (5, 1, 8, 8), as by x[:, None]"),
        (2, (5, 8, 8, 2), "has its channels last: give it as (5, 2, 8, 8), as by x.movedim(-1, 1)"),
        (2, (8, 8, 2), "channels last and no batch axis: give it as (1, 2, 8, 8), as by x.movedim(-1, 0)[None]"),
        (2, (5, 2, 9, 9), "(5x196 and 144x3)"),
    ],
)
def test_a_sample_of_a_wrong_shape_is_named_with_what_helps(channels, shape, remedy):
    with pytest.raises(PruningError, match=re.escape(remedy)) as error:
        capture(Images(channels), torch.randn(shape))
    text = str(error.value)
    start = r"The network cannot be captured with samples of shape \(.*\): .* at .*test_pruning_capture\.py:\d+ \("
    assert re.match(start, text)
    assert len(text) < 400 and "Supported are" not in text and "\n" not in text


@pytest.mark.parametrize(
    ("network", "shape", "text"),
    [
        (lambda: nn.Conv2d(3, 4, 3), (3, 8, 8), "a convolution reads an input of shape (3, 8, 8) without the batch"),
        (lambda: nn.Conv2d(4, 4, 3), (4, 8, 8), "a convolution reads an input of shape (4, 8, 8) without the batch"),
        (lambda: nn.Linear(8, 3), (8,), "a linear layer reads an input of shape (8,) without the batch axis"),
        (lambda: nn.Linear(8, 3), (2, 5, 8), "a linear layer reads an input of shape (2, 5, 8)"),
        (lambda: nn.Flatten(0), (1, 5, 8), "node 'flatten' has shape (40,) without the batch axis of 1"),
    ],
)
def test_shapes_that_torch_takes_but_a_graph_has_not(network, shape, text):
    with pytest.raises(PruningError, match=re.escape(f"The network cannot be captured: {text}")) as error:
        capture(nn.Sequential(network(), nn.ReLU()), torch.randn(shape))
    assert re.search("; (give a sample with a batch axis, as by x.None.|flatten it to .N, features.)", str(error.value))
    assert "Supported are" not in str(error.value)


def test_a_layer_used_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.fc(x))

    with pytest.raises(PruningError, match="layer 'fc' used twice"):
        capture(Twice(), torch.randn(2, 4))


def test_what_the_output_does_not_depend_on_is_refused():
    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x), self.b(x)

    with pytest.raises(PruningError, match="A network must have one input and one output, not 1 and 2"):
        capture(Dead(), torch.randn(2, 4))


@pytest.mark.parametrize(
    "shortcut",
    [
        lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0),
        lambda x: F.pad(x, (0, 0, 0, 0, 1, 3))[:, :, ::2, ::2],
        lambda x: F.pad(x[:, :, ::2][:, :, :, ::2], (0, 0, 0, 0, 0, 4, 0, 0)),
        lambda x: F.pad(F.pad(x[..., ::2, ::2], (0, 0, 0, 0, 1, 1)), (0, 0, 0, 0, 1, 1)),
    ],
)
@pytest.mark.parametrize("size", [7, 8])
def test_slices_and_zero_channels_are_a_convolution_of_constants(shortcut, size):
    model, x = shaken(Shortcut(shortcut)), torch.randn(3, 2, size, size)
    graph = capture(model, x)
    assert [op.name for op in graph.ops] == ["stem", "conv", "select1", "add1", "pool1", "fc"]
    select = graph.ops[2]
    assert (select.kind, select.stride, select.relu) == (Kind.CONV2D, (2, 2), True)
    assert set(graph.constants) == {select.weight} and not set(graph.constants) & set(dict(model.named_buffers()))
    torch.testing.assert_close(graph.forward(graph.tensors(model), x), model(x), rtol=0, atol=1e-6)


def test_a_slice_that_takes_everything_is_no_layer():
    model, x = (
        shaken(Shortcut(lambda x: F.max_pool2d(F.pad(x, (0, 0, 0, 0, 2, 2)), 2)[:, :, :, ::1])),
        torch.ones(1, 2, 8, 8),
    )
    names = [op.name for op in capture(model, x).ops]
    assert names == ["stem", "conv", "select1", "pool1", "add1", "pool2", "fc"]


def test_sequences_are_sliced_along_their_one_axis():
    class Halved(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 2, 3)
            self.fc = nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(self.conv(x)[:, :, ::3].flatten(1))

    model, x = shaken(Halved()), torch.randn(2, 1, 12)
    graph = capture(model, x)
    assert (graph.ops[1].stride, graph.ops[1].out_shape, graph.ops[1].relu) == ((1, 3), (2, 1, 4), False)
    torch.testing.assert_close(graph.forward(graph.tensors(model), x), model(x))
