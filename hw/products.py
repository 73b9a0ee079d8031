"""The products of the array: a multiplier a lane, one for two columns, or one for the lanes that share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Module, Value

from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.multiplier import ACTIVATION_BITS, Multiplier, PairedMultiplier
from zeroskip.hw.sign_add import SharedProduct

__all__ = ["Operands", "Product", "Products"]


@dataclass(frozen=True)
class Product:
    """What a lane adds up: ``value``, and ``borrow`` (0, 1) if the product is one of two that share a multiplier."""

    value: Value
    borrow: Value | None = None


@dataclass(frozen=True)
class Operands:
    """What enters a column or core in a cycle: an activation a lane; ``begin`` and ``end`` of shared products' runs."""

    activations: Sequence[Value]
    begin: Value | None
    end: Value


class Products:
    """Build the multipliers of ``m``, column by column in order.

    Latency of a product: ``config.product_cycles``; of the lanes that share a multiplier each has its turn a cycle
    after its neighbour.

    Parameters
    ----------
    m : Module
    config : EngineConfig
    weights : array of signed(operand_bits), shape (units * lanes,)
    magnitudes : array of signed(level_bits), shape (multipliers,), where lanes share multipliers
    """

    def __init__(self, m: Module, config: EngineConfig, weights: Sequence[Value], magnitudes: Sequence[Value]) -> None:
        self.m = m
        self.config = config
        self.weights = weights
        self.magnitudes = magnitudes
        # by number of product, the multipliers that an earlier column has built for it
        self._pairs: dict[int, PairedMultiplier] = {}

    def build(self, unit: int, operands: Operands) -> list[Product]:
        """Return the product of every lane of column or core ``unit``."""
        geometry = self.config.geometry
        hard = geometry.multipliers - self.config.logic_products
        products: list[Product] = []
        for lane in range(0, geometry.lanes, geometry.sign_adds):
            index = unit * geometry.lanes + lane
            # the last ones are made of logic
            module = "multiplier" if index // geometry.sign_adds < hard else "logic_multiplier"
            if geometry.sign_adds > 1:
                products.extend(self._shared(unit, lane, module, operands))
            elif index in self._pairs:
                products.append(Product(self._pairs[index].p_high, self._pairs[index].borrow))
            elif geometry.paired_products and index + geometry.lanes < hard:
                products.append(self._paired(unit, lane, operands.activations[lane]))
            else:
                products.append(self._single(unit, lane, module, operands.activations[lane]))
        return products

    def _single(self, unit: int, lane: int, module: str, activation: Value) -> Product:
        multiplier = Multiplier(ACTIVATION_BITS, self.config.level_bits, module)
        self.m.submodules[f"multiplier_{unit}_{lane}"] = multiplier
        weight = self.weights[unit * self.config.geometry.lanes + lane]
        self.m.d.comb += [multiplier.a.eq(activation), multiplier.b.eq(weight)]
        return Product(multiplier.p)

    def _paired(self, unit: int, lane: int, activation: Value) -> Product:
        """Build the multiplier of this product and the next column's."""
        lanes = self.config.geometry.lanes
        index = unit * lanes + lane
        pair = self._pairs[index + lanes] = PairedMultiplier(self.config.level_bits, self.config.level_limit)
        self.m.submodules[f"multiplier_{unit}_{lane}"] = pair
        self.m.d.comb += [
            pair.a.eq(activation),
            pair.b_low.eq(self.weights[index]),
            pair.b_high.eq(self.weights[index + lanes]),
        ]
        return Product(pair.p_low)

    def _shared(self, unit: int, first: int, module: str, operands: Operands) -> list[Product]:
        """Build the multiplier that ``sign_adds`` lanes from ``first`` on find their product at, each in its turn."""
        adds, index = self.config.geometry.sign_adds, unit * self.config.geometry.lanes + first
        shared = SharedProduct(adds, self.config.level_bits, module)
        self.m.submodules[f"product_{unit}_{first // adds}"] = shared
        self.m.d.comb += [
            shared.begin.eq(operands.begin),
            shared.end.eq(operands.end),
            shared.magnitude.eq(self.magnitudes[index // adds]),
        ]
        for lane in range(adds):
            self.m.d.comb += [
                shared.activations[lane].eq(operands.activations[first + lane]),
                shared.signs[lane].eq(self.weights[index + lane]),
            ]
        return [Product(shared.p)] * adds
