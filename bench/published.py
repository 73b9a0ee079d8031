"""Take published networks as they are and measure every link: accuracy, mismatches, compilation, cycles, RTL.

    python bench/published.py [--data DIR] [--out DIR] [--rtl N] [NETWORK ...]

`resnet8` and `ds_cnn` are MLPerf Tiny's int8 files, compared with TensorFlow Lite's reference kernels (`pip install
ai-edge-litert`); `tfc` is the QONNX sample, compared with a float32 evaluation of its graph. `resnet20` is the
CIFAR-10 checkpoint, quantized here with 8-bit weights a scale a channel, or 5-bit ones (`resnet20w5`); `squeezenet`
has Deep Compression's zeros and codebooks, for images of 227x227, and for 47x47 where all its layers run in RTL in
minutes. Their calibration is on CIFAR-10 training images (enlarged, for SqueezeNet), and they are compared with the
torch golden. `autoencoder` has the shape of MLPerf Tiny's anomaly detection
(640-128-128-128-128-8-128-128-128-128-640) and weights drawn at random: its data are not here, and it is for cycles
and clock alone.

Every tensor of the framework is compared with the reference's on random and on real inputs (`--random`, `--real`),
every value of every layer of the RTL with the reference's on `--rtl` inputs. The real inputs of `ds_cnn` are noise of
its features' spread. Times are CPU seconds. Run it from a checkout.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import zeroskip as zs
from zeroskip.compiler.importers import load_model
from zeroskip.compiler.ir import Model
from zeroskip.compiler.reference import run
from zeroskip.pruning import Input, QuantizedNetwork, fold_channels, load_start, quantize
from zeroskip.pruning.data import load_cifar10
from zeroskip.pruning.networks import SQUEEZENET_PIXELS, ResNet20, SqueezeNet, load_deep_compression
from zeroskip.pruning.training import accuracy
from zeroskip.vectors import to_codes

sys.path.append(str(Path(__file__).resolve().parents[1] / "sim_tests"))

from onnx_networks import evaluate_tfc

Array = NDArray[Any]

IMAGENET = Input(255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ULX3S = {"board": "ulx3s-85f"}
SETTINGS: dict[str, dict[str, Any]] = {
    "resnet8": ULX3S,
    "ds_cnn": ULX3S,
    "tfc": ULX3S,
    "autoencoder": ULX3S,
    "resnet20": ULX3S,
    "resnet20w5": ULX3S,
    "squeezenet": {"engine": "sparse", "settings": {"lanes": "16", "cores": "4", "index_bits": "4"}},
    "squeezenet47": {"engine": "sparse", "settings": {"lanes": "8", "cores": "4", "index_bits": "4"}},
}
BATCH = 50
ENDS = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)


@dataclass(frozen=True)
class Network:
    """A model file and what its framework computes.

    Members
    -------
    path : the model file
    real : inputs as the framework takes them
    random : so many of them, drawn
    golden : all tensors that the framework has for a batch, by the model's names
    """

    path: Path
    real: Array
    random: Callable[[int, np.random.Generator], Array]
    golden: Callable[[Model, Array], dict[str, Array]]


def main() -> None:
    """Measure the networks and print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(SETTINGS))
    parser.add_argument("--data", type=Path, default=os.environ.get("ZEROSKIP_DATA"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("build/published"), metavar="DIR")
    parser.add_argument("--random", type=int, default=1000, metavar="N")
    parser.add_argument("--real", type=int, default=100, metavar="N")
    parser.add_argument("--rtl", type=int, default=0, metavar="N")
    options = parser.parse_args()
    if unknown := [name for name in options.networks if name not in SETTINGS]:
        parser.error(f"Networks must be among {', '.join(SETTINGS)}, not {', '.join(unknown)}")
    if options.data is None:
        parser.error("--data must name the data folder, or ZEROSKIP_DATA")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in options.networks or SETTINGS:
        measure(name, options)


def measure(name: str, options: argparse.Namespace) -> None:
    """Print the figures of one network."""
    network = opened(name, options)
    with clock(name, "import"):
        model = load_model(network.path)
    rng = np.random.default_rng(0)
    for kind, count in (("random", options.random), ("real", len(network.real))):
        values = mismatches = 0
        with clock(name, f"framework and reference on {count} {kind} inputs"):
            for first in range(0, count, BATCH):
                part = network.real[first : first + BATCH]
                if kind == "random":
                    part = network.random(min(BATCH, count - first), rng)
                found = compared(network, model, part)
                values, mismatches = values + found[0], mismatches + found[1]
        print(f"{name}: {values:,} values on {count} {kind} inputs, {mismatches} mismatches", flush=True)
    with clock(name, "import and compile"):
        design = zs.compile(network.path, options.out / name, **SETTINGS[name])
    print(f"{name}: {design.report()['cycles']['total']:,} cycles (model), {SETTINGS[name]}", flush=True)
    if options.rtl:
        with clock(name, "simulation"):
            result = design.simulate(network.real[: options.rtl]).check()
        cycles = result.cycles.total if result.cycles else None
        print(f"{name}: RTL {result.values_compared:,} values, {result.mismatch_count} mismatches, {cycles:,} cycles")


def opened(name: str, options: argparse.Namespace) -> Network:
    """Return a network; print the accuracies where there are labels."""
    models: Path = options.data / "models"
    if name == "resnet8":
        images = load_cifar10(options.data).test.x.numpy()
        return lite(models / "pretrainedResnet_quant.tflite", (images.astype(np.int16) - 128).astype(np.int8), options)
    if name == "ds_cnn":
        noise = np.random.default_rng(7).normal(83, 25, (options.real, 1, 49, 10))
        return lite(models / "kws_ref_model.tflite", np.clip(np.rint(noise), -128, 127).astype(np.int8), options)
    if name == "tfc":
        pixels = gzip.decompress((options.data / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
        digits = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28)[: options.real]
        proto = onnx.load(models / "TFC_2W2A.onnx")
        floats = digits.astype(np.float32) / np.float32(255)
        return Network(
            models / "TFC_2W2A.onnx", floats, lambda count, rng: rng.random((count, *floats.shape[1:]), np.float32),
            lambda _, inputs: evaluate_tfc(proto, inputs),
        )  # fmt: skip
    net, real = made(name, options.data, options.real)
    return Network(
        net.save(options.out / f"{name}.safetensors"), real.numpy(),
        lambda count, rng: rng.integers(0, 256, (count, *real.shape[1:]), np.uint8),
        lambda _, codes: {key: value.numpy() for key, value in net.golden.run(torch.from_numpy(codes)).items()},
    )  # fmt: skip


def lite(path: Path, real: Array, options: argparse.Namespace) -> Network:
    """Return a TensorFlow Lite network with its reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    index = {row["name"]: row["index"] for row in interpreter.get_tensor_details()}
    entry = interpreter.get_input_details()[0]["index"]

    def golden(model: Model, codes: Array) -> dict[str, Array]:
        found: dict[str, list[Array]] = {name: [] for name in model.metadata["source_tensors"]}
        for image in codes:
            interpreter.set_tensor(entry, image.transpose(1, 2, 0)[None])
            interpreter.invoke()
            for name, source in model.metadata["source_tensors"].items():
                value = interpreter.get_tensor(index[source])[0]
                found[name].append(value.transpose(2, 0, 1) if value.ndim == 3 else value)
        return {name: np.stack(values) for name, values in found.items()}

    shape = real.shape[1:]
    return Network(
        path, real[: options.real], lambda count, rng: rng.integers(-128, 128, (count, *shape), np.int8), golden
    )


def made(name: str, data: Path, count: int) -> tuple[QuantizedNetwork, Tensor]:
    """Return a network quantized here and ``count`` real inputs; print the accuracies where there are labels."""
    if name == "autoencoder":
        torch.manual_seed(0)
        layers = [module for pair in pairwise(ENDS) for module in (nn.Linear(*pair), nn.ReLU())]
        spectra = torch.randint(0, 256, (max(count, 256), ENDS[0]), dtype=torch.uint8)
        return quantize(nn.Sequential(*layers[:-1]), spectra[:2], spectra, weights=8, input=Input(255)), spectra[:count]
    images = load_cifar10(data)
    if name.startswith("resnet20"):
        model = ResNet20().eval()
        load_start(model, data / "models" / "resnet20-12fca82f.th")
        print(f"{name}: float {100 * accuracy(model, images.test, IMAGENET):.1f} %", flush=True)
        codes = images.train.x[:256]
        source = fold_channels(model, codes, IMAGENET)
        bits = 5 if name == "resnet20w5" else 8
        net = quantize(model, codes[:2], codes, weights=bits, input=source, per_channel=True)
        print(f"{name}: integer {100 * net.accuracy(images.test):.1f} % of {len(images.test)}", flush=True)
        return net, images.test.x[:count]
    size = 47 if name == "squeezenet47" else 227
    squeezenet = SqueezeNet().eval()
    load_deep_compression(squeezenet, data / "models" / "squeezenet_deep_compression.npz")
    codes = enlarged(images.train.x[:4], size)
    source = fold_channels(squeezenet, codes, SQUEEZENET_PIXELS)
    return quantize(squeezenet, codes[:2], codes, weights=8, input=source), enlarged(images.test.x[:count], size)


def enlarged(images: Tensor, size: int) -> Tensor:
    """Return images of ``size``, channels blue, green, red."""
    return F.interpolate(images.flip(1).float(), (size, size), mode="bilinear").round().to(torch.uint8)


def compared(network: Network, model: Model, inputs: Array) -> tuple[int, int]:
    """Return how many values of all tensors the framework and the reference have, and how many differ."""
    codes = to_codes(inputs, model.tensors[model.input], "inputs") if inputs.dtype.kind == "f" else inputs
    golden, values = network.golden(model, inputs), run(model, codes)
    total = sum(value.size for value in golden.values())
    return total, sum(int((value != values[name]).sum()) for name, value in golden.items())


@contextmanager
def clock(name: str, what: str) -> Iterator[None]:
    """Print the CPU seconds of the block, those of the programs it ran included."""
    start = sum(os.times()[:4])
    yield
    print(f"{name}: {what}: {sum(os.times()[:4]) - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
