"""What test_pruning_replicas.py launches with torchrun: a training loop of the user's own, and ranks that disagree.

    torchrun --nproc-per-node 2 sim_tests/torchrun_digits.py RESULT.json

RESULT.json gets what each rank has found, as a list.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import weakref
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from zeroskip.pruning import Admm, Column, Input, NonStructured, PruningError
from zeroskip.pruning.data import load_digits
from zeroskip.pruning.networks import make_network
from zeroskip.pruning.replicas import share
from zeroskip.pruning.training import accuracy

SOURCE = Input(16, 0.0, 0.5)
SETS = {"conv2": Column(keep=0.5), "fc*": NonStructured(keep=0.3)}


def train_one_epoch(model, loader, optimizer, seen):
    for number, x, y in loader:
        seen += number.tolist()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def prune(seed):
    """The loop of ARCHITECTURE 6b, in a process group with DistributedDataParallel."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    split = load_digits()
    numbered = TensorDataset(torch.arange(len(split.train)), SOURCE.normalize(split.train.x), split.train.y)
    sampler = DistributedSampler(numbered, seed=seed, drop_last=True) if ranks > 1 else None
    shuffled = torch.Generator().manual_seed(seed)
    loader = DataLoader(numbered, 64 // ranks, sampler is None, sampler, generator=shuffled, drop_last=True)
    # Every rank starts from its own weights; DistributedDataParallel gives all of them those of rank 0.
    torch.manual_seed(seed + (dist.get_rank() if ranks > 1 else 0))
    net = make_network("digits_cnn")
    model = DistributedDataParallel(net) if ranks > 1 else net
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    seen = []

    def epochs(count):
        for _ in range(count):
            seen.clear()
            train_one_epoch(model, loader, optimizer, seen)
            yield

    for _ in epochs(8):
        pass
    admm = Admm(model, SETS, rho=(1e-2, 0.5), updates=4)
    admm.attach(optimizer)
    for _ in epochs(4):
        admm.update()
    admm.harden()
    for _ in epochs(4):
        pass
    admm.check()
    state = hashlib.sha256(b"".join(value.detach().numpy().tobytes() for value in net.parameters())).hexdigest()
    kept = {name: int(mask.sum()) for name, mask in admm.masks().items()}
    return {"accuracy": accuracy(net, split.test, SOURCE), "state": state, "kept": kept, "seen": seen}


def refusals():
    """What each rank is told when it does not hold what the others hold."""
    told = {}
    second = dist.get_rank() == 1

    def spoil_weight(admm, net):
        net.fc2.weight[0, 0] += 1e-6

    def spoil_dual(admm, net):
        # At a weight far below those that are kept, so that Z is the same on both ranks.
        state = admm.state_dict()
        state["tensors"]["fc1.u"].view(-1)[net.fc1.weight.abs().argmin()] = 1e-6
        admm.load_state_dict(state)

    for name, spoil in {"W": spoil_weight, "U": spoil_dual}.items():
        torch.manual_seed(0)
        net = make_network("digits_cnn")
        admm = Admm(net, {"*": NonStructured(0.5)})
        admm.update()
        with torch.no_grad():
            if second:
                spoil(admm, net)
        told[name] = text_of(admm.update)
    torch.manual_seed(dist.get_rank())
    net = make_network("digits_cnn")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    told["start"] = text_of(lambda: Admm(net, {"fc1": NonStructured(0.5)}).attach(optimizer))
    torch.manual_seed(0)
    net = make_network("digits_cnn")
    told["sets"] = text_of(Admm(net, {"fc1" if second else "fc2": NonStructured(0.5)}).update)
    told["share"] = text_of(lambda: share(torch.zeros(5, 1)))
    return told


def text_of(call):
    try:
        call()
    except PruningError as error:
        return str(error)
    return None


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    own = {"loop": prune(0), "refusals": refusals()}
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))
    dist.barrier()
    group = weakref.ref(dist.group.WORLD)
    dist.destroy_process_group()
    gc.collect()
    # Else its threads are still there as the interpreter ends, which aborts the process now and then.
    assert group() is None, "the process group outlives its end"


if __name__ == "__main__":
    main()
