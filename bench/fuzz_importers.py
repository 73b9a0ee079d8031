"""Damage model files many times over and read them: each must be refused with a message or be a legal network.

    python bench/fuzz_importers.py FILE ... [--mutations 10000] [--seed 1]

Run it from a checkout. A file that is accepted is run once in the reference. Ends with a traceback at the first damage
that raises anything but an error with a text for the user, takes more than ten seconds or more than the memory limit;
the damaged file stays beside the log line that names it. Prints how many were refused and accepted.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from zeroskip.compiler import reference
from zeroskip.compiler.errors import ZeroskipError
from zeroskip.compiler.importers import load_model

sys.path.append(str(Path(__file__).resolve().parents[1] / "sim_tests"))

from tflite_models import mutated

SECONDS = 10.0
MEMORY_BYTES = 4 << 30


def fuzz(path: Path, mutations: int, seed: int) -> str:
    """Return one line of counts for a file."""
    content, rng = path.read_bytes(), np.random.default_rng(seed)
    counts, slowest = {"refused": 0, "accepted": 0}, 0.0
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    damaged = folder / f"damaged{path.suffix}"
    for number in range(mutations):
        damaged.write_bytes(mutated(content, rng))
        started = time.process_time()
        try:
            model = load_model(damaged)
            tensor = model.tensors[model.input]
            reference.run(model, rng.integers(tensor.lo, tensor.hi + 1, (1, *tensor.shape)))
            counts["accepted"] += 1
        except ZeroskipError:
            counts["refused"] += 1
        except BaseException:
            print(f"mutation {number} of seed {seed}: {damaged}", file=sys.stderr)
            raise
        slowest = max(slowest, time.process_time() - started)
        if slowest > SECONDS:
            raise SystemExit(f"mutation {number} of seed {seed} took {slowest:.0f} s: {damaged}")
    damaged.unlink()
    folder.rmdir()
    return f"{path.name}: {counts['refused']} refused, {counts['accepted']} accepted, slowest {slowest:.2f} s"


def main() -> None:
    """Parse, fuzz, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--mutations", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for path in arguments.files:
        print(fuzz(path, arguments.mutations, arguments.seed), flush=True)


if __name__ == "__main__":
    main()
