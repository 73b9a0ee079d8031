"""The engine geometry a user may choose and the complete configuration the hardware is generated from."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.sign_add import RunCode

__all__ = [
    "MAX_ACTIVATION",
    "MAX_COLUMNS",
    "MAX_PRODUCTS",
    "MIN_DRAIN",
    "MIN_LEAD",
    "WRITE_WIDTHS",
    "Engine",
    "EngineConfig",
    "Format",
    "Geometry",
    "pair_bits",
    "pair_spacing",
]

MIN_DRAIN = 4
"""Fewest cycles between the ends of two units with a decoder: the next row's length takes that long to fetch."""

MIN_LEAD = 4
"""Fewest cycles of a layer's first unit with a decoder: the second row's length takes that long from the start."""

MAX_PRODUCTS = 1024

MAX_COLUMNS = 32

WRITE_WIDTHS = (2, 4)
"""Results a cycle that a bank can take at once: as many bytes as a block RAM's write port has enables for."""

MAX_ACTIVATION = 255
"""Largest magnitude of an activation: codes have 8 bits, signed or not."""


def pair_spacing(level_limit: int) -> int:
    """Return how many bits apart two levels of at most ``level_limit`` share a multiplier's operand.

    So many hold a product of one of them with an activation, and its sign.
    """
    return (MAX_ACTIVATION * level_limit).bit_length() + 1


def pair_bits(level_limit: int) -> int:
    """Return the bits of an operand that holds two levels, the upper one less where the lower is negative."""
    return pair_spacing(level_limit) + level_limit.bit_length() + 1


class Engine(enum.Enum):
    """What feeds the multiply-accumulate array: a counter, or an index decoder."""

    DENSE = "dense"
    SPARSE = "sparse"


class Format(enum.Enum):
    """How a layer's parameter stream names the operand of each weight."""

    DENSE = "dense"
    RELATIVE = "relative_index"
    BLOCKS = "block_index"
    BANKS = "bank_index"
    BITMAP = "bitmap"
    PATTERN = "pattern_id"

    @property
    def engine(self) -> Engine:
        """The engine that runs a layer of this format."""
        return Engine.DENSE if self is Format.DENSE else Engine.SPARSE


