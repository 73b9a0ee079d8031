"""Capture an ``nn.Module`` as a graph of layers with torch.export, or refuse it naming operation and source line."""

from __future__ import annotations

from zeroskip.pruning.capture.exported import capture
from zeroskip.pruning.capture.operations import SUPPORTED

__all__ = ["SUPPORTED", "capture"]
