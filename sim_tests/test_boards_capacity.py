"""What a board cannot hold is refused with the numbers, before minutes of synthesis."""

from __future__ import annotations

import re

import numpy as np
import pytest

import models
from zeroskip.boards import find_board
from zeroskip.boards.capacity import refuse_oversized
from zeroskip.compiler.errors import CapacityError
from zeroskip.compiler.ir import Tensor
from zeroskip.compiler.lower import lower
from zeroskip.compiler.target import Format, Geometry


def program(width):
    specs = (models.conv(4, 3, padding=1), models.conv(4, 3, padding=1), models.linear(2, relu=False, out_signed=True))
    model = models.build_model(np.random.default_rng(0), Tensor("input", (2, width, width)), specs)
    formats = {layer.name: Format.DENSE for layer in model.layers}
    return lower(model, Geometry(4, cores=2), formats)


def test_activations_and_images_beyond_the_block_ram_are_refused():
    board = find_board("ulx3s-25f")
    refuse_oversized(board, program(16))
    large = program(200)
    with pytest.raises(CapacityError, match="board 'ulx3s-25f' holds 1,032,192; prune further") as error:
        refuse_oversized(board, large)
    total, activations, parameters = (
        int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:bits|for)", str(error.value))[:3]
    )
    assert total == activations + parameters > board.bram * board.bram_bits
    assert activations == 8 * large.config.activation_depth * 8
    assert "one copy for each of 2 cores" in str(error.value)
