"""Quantization: integer equals fake-quantized, BatchNorm folding, inputs, power of two, artifact bytes and refusals."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from constraint_sets import EVERY_SET
from torch_networks import GRAPHS, shaken
from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.compiler.reference import run
from zeroskip.pruning import (
    NM,
    Admm,
    BankBalanced,
    Block,
    Channel,
    Codebook,
    Column,
    Filter,
    FilterColumn,
    Input,
    Joint,
    Kernel,
    Levels,
    MicroBlock,
    NonStructured,
    Pattern,
    PruningError,
    Vector,
    quantize,
)
from zeroskip.pruning.calibration import calibrate, fake_quant_forward
from zeroskip.pruning.capture import capture
from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.export import Record, read_header
from zeroskip.pruning.graph import Kind
from zeroskip.pruning.quantize import layer_masks


class Small(nn.Module):
    """A convolution with BatchNorm, a pool and a linear layer, for 1x6x6 images."""

    def __init__(self, norm=True, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=padding, bias=not norm)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.fc = nn.Linear(6 * (2 + padding) ** 2, 4)

    def forward(self, x):
        return self.fc(nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2).flatten(1))


def small(norm=True, padding=0):
    model = Small(norm, padding).eval()
    if norm:
        with torch.no_grad():
            model.norm.weight.copy_(torch.tensor([1.2, -0.8, 0.0, 0.5, -1.5, 0.01]))
            model.norm.bias.copy_(torch.tensor([0.1, 0.7, 0.9, -0.2, 0.4, 0.3]))
            model.norm.running_mean.normal_(0, 0.2)
            model.norm.running_var.uniform_(0.2, 1.5)
    return model


def pixels(count=64):
    return torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))


SOURCE = Input(range=255, mean=0.25, std=0.5)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("padding", [0, 1])
def test_integer_network_equals_the_fake_quantized_one(norm, padding):
    source = Input(255, 0.2, 0.5) if padding else SOURCE
    model, x = small(norm, padding), pixels()
    net = quantize(model, x[:2], x, weights=4, activations=8, input=source)
    graph = capture(model.double(), source.normalize(x[:2]).double())
    tensors = graph.tensors(model)
    plan = calibrate(graph, tensors, source.normalize(x).double(), source)
    masks = layer_masks(graph, tensors, None)
    with torch.no_grad():
        fake = fake_quant_forward(graph, tensors, plan, masks)(source.normalize(x).double())
    out = net.golden.run(x)["output"]
    # Biases and multipliers are rounded, so a value close to a half may fall on the other side.
    codes = torch.round(fake / net.golden.tensors["output"].scale)
    assert int((codes - out).abs().max()) <= 1
    assert float((codes != out).float().mean()) < 0.15
    layer = net.golden.layers[0]
    assert tuple(layer.multiplier.shape) == ((6,) if norm else (1,))
    assert net.golden.layers[-1].multiplier.shape == (1,)


def test_batch_norm_of_gain_zero_and_negative_gain():
    model, x = small(), pixels()
    with torch.no_grad():
        model.norm.running_mean.zero_()
    net = quantize(model, x[:2], x, input=SOURCE)
    conv, form = net.golden.layers[0], net.golden.tensors["conv"]
    constant = net.golden.run(x)["conv"][:, 2]
    assert int(constant.min()) == int(constant.max()) == round(0.9 / form.scale)
    assert not conv.weight[2].any()
    assert (conv.weight[[0, 1, 3, 4, 5]] != 0).all()
    signs = torch.where(model.conv.weight[1] < 0, 1, -1)
    assert torch.equal(conv.weight[1].sign(), signs.to(torch.int16))
    assert (conv.multiplier >= 0).all()


def test_power_of_two_scales_need_no_multiplier():
    net = quantize(small(norm=False), pixels(2), pixels(), input=SOURCE, power_of_two=True)
    for layer in net.golden.layers:
        if layer.weight is not None:
            assert layer.multiplier.tolist() == [1]
            assert 0 <= int(layer.shift) < 48
    with pytest.raises(PruningError, match="Layer 'conv' has BatchNorm, which needs a multiplier a channel"):
        quantize(small(), pixels(2), pixels(), input=SOURCE, power_of_two=True)


def test_masks_and_structures_of_an_admm_hold():
    model = small(norm=False)
    admm = Admm(model, {"conv": Column(4), "fc": NonStructured(0.2)})
    with pytest.raises(PruningError, match="Admm must be hardened before its result is used"):
        quantize(model, pixels(2), pixels(), input=SOURCE, layers=admm)
    admm.harden()
    net = quantize(model, pixels(2), pixels(), input=SOURCE, layers=admm)
    conv, fc = net.golden.layers[0].weight, net.golden.layers[-1].weight
    assert torch.equal(conv != 0, admm.masks()["conv"])
    assert torch.equal(fc != 0, admm.masks()["fc"])
    assert net.structures["conv"] == {"kind": "column", "keep": 4, "group": 1}
    assert net.nonzero() == 6 * 4 + 19
    assert "43 of 150 weights, 3.5x" in repr(net)


@pytest.mark.parametrize("y", [torch.zeros(8, 1), torch.zeros(1).long(), torch.zeros(8), torch.eye(8).long()])
def test_labels_must_be_one_class_a_sample(y):
    model, x = small(), torch.randn(8, 1, 6, 6)
    net = quantize(model, x[:1], x)
    with pytest.raises(PruningError, match=r"Labels must be class numbers of shape \(8,\), one a sample, but they are"):
        net.accuracy((x, y))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"calibration": torch.randn(4, 1, 6, 7)}, r"samples have shape \(1, 6, 7\), but sample \(1, 6, 6\)"),
        ({"calibration": torch.full((4, 1, 6, 6), float("nan"))}, "calibration samples hold a NaN or an infinity"),
        ({"sample": np.zeros((1, 1, 6, 6))}, "sample must be a tensor with a batch axis, not ndarray"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(change, text):
    x = torch.randn(4, 1, 6, 6)
    with pytest.raises(PruningError, match=text):
        quantize(small(), **{"sample": x[:1], "calibration": x} | change)


def test_samples_of_another_normalization_are_noticed(caplog):
    source, codes = Input(range=255, mean=33 / 255, std=0.31), pixels()
    # Mostly background, as images are.
    codes[:, :, 1:] = 0
    right, unit, raw = source.normalize(codes), codes / 255, codes.to(torch.float32)
    labels = torch.zeros(len(codes), dtype=torch.int64)
    net = quantize(small(), right[:1], right, input=source)
    net.accuracy((right, labels))
    net.accuracy((codes, labels))
    quantize(small(), right[:1], codes, input=source)

    def warnings():
        return [record.message for record in caplog.records if record.levelname == "WARNING"]

    assert not warnings()
    for wrong in (unit, raw):
        quantize(small(), wrong[:1], wrong, input=source)
        net.accuracy((wrong, labels))
        assert [text.partition(" are not ")[0] for text in warnings()] == [
            "Most values of the calibration samples", "Most values of the samples",
        ]  # fmt: skip
        caplog.clear()


def test_a_copy_that_is_off_the_sets_is_refused():
    model, x = small(), torch.randn(20, 1, 6, 6)
    admm = Admm(model, {"fc": NonStructured(0.1)})
    dense = copy.deepcopy(model)
    admm.harden()
    pruned = copy.deepcopy(model)
    assert quantize(pruned, x[:1], x, layers=admm).nonzero() == quantize(model, x[:1], x, layers=admm).nonzero()
    with pytest.raises(PruningError, match="Layer 'fc' has nonzero weights at pruned positions"):
        quantize(dense, x[:1], x, layers=admm)


def test_levels_on_pruned_blocks_leave_the_zeros_to_be_found():
    model, x = small(), torch.randn(20, 1, 6, 6)
    first = Admm(model, {"fc": Block(0.25, 1, 4)})
    first.harden()
    second = Admm(model, {"fc": Levels(4)}, parent=first)
    second.harden()
    kept = int(torch.count_nonzero(model.fc.weight))
    net = quantize(model, x[:1], x, layers=second)
    assert net.structures["fc"] == {"kind": "nonstructured", "keep": kept}
    assert net.structures["conv"] == {"kind": "dense"}


def test_accuracy_takes_codes_floats_and_batches():
    model, x = small(norm=False), pixels()
    net = quantize(model, x[:2], x, input=SOURCE)
    y = net.golden.predict(x)
    y[:16] = (y[:16] + 1) % 4
    floats = SOURCE.normalize(x)
    assert net.accuracy((x, y)) == net.accuracy((floats, y)) == net.accuracy(ImageSet(x, y)) == 0.75
    assert net.accuracy([(floats[:10], y[:10]), (floats[10:], y[10:])]) == 0.75
    with pytest.raises(PruningError, match="accuracy needs labels"):
        net.accuracy(x)


def test_float_input_without_declaration_is_signed_8_bit(caplog):
    model = nn.Sequential(nn.Linear(5, 3))
    x = torch.randn(40, 5)
    net = quantize(model, x[:2], x)
    assert "No Input(...) is declared: the float input is calibrated to signed 8 bit" in caplog.text
    form = net.golden.tensors["input"]
    assert (form.signed, form.bits) == (True, 8)
    out = net.golden.run(net.codes(x))["output"] * net.golden.tensors["output"].scale
    assert float((out - model(x).detach()).abs().max()) < 0.3


def test_padded_input_needs_a_whole_zero_point():
    with pytest.raises(
        PruningError, match="Layer 'conv' pads its input, so mean \\* range must be a whole code, not 63.75"
    ):
        quantize(small(padding=1), pixels(2), pixels(), input=SOURCE)
    net = quantize(small(padding=1), pixels(2), pixels(), input=Input(255, 0.2, 0.5))
    assert net.golden.tensors["input"].zero_point == 51


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": {"cnv": 4}}, "No layer is called 'cnv'; the nearest are: conv"),
        ({"weights": {"conv": 4}}, "weights names no bits for layer 'fc'; add it or a glob"),
        ({"weights": 9}, "Weight bits must be a whole number from 1 to 8, not 9"),
        ({"activations": 9}, "Activation bits must be from 1 to 8, not 9"),
        ({"input": None}, "Integer samples need uint8 or int8 codes and input=Input"),
    ],
)
def test_refusals(options, text):
    with pytest.raises(PruningError, match=text):
        quantize(small(norm=False), pixels(2), pixels(), **({"input": SOURCE} | options))


def test_artifact_round_trip(tmp_path):
    model, x = small(), pixels()
    net = quantize(model, x[:2], x, weights={"conv": 4, "fc": 8}, input=SOURCE)
    record = Record(network="small", seed=3, accuracy={"float": 0.5, "integer": 0.25, "samples": 4})
    path = net.save(tmp_path / "net.safetensors", record)
    again = net.save(tmp_path / "again" / "net.safetensors", record)
    assert path.read_bytes() == again.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "net.safetensors"]
    header, tensors = read_header(path), load_file(path)
    assert header["format"] == "1.0"
    assert header["name"] == "net"
    assert header["accuracy"]["integer"] == 0.25
    assert [layer["kind"] for layer in header["layers"]] == ["conv2d", "max_pool2d", "linear"]
    assert [layer.get("grid") for layer in header["layers"]] == ["zero_excluded", None, "symmetric"]
    assert header["layers"][0]["clamp"] == [0, 255]
    assert header["layers"][2]["clamp"] == [-128, 127]
    assert header["tensors"]["pool1"]["shape"] == [6, 2, 2]
    expected = {"weight": np.int16, "bias": np.int32, "multiplier": np.int32, "shift": np.int8}
    for layer in ("conv", "fc"):
        for name, dtype in expected.items():
            assert tensors[f"{layer}.{name}"].dtype == dtype
    for name, value in net.golden.run(x[:16]).items():
        assert np.array_equal(tensors[f"golden/{name}"], value.numpy())
    assert json.loads(json.dumps(header)) == header


def test_damaged_artifacts_are_found(tmp_path):
    x = pixels()
    path = quantize(small(norm=False), x[:2], x, input=SOURCE).save(tmp_path / "net.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PruningError, match="is damaged: its tensors do not have the sha256 of its header"):
        read_header(path)
    path.write_bytes(b"PK\x03\x04 not an artifact")
    with pytest.raises(PruningError, match="is not an artifact of zeroskip"):
        read_header(path)


def test_save_needs_the_suffix_and_a_folder(tmp_path):
    net = quantize(small(norm=False), pixels(2), pixels(), input=SOURCE)
    with pytest.raises(PruningError, match=r"must end in \.safetensors, not 'net\.pt'"):
        net.save(tmp_path / "net.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(PruningError, match="cannot be written: .*; choose another folder"):
        net.save(tmp_path / "file" / "net.safetensors")


# Graphs: from a module through the artifact to the compiler's reference


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("activations", "per_channel"), [(8, False), (8, True), (6, False)])
@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_graphs_reach_the_compiler_exactly_and_stay_close_to_their_module(name, activations, per_channel, tmp_path):
    torch.manual_seed(1)
    make, shape = GRAPHS[name]
    model, x = shaken(make()), torch.randn(64, *shape)
    net = quantize(model, x[:2], x, weights=8, activations=activations, per_channel=per_channel)
    loaded = load_artifact(net.save(tmp_path / "net.safetensors"))
    assert loaded.metadata["format"] == ("1.0" if name == "pooled" else "1.1")
    codes = net.codes(x)
    torch_values, numpy_values = net.golden.run(codes), run(loaded, codes.numpy())
    assert set(torch_values) == set(numpy_values)
    for tensor, values in numpy_values.items():
        np.testing.assert_array_equal(torch_values[tensor].numpy(), values, err_msg=tensor)
    wanted = model(x).detach().numpy()
    if name == "pooled":
        # Softmax is left to the host; its logarithm is the values before it, but for a number a sample.
        wanted = np.log(wanted)
        wanted += (numpy_values["output"] * loaded.tensors["output"].scale - wanted).mean(1, keepdims=True)
    got = numpy_values["output"].reshape(wanted.shape) * loaded.tensors["output"].scale
    assert np.corrcoef(wanted.ravel(), got.ravel())[0, 1] > (0.995 if activations == 8 else 0.97)


def test_floats_are_those_of_the_module_when_it_was_quantized():
    model, codes = small(), pixels()
    net = quantize(model, codes[:1], codes, weights=8, input=SOURCE)
    x = SOURCE.normalize(codes)
    with torch.no_grad():
        conv = torch.relu(model.norm(model.conv(x)))
        wanted = {"conv": conv, "fc": model(x)}
        model.conv.weight.zero_()
    names = {"conv": net.golden.layers[0].output, "fc": "output"}
    for given in (codes, x):
        floats = net.float_values(given)
        assert {"input", *floats} == set(net.golden.tensors)
        for name, value in wanted.items():
            np.testing.assert_allclose(floats[names[name]], value.numpy(), rtol=1e-5, atol=1e-6)
    integers = net.golden.run(net.codes(codes))
    for name, values in floats.items():
        tensor = net.golden.tensors[name]
        steps = (integers[name] - tensor.zero_point).numpy() - values.reshape(integers[name].shape) / tensor.scale
        assert np.abs(steps).max() < 6, name


def test_activation_functions_are_clamps(tmp_path):
    torch.manual_seed(1)
    make, shape = GRAPHS["clipped"]
    x = torch.randn(64, *shape)
    model = shaken(make())
    with torch.no_grad():
        model.left.weight.mul_(30)
    loaded = load_artifact(quantize(model, x[:2], x, weights=8).save(tmp_path / "net.safetensors"))
    for name, lo, hi in (("stem_0", 0, 6), ("deep", -1, 1), ("right", 0, 2), ("add1", -2, np.inf)):
        tensor, clamp = loaded.tensors[loaded.layer(name).output], loaded.layer(name).clamp
        limits = [np.floor(limit / tensor.scale + 0.5) for limit in (lo, hi)]
        assert clamp == (max(tensor.lo, limits[0]), min(tensor.hi, limits[1]))
    assert loaded.layer("right").clamp[1] < loaded.tensors["right"].hi


def test_channels_with_scales_of_their_own(tmp_path):
    torch.manual_seed(2)
    model, x = nn.Sequential(nn.Linear(12, 5)).eval(), torch.randn(200, 12)
    with torch.no_grad():
        model[0].weight.mul_(torch.tensor([1.0, 0.05, 1e-8, 0.3, 0.0])[:, None])
    shared, own = (quantize(model, x[:2], x, weights=8, per_channel=choice) for choice in (False, True))
    assert (shared.golden.layers[0].multiplier.shape, own.golden.layers[0].multiplier.shape) == ((1,), (5,))
    # The tiny channel keeps a coarser scale, so that its bias fits; the empty one has the layer's.
    largest = own.golden.layers[0].weight.abs().amax(1).tolist()
    assert min(largest[0], largest[1], largest[3]) > 80 and largest[2] == largest[4] == 0
    wanted = model(x).detach()

    def error(net):
        return (net.golden.run(net.codes(x))["output"] * net.golden.tensors["output"].scale - wanted).square().mean(0)

    assert error(own)[1] < error(shared)[1]
    loaded = load_artifact(own.save(tmp_path / "net.safetensors"))
    assert len(loaded.metadata["layers"][0]["weight_scale"]) == 5
    with pytest.raises(PruningError, match="Scales for each channel need a multiplier a channel; use power_of_two"):
        quantize(model, x[:2], x, power_of_two=True, per_channel=True)


def test_zeros_and_shared_values_of_a_checkpoint_are_kept(tmp_path):
    torch.manual_seed(3)
    model, x = shaken(Every()), torch.randn(24, 2, 8, 8)
    values = torch.tensor([0.0, 0.0, 0.31, -0.17, 0.045, 0.5, -0.44])
    with torch.no_grad():
        model.conv.weight.copy_(values[torch.randint(7, model.conv.weight.shape)])
        model.fc.weight.mul_(torch.rand_like(model.fc.weight) < 0.2)
    net = quantize(model, x[:2], x, weights=8, per_channel=True)
    loaded = load_artifact(net.save(tmp_path / "net.safetensors"))
    conv, fc = loaded.layer("conv"), loaded.layer("fc")
    assert (conv.grid.value, fc.grid.value) == ("codebook", "symmetric")
    before = model.conv.weight.detach().numpy()
    turned = conv.weight * np.where(model.norm.weight.detach().numpy() < 0, -1, 1).reshape(8, 1, 1, 1)
    for value in values.tolist():
        assert len(np.unique(turned[before == np.float32(value)])) == 1
    assert np.array_equal(conv.weight == 0, before == 0)
    assert not fc.weight[(model.fc.weight == 0).numpy()].any()
    kept = int(torch.count_nonzero(model.fc.weight))
    assert fc.structure == {"kind": "nonstructured", "keep": kept}
    assert loaded.layer("first").structure == {"kind": "dense"}


def test_what_is_concatenated_gets_one_scale():
    torch.manual_seed(1)
    make, shape = GRAPHS["branches"]
    x = torch.randn(32, *shape)
    tensors = quantize(make().eval(), x[:2], x).golden.tensors
    wide, deep, joined = tensors["wide"], tensors["deep"], tensors["concat1"]
    assert (wide.scale, wide.signed) == (deep.scale, deep.signed) == (joined.scale, joined.signed)
    assert joined.signed


def test_joined_tensors_have_no_power_of_two_scales():
    make, shape = GRAPHS["branches"]
    x = torch.randn(8, *shape)
    text = "Layer 'concat1' joins tensors, whose scales need a multiplier; use power_of_two=False"
    with pytest.raises(PruningError, match=text):
        quantize(make().eval(), x[:2], x, power_of_two=True)


def test_pruned_sequences_keep_their_structure(tmp_path):
    make, shape = GRAPHS["sequence"]
    model, x = shaken(make()), torch.randn(32, *shape)
    admm = Admm(model, {"conv2": NonStructured(0.25)})
    admm.harden()
    net = quantize(model, x[:2], x, layers=admm)
    loaded = load_artifact(net.save(tmp_path / "net.safetensors"))
    layer = loaded.layer("conv2")
    assert layer.weight.shape == (4, 4, 1, 3)
    assert (layer.nonzero, layer.structure) == (12, {"kind": "nonstructured", "keep": 0.25})


# Every constraint set: hardened, quantized, saved, read by the compiler's importer, computed by its reference


class Every(nn.Module):
    """A layer of shape ``(8, 4, 3, 3)`` with BatchNorm between a depthwise and a linear one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.conv = nn.Conv2d(4, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 2 * 2, 6)

    def forward(self, x):
        x = torch.relu(self.depthwise(torch.relu(self.first(x))))
        return self.fc(nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2).flatten(1))


