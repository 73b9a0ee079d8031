"""Write the RTL of a Program: the accelerator, its ROM modules, its memory and its multipliers, as Verilog files."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator

from zeroskip.compiler.program import Program
from zeroskip.compiler.target import pair_bits
from zeroskip.hw.accelerator import Accelerator
from zeroskip.hw.adder import gated_adder_verilog
from zeroskip.hw.codebook import codebook_verilog
from zeroskip.hw.memory import bank_verilog, descriptor_verilog, rom_verilog
from zeroskip.hw.multiplier import ACTIVATION_BITS, logic_multiplier_verilog, multiplier_verilog
from zeroskip.hw.postprocess import scaler_bits

__all__ = ["plain_names", "rtl_files"]

_NAME = re.compile(r"\\\S+|[A-Za-z_][\w$]*")


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
        files["accelerator.v"] = plain_names(
            verilog.convert(Accelerator(program), name="accelerator", emit_src=False, strip_internal_attrs=True)
        )
    return files


def plain_names(text: str) -> str:
    """Return Verilog or RTLIL in which no name has brackets: ``\\x[3]``, as Amaranth writes it, becomes ``\\x_3``.

    Yosys (0.70) writes bit 3 of a wire ``x`` as ``x[3]`` for ABC and ABC9. It joins the two without a word, or stops,
    where a wire of that name is there as well.
    """
    taken = set(_NAME.findall(text))
    renamed = {}
    for name in sorted(name for name in taken if "[" in name):
        plain = name.replace("[", "_").replace("]", "")
        while plain in taken or plain[1:] in taken:
            plain += "_"
        taken.add(plain)
        renamed[name] = plain
    return _NAME.sub(lambda match: renamed.get(match[0], match[0]), text) if renamed else text


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collector: a netlist is millions of objects that stay, and it visits them again and again.

    Freezing and thawing puts them among the old objects. Otherwise they are young, and the first allocation after the
    pause searches them all.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()
