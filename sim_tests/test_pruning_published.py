"""Published networks, quantized as they are: the torch golden equals the compiler's reference, and accuracy stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.geometry import choose_program
from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.reference import run
from zeroskip.compiler.resources import DEFAULT_LIMITS
from zeroskip.compiler.target import Engine
from zeroskip.pruning import Input, fold_channels, load_start, quantize
from zeroskip.pruning.data import load_cifar10
from zeroskip.pruning.networks import ResNet20

IMAGENET = Input(255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def resnet20(data_folder, tmp_path_factory):
    """The published ResNet-20 with 8-bit weights and activations, and the artifact as the compiler reads it."""
    images, model = load_cifar10(data_folder), ResNet20()
    load_start(model, data_folder / "models" / "resnet20-12fca82f.th")
    source = fold_channels(model.eval(), images.train.x[:2], IMAGENET)
    net = quantize(model, images.train.x[:2], images.train.x[:32], weights=8, input=source, per_channel=True)
    return net, load_artifact(net.save(tmp_path_factory.mktemp("resnet20") / "net.safetensors")), images


def agree(net, model, codes):
    """Compare every tensor of the golden network and of the reference; return the outputs."""
    golden, values = net.golden.run(codes), run(model, codes.numpy())
    assert set(golden) == set(values)
    for name, found in values.items():
        np.testing.assert_array_equal(golden[name].numpy(), found, err_msg=name)
    return values[model.output]


def test_resnet20_keeps_its_classes(resnet20):
    net, model, images = resnet20
    outputs = agree(net, model, images.test.x[:100])
    # The float network is right for 94 of these.
    assert int((outputs.reshape(100, -1).argmax(1) == images.test.y[:100].numpy()).sum()) >= 92
    random = torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8)
    agree(net, model, random)
    assert len([layer for layer in model.layers if layer.weight is not None]) == 22


def test_resnet20_compiles(resnet20):
    _, model, _ = resnet20
    program = choose_program(run_passes(model)[0], Engine.DENSE, DEFAULT_LIMITS, lanes=16, columns=8).program
    cycles = program_cycles(program)
    assert 300_000 < cycles.total < 600_000
    assert sum(plan.macs_dense for plan in program.layers if plan.layer.weight is not None) > 39_000_000
