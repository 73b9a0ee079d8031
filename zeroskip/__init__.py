"""zeroskip: from a PyTorch network to a pruned, quantized, verified and routed FPGA design."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Design", "compare", "compile", "load", "prune", "quantize", "reference", "simulate", "synthesize"]

_HOMES = {
    "Design": "zeroskip.api",
    "compare": "zeroskip.layerwise",
    "compile": "zeroskip.api",
    "load": "zeroskip.api",
    "prune": "zeroskip.pruning",
    "quantize": "zeroskip.pruning",
    "reference": "zeroskip.api",
    "simulate": "zeroskip.api",
    "synthesize": "zeroskip.api",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use: importing zeroskip imports neither torch nor amaranth."""
    if name not in _HOMES:
        raise AttributeError(f"module 'zeroskip' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*globals(), *__all__])
