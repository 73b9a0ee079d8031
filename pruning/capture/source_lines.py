"""The user's source line behind a node of an exported graph, or behind an error of torch.export."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

import torch
from torch import fx

__all__ = ["raising_line", "source_line"]


def raising_line(error: BaseException) -> str:
    """Return `` at FILE:LINE (code)`` of the user's innermost line that an error of torch.export came through."""
    foreign = (str(Path(torch.__file__).parent), sysconfig.get_path("stdlib"), str(Path(__file__).parent))
    chain: BaseException | None = error
    while chain is not None:
        frames = traceback.extract_tb(chain.__traceback__)
        # Code that torch makes has no file.
        own = [frame for frame in frames if not frame.filename.startswith((*foreign, "<"))]
        if own:
            return f" at {own[-1].filename}:{own[-1].lineno} ({own[-1].line})"
        chain = chain.__cause__ or chain.__context__
    return ""


def source_line(node: fx.Node) -> str:
    """Return `` at FILE:LINE (code)`` of the user's innermost line that made the node."""
    trace = node.meta.get("stack_trace") or ""
    found = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n?\s*([^\n]*)', trace)
    if not found:
        return ""
    own = [entry for entry in found if "/torch/nn/" not in entry[0]] or found
    file, line, code = own[-1]
    return f" at {file}:{line} ({code.strip()})"