def exported(model, sets, x, path, **options):
    """Harden ``sets``, quantize, save and read again; check that reference and torch agree and return the model."""
    admm = Admm(model, sets)
    admm.harden()
    net = quantize(model, x[:2], x, layers=admm, **options)
    loaded = load_artifact(net.save(path / "net.safetensors"))
    codes = net.codes(x)
    torch_values, numpy_values = net.golden.run(codes), run(loaded, codes.numpy())
    for tensor, values in numpy_values.items():
        np.testing.assert_array_equal(torch_values[tensor].numpy(), values, err_msg=tensor)
    return admm, loaded


@pytest.mark.parametrize("constraint", EVERY_SET, ids=str)
def test_every_set_reaches_the_compiler(constraint, tmp_path):
    torch.manual_seed(5)
    model, x = shaken(Every()), torch.randn(24, 2, 8, 8)
    admm, loaded = exported(model, {"conv": constraint}, x, tmp_path)
    layer = loaded.layer("conv")
    assert layer.structure == admm.constraint("conv").describe()
    # BatchNorm turns the signs of whole filters.
    turned = np.where(model.norm.weight.detach().numpy() < 0, -1, 1).reshape(8, 1, 1, 1)
    kept = model.conv.weight.detach().numpy() * turned
    assert np.array_equal(np.sign(layer.weight), np.sign(kept))
    levels = admm.constraint("conv").levels_of(model.conv.weight)
    if levels is None:
        assert (layer.grid.value, layer.weight_bits) == ("zero_excluded", 4)
    else:
        np.testing.assert_allclose(layer.weight * levels[1], kept, atol=levels[1] / 2)


