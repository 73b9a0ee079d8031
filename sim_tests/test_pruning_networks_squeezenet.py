"""SqueezeNet with Deep Compression's weights: zeros, codes and relative index as published, exact in every link."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zeroskip.api import load
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.errors import CapacityError
from zeroskip.compiler.geometry import choose_program
from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.compiler.ir import Grid, Kind
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.reference import run
from zeroskip.compiler.resources import DEFAULT_LIMITS
from zeroskip.compiler.target import Engine
from zeroskip.hw.design import compile_artifact
from zeroskip.pruning import PruningError, fold_channels, quantize
from zeroskip.pruning.networks import SQUEEZENET_PIXELS, SqueezeNet, load_deep_compression

LAYERS = 26


def arrays(model, seed=0):
    """Return codes, codebook and bias of every layer as the file holds them, a third of the weights kept."""
    random = np.random.default_rng(seed)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            stem, shape = name.replace(".", "/"), tuple(module.weight.shape)
            codes = random.integers(1, 256, shape).astype(np.uint8)
            found[f"{stem}/codes"] = codes * (random.random(shape) < 0.33)
            book = np.sort(random.uniform(-0.2, 0.2, 255)).astype(np.float32)
            found[f"{stem}/codebook"] = np.concatenate([np.zeros(1, np.float32), book])
            found[f"{stem}/bias"] = random.uniform(-0.1, 0.1, shape[0]).astype(np.float32)
    return found


def test_layers_and_sizes_are_those_of_the_paper():
    model = SqueezeNet().eval()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == LAYERS
    assert sum(module.weight.numel() for module in convolutions) == 1_244_448
    sizes = []
    for module in (model.conv1, model.fire4, model.fire8, model.conv_final):
        module.register_forward_hook(lambda _, __, y: sizes.append(tuple(y.shape[1:])))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 227, 227)).shape == (1, 1000)
    assert sizes == [(96, 111, 111), (256, 55, 55), (512, 27, 27), (1000, 15, 15)]


def test_weights_are_the_levels_of_the_codes(tmp_path):
    model = SqueezeNet(10)
    stored = arrays(model)
    np.savez(tmp_path / "a.npz", **stored)
    load_deep_compression(model, tmp_path / "a.npz")
    fire = model.fire5.conv3x3_2
    wanted = stored["fire5/conv3x3_2/codebook"][stored["fire5/conv3x3_2/codes"]]
    np.testing.assert_array_equal(fire.weight.detach().numpy(), wanted)
    np.testing.assert_array_equal(fire.bias.detach().numpy(), stored["fire5/conv3x3_2/bias"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"conv1/codes": None}, "have no array 'conv1/codes'; the nearest are: .*conv1/codebook"),
        ({"conv1/bias": np.zeros(5, np.float32)}, r"have 'conv1/bias' of shape \(5,\), but the network needs \(96,\)"),
        (
            {"conv1/codebook": np.ones(256, np.float32)},
            "must have uint8 codes and a codebook whose entry 0 is 0 in 'conv1'",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, changes, text):
    model = SqueezeNet(10)
    stored = {name: value for name, value in (arrays(model) | changes).items() if value is not None}
    np.savez(tmp_path / "a.npz", **stored)
    with pytest.raises(PruningError, match=f"a.npz' {text}"):
        load_deep_compression(model, tmp_path / "a.npz")


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(PruningError, match="a.npz' do not exist; put them there"):
        load_deep_compression(SqueezeNet(10), tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(PruningError, match="a.npz' cannot be read"):
        load_deep_compression(SqueezeNet(10), tmp_path / "a.npz")


def images(data_folder, size, count=2):
    """Return CIFAR-10 images enlarged to ``size``, channels blue, green, red."""
    with np.load(data_folder / "cifar10" / "cifar10_train10k_test1k.npz") as file:
        small = torch.from_numpy(file["x_test"][:count, ::-1].copy()).float()
    return F.interpolate(small, (size, size), mode="bilinear").round().to(torch.uint8)


def published(data_folder, folder, size):
    """Return the quantized network for images of ``size``, its artifact and its images."""
    model, x = SqueezeNet().eval(), images(data_folder, size)
    load_deep_compression(model, data_folder / "models" / "squeezenet_deep_compression.npz")
    source = fold_channels(model, x, SQUEEZENET_PIXELS)
    net = quantize(model, x, x, weights=8, input=source)
    return net, net.save(folder / "squeezenet.safetensors"), x


@pytest.mark.slow
def test_pattern_and_codebook_are_kept_and_the_whole_network_is_exact(data_folder, tmp_path):
    net, path, x = published(data_folder, tmp_path, 227)
    with np.load(data_folder / "models" / "squeezenet_deep_compression.npz") as file:
        codes = {name.removesuffix("/codes"): file[name] for name in file.files if name.endswith("/codes")}
    model = load_artifact(path)
    program = choose_program(
        run_passes(model)[0], Engine.SPARSE, DEFAULT_LIMITS, lanes=16, cores=4, index_bits=4
    ).program
    for stem, stored in codes.items():
        layer = model.layer(stem.replace("/", "_"))
        assert layer.grid is Grid.CODEBOOK and layer.weight_bits == 8
        np.testing.assert_array_equal(layer.weight == 0, stored == 0)
        # Equal codes, equal levels.
        levels = {int(code): np.unique(layer.weight[stored == code]) for code in np.unique(stored)}
        assert all(len(found) == 1 for found in levels.values())
    kinds = [layer.kind for layer in model.layers]
    assert (kinds.count(Kind.CONV2D), kinds.count(Kind.CONCAT)) == (LAYERS, 8)
    plans = [plan for plan in program.layers if plan.layer.codebook is not None]
    assert len(plans) == LAYERS and {plan.index_bits for plan in plans} == {4}
    assert 8_000_000 < program_cycles(program).total < 10_000_000
    with pytest.raises(
        CapacityError,
        match="^Activations of network .* need at least [0-9]+ bytes on the chip",
    ):
        choose_program(run_passes(model)[0], None, DEFAULT_LIMITS)
    golden, values = net.golden.run(x[:1]), run(model, x[:1].numpy())
    for name, found in values.items():
        np.testing.assert_array_equal(golden[name].numpy(), found, err_msg=name)


@pytest.mark.slow
def test_every_layer_of_the_rtl_equals_the_reference_on_a_small_image(data_folder, tmp_path):
    _, path, x = published(data_folder, tmp_path, 47)
    settings = {"lanes": "8", "cores": "4", "index_bits": "4"}
    program = compile_artifact(path, tmp_path / "design", engine="sparse", settings=settings).program
    result = load(tmp_path / "design").simulate(x[:1].numpy()).check()
    assert result.cycles.total == program_cycles(program).total
    assert result.values_compared > 160_000
