"""The image that a board boots from: its words in order, its checksum, and the boards that cannot boot it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zeroskip.boards import find_board
from zeroskip.boards.rom_images import BootImage, boot_image, crc32
from zeroskip.compiler.errors import CapacityError, InputError
from zeroskip.hw.boot import CRC32

ICE40 = find_board("icebreaker")


def write_rom(directory, name: str, width: int, words: list[int], style: str = "spram") -> None:
    (directory / "rom").mkdir(exist_ok=True)
    header = {"style": style, "depth": len(words), "word_bits": width}
    (directory / "rom" / f"{name}.json").write_text(json.dumps(header))
    (directory / "rom" / f"{name}.mem").write_text("".join(f"{word:x}\n" for word in words))


@pytest.mark.parametrize("size", [1, 2, 7, 256, 4001])
def test_checksum_is_the_hardwares(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    assert crc32(data) == CRC32(data_width=8).compute(data)


def test_blocks_follow_the_names_of_the_images(tmp_path):
    write_rom(tmp_path, "weights_0", 20, [0x12345, 0x6789A, 0xBCDEF])
    write_rom(tmp_path, "index_0", 5, [0x1F, 0x02])
    write_rom(tmp_path, "bias", 20, [1, 2], "block")
    image = boot_image(tmp_path, ICE40)
    words = [0x1F, 0x02, 0x2345, 0x789A, 0xCDEF, 0x1, 0x6, 0xB]
    assert image == BootImage((2, 3, 3), b"".join(word.to_bytes(2, "big") for word in words))
    assert image.crc == crc32(image.data)


def test_design_without_spram_boots_nothing(tmp_path):
    write_rom(tmp_path, "weights_0", 20, [1, 2], "block")
    assert boot_image(tmp_path, find_board("ulx3s-25f")) is None


def test_board_without_spram_is_named(tmp_path):
    write_rom(tmp_path, "weights_0", 20, [1, 2])
    text = (
        rf"^Design in '{tmp_path}' loads its parameters into 2 SPRAMs, but board 'ulx3s-25f' has 0; compile again with "
        "--board ulx3s-25f$"
    )
    with pytest.raises(CapacityError, match=text):
        boot_image(tmp_path, find_board("ulx3s-25f"))


def test_damaged_images_are_named(tmp_path):
    write_rom(tmp_path, "weights_0", 4, [1, 2, 31])
    with pytest.raises(
        InputError,
        match="weights_0.mem' has 3 words of up to 5 bits, but module 'rom_weights_0' has 3 words of 4 bits$",
    ):
        boot_image(tmp_path, ICE40)
    (tmp_path / "rom" / "weights_0.json").write_text("{}")
    with pytest.raises(InputError, match="weights_0.json' must be JSON with a key 'style': KeyError"):
        boot_image(tmp_path, ICE40)
