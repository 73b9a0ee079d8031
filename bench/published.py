"""Quantize published networks and measure every link: accuracy, mismatches, compilation, cycles, RTL.

    python bench/published.py [--data DIR] [--out DIR] [--rtl N] [NETWORK ...]

`resnet20` is the CIFAR-10 checkpoint, with 8-bit weights a scale a channel; `squeezenet` has Deep Compression's zeros
and codebooks, for images of 227x227, and for 47x47 where all its layers run in RTL in minutes. Calibration is on
CIFAR-10 training images (enlarged, for SqueezeNet). The torch golden and the reference are compared value by value on
random and on real inputs (`--random`, `--real`), the RTL and the reference on `--rtl` inputs. Times are CPU seconds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import zeroskip as zs
from zeroskip.compiler.importers import load_model
from zeroskip.compiler.ir import Model
from zeroskip.compiler.reference import run
from zeroskip.pruning import Input, QuantizedNetwork, fold_channels, load_start, quantize
from zeroskip.pruning.data import load_cifar10
from zeroskip.pruning.networks import SQUEEZENET_PIXELS, ResNet20, SqueezeNet, load_deep_compression
from zeroskip.pruning.training import accuracy

IMAGENET = Input(255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SETTINGS = {
    "resnet20": ("dense", {"lanes": "16", "columns": "8"}),
    "squeezenet": ("sparse", {"lanes": "16", "cores": "4", "index_bits": "4"}),
    "squeezenet47": ("sparse", {"lanes": "8", "cores": "4", "index_bits": "4"}),
}
BATCH = 50


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
    net, real = made(name, options.data, options.real)
    path = net.save(options.out / f"{name}.safetensors")
    with clock(name, "import"):
        model = load_model(path)
    generator = torch.Generator().manual_seed(0)
    for kind, count in (("random", options.random), ("real", len(real))):
        values = mismatches = 0
        with clock(name, f"golden and reference on {count} {kind} inputs"):
            for first in range(0, count, BATCH):
                part = real[first : first + BATCH]
                if kind == "random":
                    shape = (min(BATCH, count - first), *real.shape[1:])
                    part = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
                found = compared(net, model, part)
                values, mismatches = values + found[0], mismatches + found[1]
        print(f"{name}: {values:,} values on {count} {kind} inputs, {mismatches} mismatches", flush=True)
    engine, settings = SETTINGS[name]
    with clock(name, "import and compile"):
        design = zs.compile(path, options.out / name, engine, settings=settings)
    print(f"{name}: {design.report()['cycles']['total']:,} cycles (model), {settings}", flush=True)
    if options.rtl:
        result = design.simulate(real[: options.rtl].numpy()).check()
        cycles = result.cycles.total if result.cycles else None
        print(f"{name}: RTL {result.values_compared:,} values, {result.mismatch_count} mismatches, {cycles:,} cycles")


def made(name: str, data: Path, count: int) -> tuple[QuantizedNetwork, Tensor]:
    """Return the quantized network and ``count`` real inputs; print the accuracies where there are labels."""
    images = load_cifar10(data)
    if name == "resnet20":
        model = ResNet20().eval()
        load_start(model, data / "models" / "resnet20-12fca82f.th")
        print(f"{name}: float {100 * accuracy(model, images.test, IMAGENET):.1f} %", flush=True)
        codes = images.train.x[:256]
        source = fold_channels(model, codes, IMAGENET)
        net = quantize(model, codes[:2], codes, weights=8, input=source, per_channel=True)
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


def compared(net: QuantizedNetwork, model: Model, codes: Tensor) -> tuple[int, int]:
    """Return how many values of all tensors the golden network and the reference have, and how many differ."""
    golden, values = net.golden.run(codes), run(model, codes.numpy())
    total = sum(found.size for found in values.values())
    return total, sum(int((golden[name].numpy() != found).sum()) for name, found in values.items())


@contextmanager
def clock(name: str, what: str) -> Iterator[None]:
    """Print the CPU seconds of the block, those of the programs it ran included."""
    start = sum(os.times()[:4])
    yield
    print(f"{name}: {what}: {sum(os.times()[:4]) - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