@pytest.mark.parametrize(
    ("sets", "grids"),
    [
        ({"depthwise": Filter(2), "fc": Vector(0.5, "input", 4)}, {"depthwise": "zero_excluded"}),
        ({"depthwise": Pattern(3, library=2), "fc": Block(0.5, 4, 4)}, {}),
        ({"depthwise": FilterColumn(2, 5), "fc": NM(2, 4)}, {}),
        ({"depthwise": Codebook(3), "fc": Codebook(16)}, {"depthwise": "codebook", "fc": "codebook"}),
        ({"fc": Levels(1, grid="binary"), "depthwise": Levels(2, grid="ternary")}, {"fc": "binary"}),
        ({"fc": MicroBlock(0.5, 1, 8, "both"), "depthwise": MicroBlock(rows=2, columns=3)}, {"fc": "zero_excluded"}),
        ({"fc": Joint(BankBalanced(8, 1), Levels(3)), "first": Joint(Kernel(0.5), Levels(1, grid="binary"))},
         {"fc": "zero_excluded", "first": "zero_excluded"}),
    ],
)  # fmt: skip
def test_sets_on_depthwise_and_linear_layers(sets, grids, tmp_path):
    torch.manual_seed(6)
    model, x = shaken(Every()), torch.randn(24, 2, 8, 8)
    _, loaded = exported(model, sets, x, tmp_path, weights=8)
    for name, grid in grids.items():
        wanted = "symmetric" if grid == "zero_excluded" and loaded.layer(name).weight_bits == 8 else grid
        assert loaded.layer(name).grid.value == wanted
    assert loaded.metadata["format"] == "1.1"


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("constraint", [Pattern(0.5, entries=2), Vector(0.5, "output", 2), Codebook(4), Channel(2)])
def test_sets_on_sequences(constraint, tmp_path):
    make, shape = GRAPHS["sequence"]
    torch.manual_seed(7)
    exported(shaken(make()), {"conv2": constraint}, torch.randn(32, *shape), tmp_path)


