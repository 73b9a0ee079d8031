"""The host link sends codes, waits for codes, and says what is wrong."""

from __future__ import annotations

import stat
import sys

import numpy as np
import pytest

from zeroskip.boards import find_board
from zeroskip.boards.driver import Link, program
from zeroskip.boards.tools import find_tool
from zeroskip.compiler.errors import InputError, ToolError


class Port:
    """A board that answers every four bytes with their sum and its negation."""

    def __init__(self, url, baudrate, timeout):
        self.opened = (url, baudrate, timeout)
        self.received = b""
        self.answers = b""
        self.closed = False

    def reset_input_buffer(self):
        self.answers = b""

    def write(self, data):
        self.received += data
        total = sum(data) & 255
        self.answers += bytes([total, -total & 255])

    def flush(self):
        pass

    def read(self, count):
        head, self.answers = self.answers[:count], self.answers[count:]
        return head

    def close(self):
        self.closed = True


def test_codes_go_out_and_come_back():
    with Link("somewhere", baud=115200, timeout_s=1.5, open_port=Port) as link:
        port = link._serial
        assert port.opened == ("somewhere", 115200, 1.5)
        inputs = np.array([[[1, 2], [3, 250]], [[0, 0], [0, 100]]])
        np.testing.assert_array_equal(link.infer(inputs, 2, signed=False), [[0, 0], [100, 156]])
        np.testing.assert_array_equal(link.infer(np.array([[-1, 0, 0, 5]]), 2, signed=True), [[4, -4]])
        assert port.received == bytes([1, 2, 3, 250, 0, 0, 0, 100, 255, 0, 0, 5])
    assert port.closed


def test_silent_board_is_named():
    link = Link("somewhere", timeout_s=0.5, open_port=Port)
    with pytest.raises(
        ToolError,
        match="^Board at somewhere sent 2 of 3 bytes for inference 0 within 0.5 s; program it with this design, "
        "press its reset button, and check that the link runs at 1000000 baud$",
    ):
        link.infer(np.zeros((1, 4), np.uint8), 3, signed=False)


def test_port_that_is_not_there(tmp_path):
    with pytest.raises(
        InputError, match="^Port '.*/none' cannot be opened: .*; (the ports are|there is no serial port)"
    ):
        Link(str(tmp_path / "none"))


@pytest.fixture
def empty_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    find_tool.cache_clear()
    yield tmp_path
    find_tool.cache_clear()


def test_programming(empty_path):
    board = find_board("icebreaker")
    bitstream = empty_path / "top.bin"
    with pytest.raises(InputError, match="top.bin' must be an existing file; run zeroskip synth first"):
        program(board, bitstream)
    bitstream.write_bytes(b"bits")
    with pytest.raises(
        ToolError,
        match="^Tool 'iceprog' is missing: looked for 'iceprog' on the PATH; "
        "install it with: apt install fpga-icestorm$",
    ):
        program(board, bitstream)

    loader = empty_path / "iceprog"
    loader.write_text(
        f"#!{sys.executable}\nimport sys\nif '--version' not in sys.argv:\n"
        "    open(sys.argv[-1] + '.loaded', 'w').close()\n    print('no device'); sys.exit(len(sys.argv) - 2)\n"
    )
    loader.chmod(loader.stat().st_mode | stat.S_IXUSR)
    find_tool.cache_clear()
    program(board, bitstream)
    assert (empty_path / "top.bin.loaded").exists()

    # what lies beside the bitstream for the flash is loaded as well, at its place
    (empty_path / "flash.bin").write_bytes(b"words")
    loader.write_text(loader.read_text().replace("len(sys.argv) - 2", "sys.argv[1:-1] not in ([], ['-o', '1M'])"))
    program(board, bitstream)
    assert (empty_path / "flash.bin.loaded").exists()

    loader.write_text(loader.read_text().replace("sys.argv[1:-1] not in ([], ['-o', '1M'])", "5"))
    with pytest.raises(
        ToolError, match="^Tool 'iceprog' failed with exit code 5; is the board connected\\?\nno device$"
    ):
        program(board, bitstream)
