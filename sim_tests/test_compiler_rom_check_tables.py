"""The address tables: every flipped word of an image is found, and the layer or input it belongs to is named."""

from __future__ import annotations

import numpy as np
import pytest

import models
from test_compiler_lower import compiled, spoil
from zeroskip.compiler.errors import VerificationError
from zeroskip.compiler.ir import Tensor
from zeroskip.compiler.rom_check import check_roms
from zeroskip.compiler.target import Engine, Geometry

CHOICES = [
    pytest.param((Geometry(4, columns=2), Engine.DENSE), id="dense"),
    pytest.param((Geometry(8, cores=2, results=2), Engine.SPARSE), id="sparse"),
]


@pytest.fixture
def padded() -> models.Model:
    """A network of padded convolutions, the second one of stride 2: every lane of every tile lies on its map."""
    specs = [
        models.conv(4, 3, padding=1),
        models.conv(4, 3, padding=1, stride=2),
        models.linear(3, relu=False, out_signed=True),
    ]
    return models.build_model(np.random.default_rng(0), Tensor("input", (2, 8, 8)), specs, samples=4)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", ["offsets", "mask_y", "mask_x"])
def test_every_flipped_word_of_a_window_table_is_found(padded, choice, name):
    program = compiled(padded, choice)
    rom = program.rom(name)
    for address in range(rom.depth):
        with pytest.raises(VerificationError, match=r"Layer 'conv\d': output position .* elsewhere than it lies"):
            check_roms(spoil(program, name, address, 1))


@pytest.mark.parametrize("name", ["arrival_rows", "arrival_columns"])
def test_every_flipped_word_of_an_arrival_table_is_found(padded, name):
    program = compiled(padded, (Geometry(4, columns=2), Engine.DENSE))
    for address in range(program.rom(name).depth):
        with pytest.raises(VerificationError, match=f"Table '{name}' of input 'input' differs"):
            check_roms(spoil(program, name, address, 0))
