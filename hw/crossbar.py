"""The way of results and input words into the activation banks."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.pipeline import delay

__all__ = ["Crossbar"]


class Crossbar(wiring.Component):
    """Bring up to R results of a cycle, or one input word, each to its bank; a replicated value goes to all of them.

    Where vectors are written in words of R results, each bank takes a word: ``write_en`` tells which of its parts.

    No two results of a cycle are for the same bank (the compiler sees to that), so a bank ors together what is meant
    for it. First cycle: which value is for which bank; second cycle: the or. Its registers stand for themselves since
    the banks are spread over the device, far from the post-processors.

    Latency 2 cycles, initiation interval 1, never stalls.

    Parameters
    ----------
    config : EngineConfig
    replicated_input : bool, every bank takes the input words

    Members
    -------
    valid : In(results), address : In(array of position_bits), value : In(array of 8 bits): the results
    replicated : In(1), every bank takes the first result; the others are not valid then
    wide : In(1), where there are such writes: every bank takes all results, a word at the first one's address
    load : In(1), load_address : In(position_bits), load_value : In(8): an input word; no result is valid then
    write_en : Out(array of ``bank_bytes`` bits), write_addr : Out(array of word address bits, words of ``bank_bytes``),
        write_data : Out(array of 8 * ``bank_bytes`` bits), the banks
    """

    def __init__(self, config: EngineConfig, *, replicated_input: bool) -> None:
        self.config = config
        self.replicated_input = replicated_input
        lanes, results, parts = config.geometry.lanes, config.geometry.results, config.bank_bytes
        self.part_bits = (parts - 1).bit_length()
        super().__init__(
            {
                "valid": In(results),
                "address": In(data.ArrayLayout(config.position_bits, results)),
                "value": In(data.ArrayLayout(8, results)),
                "replicated": In(1),
                **({"wide": In(1)} if parts > 1 else {}),
                "load": In(1),
                "load_address": In(config.position_bits),
                "load_value": In(8),
                "write_en": Out(data.ArrayLayout(parts, lanes)),
                "write_addr": Out(data.ArrayLayout(max(1, config.word_address_bits - self.part_bits), lanes)),
                "write_data": Out(data.ArrayLayout(8 * parts, lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the choice of banks, then the ors."""
        m = Module()
        config = self.config
        lanes, lane_bits, word_bits = config.geometry.lanes, config.lane_bits, config.word_address_bits
        parts, part_bits = config.bank_bytes, self.part_bits
        wide: Value = self.wide & ~self.load if parts > 1 else Const(0)
        words: list[Value] = []
        codes: list[Value] = []
        chosen: list[list[Value]] = [[] for _ in range(parts)]
        hits: list[list[Value]] = [[] for _ in range(lanes)]
        for index in range(config.geometry.results):
            word = Signal(word_bits - part_bits, name=f"word_{index}", reset_less=True)
            code = Signal(8, name=f"code_{index}", reset_less=True)
            place, value, valid = self.address[index], self.value[index], self.valid[index]
            everywhere: Value | int = 0
            banked = place[lane_bits:]
            if index == 0:
                place, value = Mux(self.load, self.load_address, place), Mux(self.load, self.load_value, value)
                valid = self.load | valid
                everywhere = Mux(self.load, int(self.replicated_input), self.replicated)
                banked = Mux(everywhere, place[:word_bits], place[lane_bits:])
            m.d.sync += [word.eq(banked[part_bits:]), code.eq(value)]
            words.append(word)
            codes.append(code)
            for lane in range(lanes):
                hit = Signal(name=f"hit_{lane}_{index}")
                here = (place[:lane_bits] == lane) & (~wide if index else 1)
                m.d.sync += hit.eq(valid & (everywhere | here))
                hits[lane].append(hit)
            for part in range(parts):
                # the first result stands for a whole word
                among = Signal(name=f"part_{part}_{index}", reset_less=True)
                filled = self.valid[part] if index == 0 else 0
                m.d.sync += among.eq(Mux(wide, filled, banked[:part_bits] == part))
                chosen[part].append(among)
        late_wide = delay(m, wide, 1)
        for lane, mine in enumerate(hits):
            alone = _meant(codes, mine)
            data_word = Cat(alone, *(Mux(late_wide, codes[part], alone) for part in range(1, parts)))
            m.d.comb += [
                self.write_addr[lane].eq(delay(m, _meant(words, mine), 1)),
                self.write_data[lane].eq(delay(m, data_word, 1)),
            ]
            m.d.sync += self.write_en[lane].eq(Cat((Cat(*mine) & Cat(*part)).any() for part in chosen))
        return m


def _meant(values: list[Value], hits: list[Value]) -> Value:
    """Return the value whose hit is set; only one is."""
    return reduce(or_, (value & hit.replicate(len(value)) for value, hit in zip(values, hits, strict=True)))