def test_levels_and_bits_of_a_set_win_over_the_options(tmp_path):
    torch.manual_seed(8)
    model, x = Every().eval(), torch.randn(24, 2, 8, 8)
    _, loaded = exported(model, {"fc": Levels(3, 0.125), "conv": Codebook(1)}, x, tmp_path, weights=8)
    assert loaded.metadata["layers"][-1]["weight_scale"] == 0.125
    assert (loaded.layer("fc").weight_bits, loaded.layer("conv").weight_bits) == (3, 1)
    assert loaded.layer("conv").codebook.tolist() in ([0, 255], [0, -255])


def test_a_codebook_with_too_many_turned_signs_is_refused(tmp_path):
    torch.manual_seed(9)
    model = shaken(nn.Sequential(nn.Conv2d(2, 40, 3, bias=False), nn.BatchNorm2d(40), nn.Flatten(), nn.Linear(160, 3)))
    x = torch.randn(24, 2, 4, 4)
    with torch.no_grad():
        model[0].weight.copy_(torch.linspace(0.1, 1, 720)[torch.randperm(720)].reshape(40, 2, 3, 3))
    admm = Admm(model, {"0": Codebook(200)})
    admm.harden()
    net = quantize(model, x[:2], x, layers=admm)
    with pytest.raises(
        PruningError, match="Layer '0' has .* levels with the signs that BatchNorm turns, .* 127 values"
    ):
        net.save(tmp_path / "net.safetensors")