@dataclass(frozen=True)
class Geometry:
    """The size of the multiply-accumulate array.

    ``lanes`` output positions are worked on at once. ``columns`` output channels share one gather: its activations hop
    from column to column (systolic). ``cores`` output channels have a gather and a copy of the activation memory each,
    so that every one follows its own indices. ``results`` values leave the array a cycle. ``logic_products`` of the
    multipliers are made of logic cells instead of the device's multipliers. ``banked_vectors`` spreads what linear
    layers read over the banks, instead of a copy in every bank: less memory, but every row is spread over all lanes,
    which wait for the one with the most weights. ``paired_products`` lets two columns share a multiplier: both take the
    same activation in the same cycle. ``sign_adds`` lanes share one multiplier: each of them adds that many activations
    with their signs before it needs a product, so weights come in runs of that many with one magnitude.
    """

    lanes: int
    columns: int = 1
    cores: int = 1
    results: int = 1
    logic_products: int = 0
    banked_vectors: bool = False
    paired_products: bool = False
    sign_adds: int = 1

    def __post_init__(self) -> None:
        if self.lanes not in (4, 8, 16, 32):
            raise CompileError(f"Geometry lanes must be 4, 8, 16 or 32, not {self.lanes!r}")
        for name, limit in (("columns", MAX_COLUMNS), ("cores", 8)):
            value = getattr(self, name)
            if not 1 <= value <= limit:
                raise CompileError(f"Geometry {name} must be 1 to {limit}, not {value!r}")
        if self.columns > 1 and self.cores > 1:
            raise CompileError(
                f"Geometry has {self.columns} columns and {self.cores} cores; only one of them may be above 1: "
                "columns share the operands of one gather, cores have their own"
            )
        if self.results not in (1, 2, 4, 8, 16, 32) or self.results > self.lanes:
            raise CompileError(
                f"Geometry results must be a power of two up to the {self.lanes} lanes, not {self.results!r}"
            )
        if self.results == self.lanes and self.columns > 8:
            raise CompileError(
                f"Geometry results must be below the {self.lanes} lanes with {self.columns} columns; use "
                f"{self.lanes // 2}"
            )

        if self.sign_adds not in (1, 2, 4, 8, 16) or self.sign_adds > self.lanes:
            raise CompileError(
                f"Geometry sign_adds must be 1, 2, 4, 8 or 16, up to the {self.lanes} lanes, not {self.sign_adds!r}"
            )
        if self.sign_adds > 1 and self.banked_vectors:
            raise CompileError(
                f"Geometry has {self.sign_adds} sign_adds and banked_vectors; only one of them may be set: "
                "vectors over the banks give the weights of a run to different lanes"
            )
        if self.sign_adds > 1 and self.paired_products:
            raise CompileError(
                f"Geometry has {self.sign_adds} sign_adds and paired_products; only one of them may be set: "
                "a multiplier is shared by lanes or by columns"
            )
        if not 0 <= self.logic_products <= self.multipliers:
            raise CompileError(
                f"Geometry logic_products must be 0 to the {self.multipliers} products, not {self.logic_products!r}"
            )
        if self.paired_products and self.columns == 1:
            raise CompileError(
                f"Geometry paired_products must have at least 2 columns, not {self.columns}: the two products of a "
                "multiplier have the same activation, and cores have their own"
            )

    def skew(self, unit: int) -> int:
        """Return by how many cycles a column or core is later than the first; paired columns go together."""
        if self.cores > 1:
            return 0
        return unit // 2 if self.paired_products else unit

    @property
    def units(self) -> int:
        """Output channels worked on at once: columns or cores."""
        return self.columns * self.cores

    @property
    def words(self) -> int:
        """Drained words of one output channel: its lanes, ``results`` a word."""
        return self.lanes // self.results

    @property
    def products(self) -> int:
        """Weights a cycle: products, or signed additions."""
        return self.lanes * self.units

    @property
    def multipliers(self) -> int:
        """Products a cycle of the array: its multipliers, where no two columns share one."""
        return self.products // self.sign_adds

    def __str__(self) -> str:
        parts = [f"{self.lanes} lanes"]
        if self.columns > 1 or self.cores == 1:
            parts.append(f"{self.columns} columns")
        if self.cores > 1:
            parts.append(f"{self.cores} cores")
        text = " x ".join(parts)
        if self.results > 1:
            text = f"{text}, {self.results} results a cycle"
        if self.paired_products:
            text = f"{text}, two products a multiplier"
        if self.sign_adds > 1:
            text = f"{text}, {self.sign_adds} additions a product"
        return text if not self.logic_products else f"{text}, {self.logic_products} products in logic"


