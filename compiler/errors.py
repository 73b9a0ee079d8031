"""The errors of the toolkit and the exit code each one carries (ARCHITECTURE section 6)."""

from __future__ import annotations

__all__ = ["CapacityError", "CompileError", "InputError", "ToolError", "VerificationError", "ZeroskipError"]


class ZeroskipError(Exception):
    """An error whose text is meant for the user; ``exit_code`` is the process exit code."""

    exit_code = 2


class InputError(ZeroskipError, ValueError):
    """A file, option or array given by the user is not usable."""


class CompileError(ZeroskipError, ValueError):
    """A layer cannot be compiled; the text names the layer and the remedy."""


class VerificationError(ZeroskipError):
    """Two links of the exactness chain disagree."""

    exit_code = 1


class ToolError(ZeroskipError):
    """An external tool is missing or failed."""

    exit_code = 3


class CapacityError(ZeroskipError):
    """The design does not fit the device or misses its timing."""

    exit_code = 4
