"""Measure float inference of pruned networks on the CPU: is a pruned network faster as much as it is smaller?

    python bench/inference.py [--threads 1] [--batch 64] [--rounds 15] [NETWORK ...]

Every network runs as PyTorch runs it (`torch`, the baseline: dense convolutions, channels last); with fewer `filters`,
as PyTorch runs the smaller network that is left of Filter; and as products of weight matrices with gathered windows:
`dense` ones; `filters + columns`, cut to the submatrices that FilterColumn leaves, windows and maps with them; `CSR`,
torch's compressed rows of NonStructured weights, over the columns that any row uses. Biases of pruned filters are zero,
so that the filters can be left out. Weights are random: rates and shapes decide the time. Each result is compared with
PyTorch's on the same pruned weights. Prints a Markdown table: the rate (dense / kept weights), that of the
multiply-accumulates, CPU milliseconds for a batch (the least of the rounds), and the speed against the baseline.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroskip.pruning import ConstraintSet, Filter, FilterColumn, NonStructured
from zeroskip.pruning.capture import capture
from zeroskip.pruning.graph import INPUT, Graph, Kind, Op
from zeroskip.pruning.networks import make_network

NETWORKS = {"lenet5": (1, 28, 28), "small_vgg": (1, 28, 28)}
RATES = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Product:
    """One layer as ``matrix @ windows + bias``.

    Members
    -------
    matrix : Tensor (rows, columns), strided or CSR
    bias : Tensor (rows, 1)
    taps : channel of the map before, y and x of the window, for every column
    """

    op: Op
    matrix: Tensor
    bias: Tensor
    taps: tuple[tuple[int, int, int], ...]


def main() -> None:
    """Measure the networks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if unknown := [name for name in options.networks if name not in NETWORKS]:
        parser.error(f"Networks must be among {', '.join(NETWORKS)}, not {', '.join(unknown)}")
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
    print(f"batch {options.batch}, {options.threads} threads, torch {torch.__version__}\n")
    print("| network | weights as | rate | rate of MACs | ms | times as fast as torch |\n|---|---|---:|---:|---:|---:|")
    for name in options.networks or NETWORKS:
        measure(name, options.batch, options.rounds)


def measure(name: str, batch: int, rounds: int) -> None:
    """Print the rows of one network."""
    torch.manual_seed(0)
    x = torch.rand(batch, *NETWORKS[name])
    dense = make_network(name).eval()
    base = least(runner(dense, x), rounds)
    print(f"| {name} | torch | 1.0 | 1.0 | {base:.2f} | 1.00 |", flush=True)
    kinds: list[tuple[str, int, Callable[[int], ConstraintSet] | None]] = [("dense", 1, None)]
    kinds += [("filters", rate, lambda r: Filter(1 / math.sqrt(r))) for rate in RATES]
    kinds += [("filters + columns", rate, lambda r: FilterColumn(1 / math.sqrt(r), 1 / math.sqrt(r))) for rate in RATES]
    kinds += [("CSR", rate, lambda r: NonStructured(1 / r)) for rate in RATES]
    for kind, rate, made in kinds:
        model = pruned(name, dense, made(rate) if made else None)
        graph = capture(model, x[:1])
        products = laid_out(graph, model, sparse=kind == "CSR", whole=kind == "dense")
        work = convolutions(graph, products, x) if kind == "filters" else partial(run, graph, products, x)
        with torch.no_grad():
            torch.testing.assert_close(work(), model(x), rtol=1e-3, atol=1e-4)
        spent = least(work, rounds)
        figures = " | ".join(f"{share:.1f}" for share in rates(products, graph.tensors(model)))
        print(f"| {name} | {kind} | {figures} | {spent:.2f} | {base / spent:.2f} |", flush=True)


def pruned(name: str, dense: nn.Module, constraint: ConstraintSet | None) -> nn.Module:
    """Return the network with its layers projected, all but the last, which keeps its outputs."""
    model = make_network(name).eval()
    model.load_state_dict(dense.state_dict())
    if constraint is None:
        return model
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for number, layer in enumerate(layers):
            last = layer is layers[-1]
            fitting = constraint
            if last and isinstance(constraint, Filter):
                continue
            if last and isinstance(constraint, FilterColumn):
                fitting = replace(constraint, filters=1.0)
            layer.weight.copy_(fitting.project(layer.weight))
            alive = layer.weight.flatten(1).any(1)
            shift = norms[number] if number < len(norms) else layer
            if shift.bias is not None and not last:
                shift.bias.mul_(alive)
    return model


def rates(products: Mapping[str, Product], tensors: Mapping[str, Tensor]) -> tuple[float, float]:
    """Return dense / kept weights and multiply-accumulates."""
    weights = kept = macs = left = 0
    for op, matrix in ((product.op, product.matrix) for product in products.values()):
        positions = math.prod(op.out_shape[1:])
        count = tensors[op.weight or ""].numel()
        nonzero = matrix.values().numel() if matrix.layout == torch.sparse_csr else matrix.numel()
        weights, kept = weights + count, kept + nonzero
        macs, left = macs + positions * count, left + positions * nonzero
    return weights / kept, macs / left


