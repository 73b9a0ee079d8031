"""Talk to a programmed board over its serial port, and load a bitstream into one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zeroskip.boards.board import Board
from zeroskip.boards.rom_images import FLASH_IMAGE
from zeroskip.boards.tools import find_tool
from zeroskip.boards.top import DEFAULT_BAUD
from zeroskip.compiler.errors import InputError, ToolError

__all__ = ["Link", "program"]

_LOG_LINES = 10


class Link:
    """The host's end of a board's UART: codes in, codes out, one byte each.

    Use it in a ``with`` statement, or call :meth:`close`.

    Parameters
    ----------
    port : str
        Device name such as ``/dev/ttyUSB0``, or any URL that pyserial opens.
    baud : int, bits/s, as synthesized
    timeout_s : float, seconds
        Longest wait for one inference beyond the time its bytes take on the line.
    open_port : Callable or None
        Opens the port; pyserial's ``serial_for_url`` when None.

    Raises
    ------
    InputError
        If the port cannot be opened; the text lists the ports there are.
    """

    def __init__(
        self,
        port: str,
        baud: int = DEFAULT_BAUD,
        timeout_s: float = 5.0,
        open_port: Callable[..., Any] | None = None,
    ) -> None:
        import serial

        self.port = port
        self.baud = baud
        self.timeout_s = timeout_s
        try:
            self._serial = (open_port or serial.serial_for_url)(port, baudrate=baud, timeout=timeout_s)
        except (serial.SerialException, ValueError, OSError) as error:
            raise InputError(f"Port {port!r} cannot be opened: {error}; {_ports()}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the port."""
        self._serial.close()

    def infer(self, inputs: NDArray[np.integer], n_outputs: int, *, signed: bool) -> NDArray[np.integer]:
        """Run inferences one after the other and return the output codes.

        Parameters
        ----------
        inputs : ndarray, shape (B, ...), codes of 8 bits
        n_outputs : codes an inference gives
        signed : whether output codes are signed

        Returns
        -------
        ndarray, int8 or uint8, shape (B, n_outputs)

        Raises
        ------
        ToolError
            If the board sends too few bytes in time.
        """
        results = np.empty((len(inputs), n_outputs), dtype=np.uint8)
        for index, codes in enumerate(np.asarray(inputs)):
            self._serial.reset_input_buffer()
            self._serial.write((codes.astype(np.int64) & 255).astype(np.uint8).tobytes())
            self._serial.flush()
            answer = self._serial.read(n_outputs)
            if len(answer) != n_outputs:
                raise ToolError(
                    f"Board at {self.port} sent {len(answer)} of {n_outputs} bytes for inference {index} within "
                    f"{self.timeout_s:g} s; program it with this design, press its reset button, and check that the "
                    f"link runs at {self.baud} baud"
                )
            results[index] = np.frombuffer(answer, dtype=np.uint8)
        return results.view(np.int8) if signed else results


def _ports() -> str:
    """Name the serial ports of this machine."""
    from serial.tools.list_ports import comports

    names = ", ".join(sorted(port.device for port in comports()))
    return f"the ports are {names}" if names else "there is no serial port"


def program(board: Board, bitstream: Path) -> None:
    """Load ``bitstream`` into ``board`` with the board's own loader, and what lies beside it for its flash.

    Raises
    ------
    InputError
        If there is no bitstream.
    ToolError
        If the loader is missing (the text says what installs it) or fails.
    """
    if not bitstream.is_file():
        raise InputError(f"Bitstream '{bitstream}' must be an existing file; run zeroskip synth first")
    image = bitstream.with_name(FLASH_IMAGE)
    if image.is_file() and board.flash is not None:
        # first: the bitstream starts at once, and boots
        _load(board.flash.programmer, image)
    _load(board.programmer, bitstream)


def _load(programmer: Sequence[str], file: Path) -> None:
    name, *options = programmer
    tool = find_tool(name)
    command = [*tool.command, *options, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()[-_LOG_LINES:]
        raise ToolError(
            "\n".join([f"Tool {name!r} failed with exit code {done.returncode}; is the board connected?", *lines])
        )
