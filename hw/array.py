"""The multiply-accumulate array and its drain: shared by every engine."""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.multiplier import Multiplier
from zeroskip.hw.pipeline import FLAGS, delay
from zeroskip.hw.sign_add import SharedProduct

__all__ = ["Array"]


class Array(wiring.Component):
    """L lanes by N columns (or C cores) of multiply-accumulate, running maximum, and the chain that drains the results.

    Activations and flags enter column 0 and hop one column a cycle (systolic); column ``n`` takes its weights at the
    same skew. Cores get activations of their own, without skew. Each lane: ``product = a * w``;
    ``acc = (first ? 0 : acc) + product``; at the end of a window ``best = max(best, acc)``, for which windows must
    end at least two cycles apart. At the end of a unit
    ``best`` is captured into the chain, which moves towards its head one word of ``R`` lanes a cycle: Q = L / R words a
    column, column 0 first. Column ``n`` is captured ``n`` cycles late, when the chain has moved ``n`` words: its words
    enter at ``n * Q - n`` and so leave without a gap behind column ``n - 1``'s.

    A slow layer's words stay at the head for R cycles, one value each; where there are such layers the chain stands
    until the last column is captured.

    Latency from activations to the first value: 4 cycles, 6 with pooling.

    Parameters
    ----------
    config : EngineConfig
    back_layout : StructLayout of the back descriptor

    Members
    -------
    descriptor : In(back_layout)
    flags : In(FLAGS)
    one_column : In(1), with the flags: the results come from the first column alone (where the chain ever stands)
    activations : In(array of signed(9)), shape (cores * lanes,)
    weights : In(array of signed(level_bits)), shape (units * lanes,), column n delayed by n cycles
    values : In(array of signed(value_bits)), shape (cores * lanes,), 2 cycles after the activations: what an addition
        takes in place of products; use_values : In(1), at the same time
    o : Out(array of signed(accumulator_width)), shape (results,); a slow layer's values in o[0]
    o_valid : Out(1)
    """

    def __init__(self, config: EngineConfig, back_layout: data.StructLayout, value_bits: int = 0) -> None:
        self.config = config
        geometry = config.geometry
        optional = {}
        if value_bits:
            optional = {
                "values": In(data.ArrayLayout(signed(value_bits), geometry.lanes * geometry.cores)),
                "use_values": In(1),
            }
        if config.drain_delay:
            optional["one_column"] = In(1)
        if config.run_code is not None:
            optional["begin"] = In(1)
            optional["magnitudes"] = In(data.ArrayLayout(signed(config.level_bits), geometry.multipliers))
        super().__init__(
            {
                **optional,
                "descriptor": In(back_layout),
                "flags": In(FLAGS),
                "activations": In(data.ArrayLayout(signed(9), geometry.lanes * geometry.cores)),
                "weights": In(data.ArrayLayout(signed(config.operand_bits), geometry.products)),
                "o": Out(data.ArrayLayout(signed(config.accumulator_width), geometry.results)),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the columns, then the chain."""
        m = Module()
        geometry = self.config.geometry
        lanes = geometry.lanes
        flags: Value = self.flags
        late = self._late(m, flags)
        begin: Value | None = self.begin if self.config.run_code is not None else None
        activations: list[Value] = [self.activations[lane] for lane in range(lanes)]
        results: list[list[Value]] = []
        captures: list[Value] = []
        for unit in range(geometry.units):
            if unit and geometry.columns > 1:
                activations = [delay(m, value, 1) for value in activations]
                flags = delay(m, flags, 1, FLAGS)
                begin = delay(m, begin, 1) if begin is not None else None
                late = self._late(m, flags)
            elif unit:
                activations = [self.activations[unit * lanes + lane] for lane in range(lanes)]
            products = self._build_products(m, unit, activations, begin, flags.valid)
            results.append([self._build_lane(m, unit, lane, products[lane], late) for lane in range(lanes)])
            end = late[-1]
            captures.append(end.valid & end.unit_last)
        self._build_drain(m, results, captures, len(late) - 1)
        return m

    def _late(self, m: Module, flags: Value) -> list[Value]:
        late = [flags]
        # up to the capture: product, the last lane's turn, accumulator, pooling
        cycles = self.config.product_cycles + self.config.turn_cycles + (3 if self.config.has_pooling else 1)
        for _ in range(cycles):
            late.append(delay(m, late[-1], 1, FLAGS))
        return late

    def _build_products(
        self, m: Module, unit: int, activations: list[Value], begin: Value | None, end: Value
    ) -> list[Value]:
        """Return the product of every lane; lanes that share a multiplier find theirs there in their turn."""
        config = self.config
        lanes, adds = config.geometry.lanes, config.geometry.sign_adds
        products: list[Value] = []
        for first in range(0, lanes, adds):
            number = (unit * lanes + first) // adds
            # the last ones are made of logic
            in_logic = number >= config.geometry.multipliers - config.logic_products
            module = "logic_multiplier" if in_logic else "multiplier"
            weights = [self.weights[unit * lanes + lane] for lane in range(first, first + adds)]
            if begin is None:
                multiplier = Multiplier(9, config.level_bits, module)
                m.submodules[f"multiplier_{unit}_{first}"] = multiplier
                m.d.comb += [multiplier.a.eq(activations[first]), multiplier.b.eq(weights[0])]
                products.append(multiplier.p)
                continue
            shared = SharedProduct(adds, config.level_bits, module)
            m.submodules[f"product_{unit}_{first // adds}"] = shared
            m.d.comb += [shared.begin.eq(begin), shared.end.eq(end), shared.magnitude.eq(self.magnitudes[number])]
            for lane, weight in enumerate(weights):
                m.d.comb += [shared.activations[lane].eq(activations[first + lane]), shared.signs[lane].eq(weight)]
            products.extend([shared.p] * adds)
        return products

    def _build_lane(self, m: Module, unit: int, lane: int, product: Value, late: list[Value]) -> Value:
        config = self.config
        turn = lane % config.geometry.sign_adds
        flags = late[config.product_cycles + turn]
        acc = Signal(signed(config.accumulator_width), name=f"acc_{unit}_{lane}")
        valid, first = flags.valid, flags.first
        if config.has_functions and (unit == 0 or config.geometry.columns == 1):
            value, taken = self.values[unit * config.geometry.lanes + lane], self.use_values
            if turn:
                # values come to all lanes together, while the last products of the layer before may still take turns
                early = late[config.product_cycles]
                taken = self.use_values & early.valid
                valid = taken | (valid & ~delay(m, self.use_values, turn))
                first = Mux(taken, early.first, first)
            product = Mux(taken, value, product)
        with m.If(valid):
            m.d.sync += acc.eq(Mux(first, 0, acc) + product)
        if not config.has_pooling:
            return acc
        # the comparison gets a cycle of its own: windows end at least two cycles apart
        compared, decided = (late[config.product_cycles + turn + cycles] for cycles in (1, 2))
        best = Signal(signed(config.accumulator_width), name=f"best_{unit}_{lane}")
        held = Signal(signed(config.accumulator_width), name=f"held_{unit}_{lane}")
        half = config.accumulator_width // 2
        high, equal, low = (Signal(name=f"{name}_{unit}_{lane}") for name in ("high", "equal", "low"))
        m.d.sync += [
            held.eq(acc),
            high.eq(compared.unit_first | (acc[half:].as_signed() > best[half:].as_signed())),
            equal.eq(acc[half:] == best[half:]),
            low.eq(acc[:half] > best[:half]),
        ]
        with m.If(decided.valid & decided.last & (high | (equal & low))):
            m.d.sync += best.eq(held)
        return best

    def _build_drain(self, m: Module, results: list[list[Value]], captures: list[Value], cycles: int) -> None:
        config, d = self.config, self.descriptor
        geometry = config.geometry
        words, width = geometry.words, geometry.results
        # a chain of two speeds stands until the last column is captured
        skewed = geometry.columns > 1 and not config.has_slow
        length = (geometry.units - 1) * (words - 1 if skewed else words) + words
        chain = [
            [Signal(signed(config.accumulator_width), name=f"drain_{word}_{lane}") for lane in range(width)]
            for word in range(length)
        ]
        left = Signal.like(d.drain_last)
        active = Signal()
        shift: Value = active
        begin: Value = captures[0]
        if config.drain_delay:
            # of a layer of one column the later captures mean nothing, and they may meet the next layer's descriptor
            one_column = delay(m, self.one_column, cycles)
            begin = (captures[0] & one_column) | (captures[-1] & ~delay(m, one_column, config.drain_delay))
        if config.has_slow:
            turn = Signal(range(width))
            with m.If(active):
                m.d.sync += turn.eq(turn + 1)
            with m.If(begin):
                m.d.sync += turn.eq(0)
            shift = active & (~d.slow | turn.all())
        with m.If(active):
            m.d.sync += [left.eq(left - 1), active.eq(left != 0)]
        with m.If(shift):
            for here, after in zip(chain, chain[1:], strict=False):
                m.d.sync += [a.eq(b) for a, b in zip(here, after, strict=True)]
        for unit, capture in enumerate(captures):
            base = unit * (words - 1 if skewed else words)
            with m.If(capture):
                for lane, result in enumerate(results[unit]):
                    m.d.sync += chain[base + lane // width][lane % width].eq(result)
        with m.If(begin):
            m.d.sync += [left.eq(d.drain_last), active.eq(1)]
        m.d.comb += [self.o_valid.eq(active), *(self.o[lane].eq(chain[0][lane]) for lane in range(width))]
        if config.has_slow:
            m.d.comb += self.o[0].eq(Mux(d.slow, Choice(chain[0])[turn], chain[0][0]))
