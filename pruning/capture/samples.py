"""Why a network has no graph for a sample: it fails on the sample by itself, or it does what no graph can hold."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from zeroskip.pruning.capture.source_lines import raising_line
from zeroskip.pruning.errors import PruningError

__all__ = ["refuse_sample", "silenced"]

_FORMS: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    ("lacks the batch axis", "x[None]", lambda x: x[None]),
    ("lacks the axes of batch and channels", "x[None, None]", lambda x: x[None, None]),
    ("lacks the axis of channels", "x[:, None]", lambda x: x[:, None]),
    ("has its channels last", "x.movedim(-1, 1)", lambda x: x.movedim(-1, 1)),
    ("has its channels last and no batch axis", "x.movedim(-1, 0)[None]", lambda x: x.movedim(-1, 0)[None]),
)
"""What an input may be like, and what makes it (N, C, ...)."""


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep torch from printing and logging its graph beside the one line of the error."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def refuse_sample(model: nn.Module, sample: Tensor, error: Exception, supported: str) -> PruningError:
    """Return the error that torch.export ended with ``error``; ``supported`` are the operations that a graph has.

    They are named only where the network itself takes the sample: else the sample is to blame, or the network's code.
    """
    failed = _failure(model, sample)
    cause = failed or error
    first = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    ending = _remedy(model, sample) if failed else f". Supported are: {supported}"
    return PruningError(
        f"The network cannot be captured with samples of shape {tuple(sample.shape[1:])}: "
        f"{first.rstrip('.')}{raising_line(cause)}{ending}"
    )


def _failure(model: nn.Module, sample: Tensor) -> Exception | None:
    """Return what the network raises for a sample, None where it takes it."""
    try:
        with silenced(), torch.no_grad():
            model(sample)
    except Exception as error:
        return error
    return None


def _remedy(model: nn.Module, sample: Tensor) -> str:
    """Return what is odd about the sample's shape and what helps, where the network takes it in another form."""
    for oddity, code, form in _FORMS:
        try:
            with silenced(), torch.no_grad():
                other = form(sample)
                found = model(other)
        except Exception:
            # Not this form.
            continue
        if isinstance(found, Tensor) and found.shape[:1] == other.shape[:1]:
            return f"; the input of shape {tuple(sample.shape)} {oddity}: give it as {tuple(other.shape)}, as by {code}"
    return ""
