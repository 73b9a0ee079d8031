"""Write the RTL of a Program: the accelerator, its ROM modules, its memory and its multipliers, as Verilog files."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from zeroskip.compiler.program import Program
from zeroskip.compiler.target import pair_bits
from zeroskip.hw.accelerator import Accelerator
from zeroskip.hw.adder import gated_adder_verilog
from zeroskip.hw.codebook import codebook_verilog
from zeroskip.hw.memory import bank_verilog, descriptor_verilog, rom_verilog
from zeroskip.hw.multiplier import ACTIVATION_BITS, logic_multiplier_verilog, multiplier_verilog
from zeroskip.hw.postprocess import scaler_bits

__all__ = ["rtl_files"]


def rtl_files(program: Program) -> dict[str, str]:
    """Return the Verilog files by name (``accelerator.v``, ``rom_<name>.v``, ``activation_bank.v``, ...)."""
    from amaranth.back import verilog

    descriptors = ("front", "back")
    files = {
        f"rom_{rom.name}.v": descriptor_verilog(rom) if rom.name in descriptors else rom_verilog(rom)
        for rom in program.roms
    }
    files["activation_bank.v"] = bank_verilog(program.config.activation_depth, program.config.bank_bytes)
    config = program.config
    files["gated_adder.v"] = gated_adder_verilog(config.accumulator_width, carry=config.paired_multipliers > 0)
    if config.codebooks:
        files["codebook.v"] = codebook_verilog(config.codebooks, config.weight_width, config.level_bits)
    if config.single_multipliers:
        files["multiplier.v"] = multiplier_verilog(config.addend_bits, config.level_bits)
    if config.paired_multipliers:
        operand_bits = pair_bits(config.level_limit)
        files["paired_multiplier.v"] = multiplier_verilog(ACTIVATION_BITS, operand_bits, "paired_multiplier")
    if config.logic_products:
        files["logic_multiplier.v"] = logic_multiplier_verilog(config.addend_bits, config.level_bits)
    if program.config.multiplier_width:
        files["scaler.v"] = multiplier_verilog(*scaler_bits(program.config), "scaler")
    with _no_collection():
        files["accelerator.v"] = verilog.convert(
            Accelerator(program), name="accelerator", emit_src=False, strip_internal_attrs=True
        )
    return files


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collector: a netlist is millions of objects that stay, and it visits them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