class Largest(nn.Module):
    """A classifier that says which class, and optionally which axis it looks along."""

    def __init__(self, classes: int, dim: int = 1, keepdim: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.last = nn.Linear(3 * 4, classes)
        self.dim, self.keepdim = dim, keepdim

    def forward(self, x):
        return self.last(torch.relu(self.conv(x)).flatten(1)).argmax(self.dim, keepdim=self.keepdim)


@pytest.mark.parametrize(("classes", "dim", "keepdim"), [(5, 1, False), (300, -1, True)])
def test_the_number_of_the_largest_output_reaches_the_compiler(classes, dim, keepdim, tmp_path):
    model = Largest(classes, dim, keepdim).eval()
    x = torch.rand(64, 1, 4, 4)
    net = quantize(model, x[:1], x, weights=4)
    assert net.golden.layers[-1].kind is Kind.ARGMAX
    values = net.golden.run(net.codes(x))
    scores = values["last"].numpy()
    numbers = scores.argmax(1)
    np.testing.assert_array_equal(net.golden.predict(net.codes(x)).numpy(), numbers)
    assert net.accuracy((x, torch.from_numpy(numbers))) == 1.0
    words = values["output"].numpy().astype(int)
    np.testing.assert_array_equal((words << (8 * np.arange(words.shape[1]))).sum(1), numbers)
    found = load_artifact(net.save(tmp_path / "net.safetensors"))
    computed = run(found, net.codes(x).numpy())
    np.testing.assert_array_equal(computed["output"], values["output"].numpy())
    np.testing.assert_array_equal(computed["last"], scores)


def test_an_argmax_elsewhere_is_refused():
    x = torch.rand(4, 1, 4, 4)
    with pytest.raises(PruningError, match="argmax over the axis 0; only the outputs of a vector, axis 1, are known"):
        quantize(Largest(5, 0), x, x)
    with pytest.raises(PruningError, match=r"operation 'aten\.\w+\.\w+' behind an argmax"):
        quantize(nn.Sequential(Largest(5, keepdim=True), nn.ReLU()), x, x)