def laid_out(graph: Graph, model: nn.Module, sparse: bool, whole: bool) -> dict[str, Product]:
    """Return every layer's matrix, cut to what is not zero unless ``whole``; with ``sparse`` rows stay, and CSR."""
    tensors = graph.tensors(model)
    alive: dict[str, list[int]] = {INPUT: list(range(graph.in_shape[0]))}
    products: dict[str, Product] = {}
    for op in graph.ops:
        if op.weight is None:
            alive[op.name] = alive[op.inputs[0]]
            continue
        weight = tensors[op.weight].detach()
        bias = torch.zeros(len(weight)) if op.bias is None else tensors[op.bias].detach()
        matrix = weight.flatten(1)
        if op.norm is not None:
            gain, offset = (values.detach() for values in op.norm.affine(tensors))
            matrix, bias = matrix * gain[:, None], bias * gain + offset
        window = op.kernel if op.kind is Kind.CONV2D else op.in_shape[1:] or (1, 1)
        place = {channel: number for number, channel in enumerate(alive[op.inputs[0]])}
        height, width = window
        taps = [(place.get(k // (height * width), -1), k // width % height, k % width) for k in range(matrix.shape[1])]
        used = torch.tensor([tap[0] >= 0 for tap in taps]) & (matrix.any(0) | whole)
        last = op is graph.ops[-1]
        rows = torch.ones(len(matrix), dtype=torch.bool) if sparse or whole or last else matrix[:, used].any(1)
        alive[op.name] = rows.nonzero().flatten().tolist()
        cut = matrix[rows][:, used].contiguous()
        products[op.name] = Product(
            op, cut.to_sparse_csr() if sparse else cut, bias[rows, None],
            tuple(tap for tap, kept in zip(taps, used.tolist(), strict=True) if kept),
        )  # fmt: skip
    return products


def flat_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a linear layer to maps."""
    return F.linear(x.flatten(1), weight, bias)


def convolutions(graph: Graph, products: Mapping[str, Product], x: Tensor) -> Callable[[], Tensor]:
    """Return what runs a network of whole windows with PyTorch's own layers."""
    images = x.contiguous(memory_format=torch.channels_last)
    layers: dict[str, Callable[[Tensor], Tensor]] = {}
    for name, product in products.items():
        weight, bias = product.matrix, product.bias.flatten()
        if product.op.kind is Kind.CONV2D:
            weight = weight.reshape(len(weight), -1, *product.op.kernel)
            layers[name] = partial(
                F.conv2d, weight=weight.to(memory_format=torch.channels_last), bias=bias, padding=product.op.padding[:2]
            )
        else:
            layers[name] = partial(flat_linear, weight=weight, bias=bias)
    return partial(forward, graph, layers, images)


def run(graph: Graph, products: Mapping[str, Product], x: Tensor) -> Tensor:
    """Return the output (N, classes); maps are (C, N, H, W) in between, so that a channel is one piece of memory."""
    layers = {name: partial(multiplied, product) for name, product in products.items()}
    return forward(graph, layers, x.transpose(0, 1).contiguous()).flatten(1).t()


def forward(graph: Graph, layers: Mapping[str, Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    """Run the layers, with their ReLU behind the pool as in the networks themselves."""
    pooled = {op.inputs[0] for op in graph.ops if op.kind is Kind.MAX_POOL2D}
    active = {op.name for op in graph.ops if op.relu}
    for op in graph.ops:
        if op.kind is Kind.MAX_POOL2D:
            x = F.max_pool2d(x, op.kernel, op.stride)
            x = F.relu_(x) if op.inputs[0] in active else x
        else:
            x = layers[op.name](x)
            x = F.relu_(x) if op.relu and op.name not in pooled else x
    return x


def multiplied(product: Product, x: Tensor) -> Tensor:
    """Return the layer's maps (rows, N, H, W) of maps ``x`` (C, N, H, W), without ReLU."""
    op = product.op
    if op.kind is Kind.CONV2D:
        # All convolutions here have stride 1.
        top, left, bottom, right = op.padding
        x = F.pad(x, (left, right, top, bottom)) if any(op.padding) else x
        height, width = op.out_shape[1:]
        windows = torch.stack([x[c, :, i : i + height, j : j + width] for c, i, j in product.taps])
    else:
        rows, columns = x.shape[2:]
        values = x.flatten(2).transpose(1, 2).reshape(-1, x.shape[1])
        used = torch.tensor([(c * rows + i) * columns + j for c, i, j in product.taps])
        windows = values if len(used) == len(values) else values[used]
        height = width = 1
    y = product.matrix @ windows.reshape(len(windows), -1) + product.bias
    return y.reshape(len(y), x.shape[1], height, width)


def runner(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Return what runs the network as PyTorch does best."""
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = x.contiguous(memory_format=torch.channels_last)
    return lambda: model(images)


def least(work: Callable[[], object], rounds: int) -> float:
    """Return the least CPU milliseconds of ``work``."""
    spent = []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            start = time.process_time()
            work()
            spent.append(time.process_time() - start)
    return 1e3 * min(spent)


if __name__ == "__main__":
    main()
