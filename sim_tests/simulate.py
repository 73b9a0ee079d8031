"""Run an Amaranth component under cocotb: Amaranth to Verilog to a cached Verilator build to a test module."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amaranth.back import verilog
from amaranth.lib import wiring

from zeroskip.boards.cocotb_runner import build_verilator, run_cocotb
from zeroskip.boards.verilator_cache import default_cache

__all__ = ["run_component"]

# The same text as drivers.SETTINGS_VARIABLE: that module can be imported only where cocotb runs a simulation.
_SETTINGS_VARIABLE = "ZEROSKIP_TEST_SETTINGS"
_TOP = "dut"


def run_component(
    component: wiring.Component,
    test_module: str,
    testcases: Sequence[str] = (),
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 1,
    cwd: Path | None = None,
) -> str:
    """Run cocotb tests on ``component`` and return what the simulator printed.

    Ports are named as Amaranth writes them (``i__payload``), with ``clk`` and ``rst``. Programs are kept in the user's
    cache and made again only when the component's Verilog changes.

    Parameters
    ----------
    component : the design under test
    test_module : ``__file__`` of the module with the cocotb tests (whose names must not begin with ``test_``)
    testcases : names of the cocotb tests to run; all when empty
    settings : JSON values for the test bench, see :func:`drivers.settings`
    seed : cocotb's random seed
    cwd : working folder of the simulation

    Raises
    ------
    zeroskip.boards.cocotb_runner.CocotbFailure
        If a cocotb test fails.
    """
    module = Path(test_module)
    text = verilog.convert(component, name=_TOP, emit_src=False, strip_internal_attrs=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source, public = folder / f"{_TOP}.v", folder / "public.vlt"
        source.write_text(text)
        public.write_text(f'`verilator_config\npublic_flat_rw -module "{_TOP}" -var "*"\n')
        # the test bench takes longer than a block
        program = build_verilator([public, source], _TOP, default_cache().parent / "blocks", optimization="-O0")
        environment = {_SETTINGS_VARIABLE: json.dumps(dict(settings or {}))}
        if testcases:
            names = "|".join(re.escape(name) for name in testcases)
            environment["COCOTB_TEST_FILTER"] = rf"\.({names})(/.*)?$"
        return run_cocotb(
            [str(program)],
            _TOP,
            module.stem,
            folder / "results.xml",
            cwd=cwd or folder,
            python_path=[module.resolve().parent],
            environment=environment,
            seed=seed,
        )
