"""The CRC-32 that proves parameters which come from outside."""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["crc32"]


def crc32(data: bytes) -> int:
    """Return the CRC-32 of ``data`` with the most significant bit first, as :data:`zeroskip.hw.boot.CRC32`."""
    # zlib's takes the bits of a byte, and gives those of the result, the other way round
    reversed_bits = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little")
    return int(f"{zlib.crc32(reversed_bits.tobytes()):032b}"[::-1], 2)
