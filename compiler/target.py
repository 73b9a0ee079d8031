"""The engine geometry a user may choose and the complete configuration the hardware is generated from."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from zeroskip.compiler.errors import CompileError

__all__ = ["Engine", "EngineConfig", "Geometry"]


class Engine(enum.Enum):
    """What feeds the multiply-accumulate array."""

    DENSE = "dense"
    SPARSE = "sparse"


@dataclass(frozen=True)
class Geometry:
    """The size of the multiply-accumulate array: ``lanes`` output positions times ``columns`` output channels.

    The index-decoding engine has one core (``columns == 1``).
    """

    engine: Engine
    lanes: int
    columns: int = 1

    def __post_init__(self) -> None:
        if self.lanes not in (4, 8, 16, 32):
            raise CompileError(f"Geometry lanes must be 4, 8, 16 or 32, not {self.lanes!r}")
        if not 1 <= self.columns <= 32:
            raise CompileError(f"Geometry columns must be 1 to 32, not {self.columns!r}")
        if self.engine is Engine.SPARSE and self.columns != 1:
            raise CompileError(
                f"Geometry columns must be 1 for the sparse engine, not {self.columns!r}; raise lanes instead"
            )

    @property
    def drain_cycles(self) -> int:
        """Fewest cycles between the ends of two units: every accumulator leaves through one post-processor."""
        return self.lanes * self.columns + self.columns - 1

    @property
    def products(self) -> int:
        """Products a cycle."""
        return self.lanes * self.columns


@dataclass(frozen=True)
class EngineConfig:
    """Everything the hardware generator needs beside the ROM images; widths in bits, depths in words.

    Attributes
    ----------
    geometry : Geometry
    activation_depth : words of one activation bank
    accumulator_width : proved from weights and activation ranges
    weight_width : stored weight code, widest layer
    index_width : relative index, widest layer (0 for the dense engine)
    bias_width, multiplier_width (0: power-of-two scales), shift_width : requantization fields
    shift_min : the constant part of every shift
    per_channel : multiplier and shift lie in the bias ROM, one pair a channel, instead of in the layer descriptor
    has_padding, has_pooling, has_half_away, has_zero_excluded, has_row_offsets, has_linear : generate that hardware
    """

    geometry: Geometry
    activation_depth: int
    accumulator_width: int
    weight_width: int
    index_width: int
    bias_width: int
    multiplier_width: int
    shift_width: int
    shift_min: int
    per_channel: bool
    has_padding: bool
    has_pooling: bool
    has_half_away: bool
    has_zero_excluded: bool
    has_row_offsets: bool
    has_linear: bool

    @property
    def lane_bits(self) -> int:
        """Bits of a bank number."""
        return (self.geometry.lanes - 1).bit_length()

    @property
    def word_address_bits(self) -> int:
        """Bits of a word address in one bank."""
        return max(1, (self.activation_depth - 1).bit_length())

    @property
    def position_bits(self) -> int:
        """Bits of a linear activation address (bank in the low bits)."""
        return self.word_address_bits + self.lane_bits

    @property
    def slot_bits(self) -> int:
        """Bits of one parameter slot: index in the low bits, weight above."""
        return self.weight_width + self.index_width
