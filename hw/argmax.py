"""The largest of the results that pass by, and its number."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ArgMax"]


class ArgMax(wiring.Component):
    """The number of the largest of ``size`` codes, the lowest of equal ones: :func:`numpy.argmax` of them.

    A code and its number make one unsigned key, ``{code, ~number}``, codes of either sign in ascending order: the
    largest key is the largest code and of equal ones that of the lowest number, in whatever order they come. Keys of a
    cycle are compared in pairs, a register a halving; the last register keeps the largest until it is taken.

    Latency ``2 + log2(parts)`` cycles from ``en`` to ``index``, initiation interval 1, never stalls. Cost: a comparison
    of ``8 + index_bits`` bits for each part.

    Parameters
    ----------
    size : int, number of codes
    parts : int, a power of two: so many codes come at once, numbered from a multiple of it on
    is_signed : bool, of the codes

    Members
    -------
    en : In(parts), which codes come in this cycle; those numbered ``size`` and above are left out
    number : In(index_bits), of the first; data : In(8 * parts)
    take : In(1), one cycle: ``index`` is read in this cycle, and the next code begins anew
    index : Out(index_bits)
    """

    def __init__(self, size: int, parts: int = 1, *, is_signed: bool = False) -> None:
        self.size = size
        self.parts = parts
        self.is_signed = is_signed
        self.index_bits = max(1, (size - 1).bit_length())
        super().__init__(
            {
                "en": In(parts),
                "number": In(self.index_bits),
                "data": In(8 * parts),
                "take": In(1),
                "index": Out(self.index_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the keys, their tree and the register of the largest."""
        m = Module()
        keys: list[Value] = [self._key(m, part) for part in range(self.parts)]
        while len(keys) > 1:
            halves = []
            for index in range(0, len(keys), 2):
                larger = Signal.like(keys[index], reset_less=True)
                m.d.sync += larger.eq(_larger(keys[index], keys[index + 1]))
                halves.append(larger)
            keys = halves
        largest = Signal.like(keys[0])
        # an absent code has key 0, which is not above any
        m.d.sync += largest.eq(_larger(Mux(self.take, 0, largest), keys[0]))
        m.d.comb += self.index.eq(~largest[: self.index_bits])
        return m

    def _key(self, m: Module, part: int) -> Value:
        """Return the key of a code a cycle later, 0 where there is none."""
        part_bits = (self.parts - 1).bit_length()
        upper = self.number[part_bits:]
        number = Cat(Const(part, part_bits), upper)[: self.index_bits] if part_bits else self.number
        present: Value = self.en[part]
        if part >= self.size % self.parts > 0:
            # the last word is filled up
            present = present & (upper != self.size // self.parts)
        code = self.data.word_select(part, 8)
        ordered = code ^ 0x80 if self.is_signed else code
        key = Signal(8 + self.index_bits, name=f"key_{part}", reset_less=True)
        m.d.sync += key.eq(Mux(present, Cat(~number, ordered), 0))
        return key


def _larger(first: Value, second: Value) -> Value:
    return Mux(first >= second, first, second)
