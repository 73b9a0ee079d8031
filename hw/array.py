"""The multiply-accumulate array and its drain: shared by every engine."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.pipeline import FLAGS, delay

__all__ = ["Array"]


class Array(wiring.Component):
    """L lanes by N columns of multiply-accumulate, running maximum, and a shift register that drains the results.

    Activations and flags enter column 0 and hop one column a cycle (systolic); column ``n`` takes its weights at the
    same skew. Each lane: ``product = a * w``; ``acc = (first ? 0 : acc) + product``; at the end of a window
    ``best = max(best, acc)``; at the end of a unit ``best`` is captured, and the L * N captured values leave one a
    cycle, column 0 lane 0 first, while the next unit accumulates. Ends of units must be ``N * L + N - 1`` cycles apart.

    Latency from activations to ``best``: 3 cycles (2 without pooling); capture one later, in column n at + n.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the layer descriptor

    Members
    -------
    descriptor : In(layout)
    flags : In(FLAGS)
    activations : In(array of signed(9)), shape (lanes,)
    weights : In(array of signed(weight_width + 1)), shape (columns * lanes,), column n delayed by n cycles
    o : Out(signed(accumulator_width)), with ``o_valid``, ``o_first_lane``, ``o_last_lane``
    """

    def __init__(self, config: EngineConfig, layout: data.StructLayout) -> None:
        self.config = config
        geometry = config.geometry
        super().__init__(
            {
                "descriptor": In(layout),
                "flags": In(FLAGS),
                "activations": In(data.ArrayLayout(signed(9), geometry.lanes)),
                "weights": In(data.ArrayLayout(signed(config.weight_width + 1), geometry.products)),
                "o": Out(signed(config.accumulator_width)),
                "o_valid": Out(1),
                "o_first_lane": Out(1),
                "o_last_lane": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the columns from right to left, so that each chain link finds its source."""
        m = Module()
        geometry = self.config.geometry
        activations: list[Value] = [self.activations[lane] for lane in range(geometry.lanes)]
        flags: Value = self.flags
        results: list[Value] = []
        captures: list[Value] = []
        for column in range(geometry.columns):
            if column:
                activations = [delay(m, value, 1) for value in activations]
                flags = delay(m, flags, 1, FLAGS)
            late = [flags]
            for _ in range(3):
                late.append(delay(m, late[-1], 1, FLAGS))
            for lane, activation in enumerate(activations):
                weight = self.weights[column * geometry.lanes + lane]
                results.append(self._build_lane(m, column, lane, activation, weight, late))
            end = late[3] if self.config.has_pooling else late[2]
            captures.append(end.valid & end.unit_last)
        self._build_drain(m, results, captures)
        return m

    def _build_lane(
        self, m: Module, column: int, lane: int, activation: Value, weight: Value, late: list[Value]
    ) -> Value:
        config = self.config
        product = Signal(signed(9 + config.weight_width + 1), name=f"product_{column}_{lane}")
        acc = Signal(signed(config.accumulator_width), name=f"acc_{column}_{lane}")
        m.d.sync += product.eq(activation * weight)
        with m.If(late[1].valid):
            m.d.sync += acc.eq(Mux(late[1].first, 0, acc) + product)
        if not config.has_pooling:
            return acc
        best = Signal(signed(config.accumulator_width), name=f"best_{column}_{lane}")
        with m.If(late[2].valid & late[2].last & (late[2].unit_first | (acc > best))):
            m.d.sync += best.eq(acc)
        return best

    def _build_drain(self, m: Module, results: list[Value], captures: list[Value]) -> None:
        geometry, d = self.config.geometry, self.descriptor
        chain = [Signal(signed(self.config.accumulator_width), name=f"drain_{i}") for i in range(geometry.products)]
        left = Signal.like(d.drain_last)
        active = Signal()
        with m.If(active):
            m.d.sync += [here.eq(after) for here, after in zip(chain, chain[1:], strict=False)]
            m.d.sync += [left.eq(left - 1), active.eq(left != 0)]
        for index, result in enumerate(results):
            with m.If(captures[index // geometry.lanes]):
                m.d.sync += chain[index].eq(result)
        with m.If(captures[-1]):
            m.d.sync += [left.eq(d.drain_last), active.eq(1)]
        lane_bits = self.config.lane_bits
        m.d.comb += [
            self.o.eq(chain[0]),
            self.o_valid.eq(active),
            self.o_first_lane.eq(left[:lane_bits].all()),
            self.o_last_lane.eq(~left[:lane_bits].any()),
        ]
