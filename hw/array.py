"""The multiply-accumulate array and its drain: shared by every engine."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Array as Choice
from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.adder import GatedAdder
from zeroskip.hw.pipeline import FLAGS, delay
from zeroskip.hw.products import Operands, Product, Products

__all__ = ["Array"]


@dataclass(frozen=True)
class DrainControl:
    """``active`` while results leave, ``enable`` of the words, ``turn``: which value of a slow layer's word."""

    active: Value
    enable: Value
    turn: Value


@dataclass(frozen=True)
class Capture:
    """``now``: a column's results are taken, a register; ``early``, what it takes: the same a cycle before."""

    now: Value
    early: Value


class Array(wiring.Component):
    """L lanes by N columns (or C cores) of multiply-accumulate, running maximum, and the chain that drains the results.

    Activations and flags enter column 0 and hop one column a cycle (systolic); a column takes its weights at the
    same skew. Where products are paired, two columns share a multiplier, hence the cycle: activations hop a pair a
    cycle. Cores get activations of their own, without skew. Each lane: ``product = a * w``;
    ``acc = (first ? 0 : acc) + product``; at the end of a window ``best = max(best, acc)``, for which windows must
    end at least two cycles apart. At the end of a unit
    ``best`` is captured into the chain, which moves towards its head one word of ``R`` lanes a cycle: Q = L / R words a
    column, column 0 first. Column ``n`` is captured ``s`` cycles late, its skew, when the chain has moved ``s`` words:
    its words enter at ``n * Q - s`` and so leave without a gap behind column ``n - 1``'s.

    A slow layer's words stay at the head for R cycles, one value each; where there are such layers the chain stands
    until the last column is captured.

    Latency from activations to the first value: 4 cycles, 6 with pooling; where n lanes share a multiplier n + 1 more,
    from a run's last activations.

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
    weights : In(array of signed(operand_bits)), shape (units * lanes,), columns delayed by their skew
    magnitudes : In(array of signed(level_bits)), shape (multipliers,), where lanes share them, as in
        :class:`zeroskip.hw.sign_add.SharedProduct`; begin : In(1), the activations are a run's first ones
    values : In(array of signed(value_bits)), shape (cores * lanes,), ``product_cycles`` after the activations: what an
        addition takes in place of products; use_values : In(1), at the same time
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
        config, geometry = self.config, self.config.geometry
        lanes = geometry.lanes
        flags: Value = self.flags
        late = self._late(m, flags)
        begin: Value | None = self.begin if config.run_code is not None else None
        activations: list[Value] = [self.activations[lane] for lane in range(lanes)]
        products = Products(m, config, self.weights, self.magnitudes if config.run_code is not None else ())
        results: list[list[Value]] = []
        captures: list[Capture] = []
        for unit in range(geometry.units):
            if geometry.cores > 1:
                activations = [self.activations[unit * lanes + lane] for lane in range(lanes)]
            elif unit and geometry.skew(unit) > geometry.skew(unit - 1):
                activations = [delay(m, value, 1) for value in activations]
                flags = delay(m, flags, 1, FLAGS)
                begin = delay(m, begin, 1) if begin is not None else None
                late = self._late(m, flags)
            column = products.build(unit, Operands(activations, begin, flags.valid))
            results.append([self._build_lane(m, unit, lane, column[lane], late) for lane in range(lanes)])
            # a register of its own beside the column's words: the flags are used in many places
            capture, early = Signal(name=f"capture_{unit}"), late[-2].valid & late[-2].unit_last
            m.d.sync += capture.eq(early)
            captures.append(Capture(capture, early))
        self._build_drain(m, results, captures, len(late) - 1)
        return m

    def _late(self, m: Module, flags: Value) -> list[Value]:
        late = [flags]
        # up to the capture: product, the last lane's turn, accumulator, pooling
        cycles = self.config.product_cycles + self.config.turn_cycles + (3 if self.config.has_pooling else 1)
        for _ in range(cycles):
            late.append(delay(m, late[-1], 1, FLAGS))
        return late

    def _build_lane(self, m: Module, unit: int, lane: int, product: Product, late: list[Value]) -> Value:
        """Add up the products of a lane, which come in its turn, and keep the largest of a unit's sums."""
        config = self.config
        turn = lane % config.geometry.sign_adds
        now = late[config.product_cycles + turn]
        acc = Signal(signed(config.accumulator_width), name=f"acc_{unit}_{lane}", reset_less=True)
        addend, valid, first = product.value, now.valid, now.first
        if config.has_functions and (unit == 0 or config.geometry.columns == 1):
            taken: Value = self.use_values
            if turn:
                # values come to all lanes together, while the last products of the layer before may still take turns
                early = late[config.product_cycles]
                taken = self.use_values & early.valid
                valid = taken | (valid & ~delay(m, self.use_values, turn))
                first = Mux(taken, early.first, first)
            addend = Mux(taken, self.values[unit * config.geometry.lanes + lane], addend)
        adder = GatedAdder(config.accumulator_width, carry=config.paired_multipliers > 0)
        m.submodules[f"adder_{unit}_{lane}"] = adder
        m.d.comb += [adder.clear.eq(first), adder.a.eq(acc), adder.b.eq(addend)]
        if product.borrow is not None:
            m.d.comb += adder.carry.eq(product.borrow)
        with m.If(valid):
            m.d.sync += acc.eq(adder.s)
        if not config.has_pooling:
            return acc
        # the comparison gets a cycle of its own: windows end at least two cycles apart
        compared = late[config.product_cycles + turn + 2]
        best = Signal(signed(config.accumulator_width), name=f"best_{unit}_{lane}", reset_less=True)
        held = Signal(signed(config.accumulator_width), name=f"held_{unit}_{lane}", reset_less=True)
        higher = Signal(name=f"higher_{unit}_{lane}", reset_less=True)
        # the sign of the difference comes straight out of the carry chain; a comparison would need logic behind it
        m.d.sync += [held.eq(acc), higher.eq((best - acc)[-1])]
        with m.If(compared.valid & compared.last & (compared.unit_first | higher)):
            m.d.sync += best.eq(held)
        return best

    def _build_drain(self, m: Module, results: list[list[Value]], captures: list[Capture], cycles: int) -> None:
        config = self.config
        geometry = config.geometry
        words, width = geometry.words, geometry.results
        # a chain of two speeds stands until the last column is captured
        bases = [unit * words - (0 if config.has_slow else geometry.skew(unit)) for unit in range(geometry.units)]
        chain = [
            [
                Signal(signed(config.accumulator_width), name=f"drain_{word}_{lane}", reset_less=True)
                for lane in range(width)
            ]
            for word in range(bases[-1] + words)
        ]
        controls = self._build_controls(m, captures, cycles)
        after = [*chain[1:], chain[-1]]
        taken: list[list[Value]] = [list(word) for word in after]
        # a layer of one column lets its units follow closer than the skew: what the idle columns capture late may meet
        # the first one's next results, at the head of a chain of one word a column; those come first
        for unit, capture in reversed(list(enumerate(captures))):
            for lane, result in enumerate(results[unit]):
                word, place = bases[unit] + lane // width, lane % width
                taken[word][place] = Mux(capture.now, result, taken[word][place])
        for word, (here, values) in enumerate(zip(chain, taken, strict=True)):
            # without a slow layer nothing ever stands: no enable, which would be one net across the array
            enable = controls[word // words].enable if config.has_slow else Const(1)
            with m.If(enable):
                m.d.sync += [value.eq(new) for value, new in zip(here, values, strict=True)]
        head = controls[0]
        m.d.comb += [self.o_valid.eq(head.active), *(self.o[lane].eq(chain[0][lane]) for lane in range(width))]
        if config.has_slow:
            m.d.comb += self.o[0].eq(Mux(self.descriptor.slow, Choice(chain[0])[head.turn], chain[0][0]))

    def _build_controls(self, m: Module, captures: list[Capture], cycles: int) -> list[DrainControl]:
        """One control at the head of the chain; where it may stand one a column, each near the words that it moves."""
        config, geometry = self.config, self.config.geometry
        if not config.has_slow:
            return [self._build_control(m, captures[0].now, captures[0])]
        if not config.drain_delay:
            return [self._build_control(m, capture.now, capture) for capture in captures]
        # of a layer of one column the later captures mean nothing, and they may meet the next layer's descriptor
        one_column = delay(m, self.one_column, cycles)
        many_columns = ~delay(m, one_column, config.drain_delay)
        controls: list[DrainControl] = []
        for unit, capture in enumerate(captures):
            begin = capture.now
            for _ in range(config.drain_delay - geometry.skew(unit)):
                stage = Signal()  # unlike data, with a reset
                m.d.sync += stage.eq(begin)
                begin = stage
            begin &= many_columns
            if not unit:
                begin |= capture.now & one_column
            controls.append(self._build_control(m, begin, capture))
        return controls

    def _build_control(self, m: Module, begin: Value, capture: Capture) -> DrainControl:
        config, d = self.config, self.descriptor
        left, active, turn = Signal.like(d.drain_last), Signal(), Signal(range(config.geometry.results))
        with m.If(active):
            m.d.sync += [left.eq(left - 1), active.eq(left != 0)]
        with m.If(begin):
            m.d.sync += [left.eq(d.drain_last), active.eq(1)]
        if not config.has_slow:
            return DrainControl(active, Const(1), turn)
        with m.If(active):
            m.d.sync += turn.eq(turn + 1)
        with m.If(begin):
            m.d.sync += turn.eq(0)
        # decided a cycle early: a register has the whole cycle to reach a column's words
        turns_over = turn == config.geometry.results - 2
        moves = Mux(begin, ~d.slow, active & (left != 0) & (~d.slow | turns_over))
        enable = Signal()
        m.d.sync += enable.eq(moves | capture.early)
        return DrainControl(active, enable, turn)