@dataclass(frozen=True)
class EngineConfig:
    """Everything the hardware generator needs beside the ROM images; widths in bits, depths in words.

    Attributes
    ----------
    geometry : Geometry
    activation_depth : words of one activation bank
    accumulator_width : proved from weights and activation ranges
    weight_width : stored weight code, widest layer
    level_bits : signed weight operand of the multipliers
    level_limit : largest magnitude of a weight level
    sign_bits, magnitude_bits : of a weight's sign (1: no weight of a run is 0) and of a run's magnitude, stored less 1
        unless ``has_empty_runs``; 0: every weight has a product of its own
    codebooks : levels of each codebook by code; layers name theirs by its number from 1
    pattern_bits : of the gap in a pattern layer's codes, the pattern's number lies above; 0: no such layers
    patterns : position offsets by pattern and element of each layer with patterns; layers name theirs by number from 1
    element_bits : of the number of an element within its block, kernel or bank; 0: no such layers
    linear_unit : positions a block of linear layers
    index_width : index code, widest layer (0: no layer has indices, and there is no decoder)
    mask_bits : mask word, widest bitmap layer; 0: no such layers
    bias_width, multiplier_width (0: power-of-two scales), shift_width : requantization fields
    search_stages : bits of the largest count of thresholds (0: no layer has thresholds)
    shift_min : the constant part of every shift
    per_channel : multiplier and shift lie in the bias ROM, one pair a channel, instead of in the layer descriptor
    output_size : words of the output buffer
    argmax_size : results of which the number of the largest is the output; 0: the results themselves are
    has_scales : some layer is requantized by multiplier and shift
    has_two_steps : some scale takes TensorFlow Lite's rounding in two steps
    has_padding, has_pooling, has_half_away, has_half_even, has_floor, has_zero_excluded, has_row_offsets, has_linear,
    has_windowed, has_split, has_keep, has_counted, has_slow, has_core_words, has_functions,
    has_plain_levels : some layer's weights are no zero-excluded ones
    has_wide_writes : some vector is written as many values at a time as leave the array
    has_wide_output : the network's output is written as many values at a time as leave the array
    has_row_words : the rows of some linear layer leave several at a time, each with a bias of its own
    has_banks, has_steps, has_sums, has_partial_sums, has_empty_runs : generate that hardware
    """

    geometry: Geometry
    activation_depth: int
    accumulator_width: int
    weight_width: int
    level_bits: int
    level_limit: int
    sign_bits: int
    magnitude_bits: int
    codebooks: tuple[tuple[int, ...], ...]
    pattern_bits: int
    patterns: tuple[tuple[tuple[int, ...], ...], ...]
    element_bits: int
    linear_unit: int
    index_width: int
    mask_bits: int
    bias_width: int
    multiplier_width: int
    shift_width: int
    shift_min: int
    search_stages: int
    per_channel: bool
    output_size: int
    argmax_size: int
    has_padding: bool
    has_pooling: bool
    has_scales: bool
    has_two_steps: bool
    has_half_away: bool
    has_half_even: bool
    has_floor: bool
    has_zero_excluded: bool
    has_row_offsets: bool
    has_linear: bool
    has_windowed: bool
    has_split: bool
    has_keep: bool
    has_counted: bool
    has_slow: bool
    has_core_words: bool
    has_functions: bool
    has_banks: bool
    has_steps: bool
    has_sums: bool
    has_partial_sums: bool
    has_empty_runs: bool
    has_plain_levels: bool
    has_wide_writes: bool
    has_wide_output: bool
    has_row_words: bool

    @property
    def bank_bytes(self) -> int:
        """Words of 8 bits that a bank's write port takes at once."""
        return self.geometry.results if self.has_wide_writes else 1

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
    def drain_delay(self) -> int:
        """Cycles that the first column's results wait for the last column's.

        Where some layers drain one value a cycle and others several, the chain moves at two speeds and is loaded while
        it stands.
        """
        return self.geometry.skew(self.geometry.columns - 1) if self.has_slow else 0

    @property
    def logic_products(self) -> int:
        """Products made of logic cells: all of them where levels of -1 to 1, not paired, leave nothing to multiply."""
        in_logic = self.level_bits == 2 and not self.geometry.paired_products
        return self.geometry.multipliers if in_logic else self.geometry.logic_products

    @property
    def paired_multipliers(self) -> int:
        """Hard multipliers that make two products: those of a lane in two neighbouring columns, neither in logic."""
        if not self.geometry.paired_products:
            return 0
        lanes = self.geometry.lanes
        pairs, left = divmod(self.geometry.products - self.logic_products, 2 * lanes)
        return pairs * lanes + max(0, left - lanes)

    @property
    def single_multipliers(self) -> int:
        """Hard multipliers that make one product a cycle."""
        return self.geometry.multipliers - self.logic_products - 2 * self.paired_multipliers

    @property
    def run_code(self) -> RunCode | None:
        """How the weight images hold runs; None where every weight has a product of its own."""
        if self.geometry.sign_adds == 1:
            return None
        base = 0 if self.has_empty_runs else 1
        return RunCode(self.geometry.sign_adds, self.sign_bits, self.magnitude_bits, base)

    @property
    def addend_bits(self) -> int:
        """Bits of the multipliers' other operand: an activation, or the signed sum of a run."""
        return 9 + (self.geometry.sign_adds - 1).bit_length()

    @property
    def operand_bits(self) -> int:
        """Bits of what meets an activation in its lane: a weight, or the sign of one."""
        return 2 if self.geometry.sign_adds > 1 else self.level_bits

    @property
    def product_cycles(self) -> int:
        """Cycles from an activation to its product, or from the last one of a run to the run's in its first lane."""
        return 4 if self.geometry.sign_adds > 1 else 2

    @property
    def turn_cycles(self) -> int:
        """Cycles by which the product of the last lane that shares a multiplier comes after the first one's."""
        return self.geometry.sign_adds - 1

    @property
    def indexed(self) -> bool:
        """Whether there is a decoder."""
        return self.index_width > 0
