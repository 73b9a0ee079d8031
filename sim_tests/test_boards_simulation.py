"""The simulation of a compiled folder: a toy accelerator that does right, and every wrong it can do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from zeroskip.boards import simulation
from zeroskip.boards.simulation import Cycles, StallPattern, simulate
from zeroskip.compiler import emit, reference
from zeroskip.compiler.errors import InputError, ToolError, VerificationError

CONV1_ROM = np.arange(8) * 5 + 1
FC1_ROM = np.array([3, 250, 7, 0])
VECTORS = 5
VALUES = VECTORS * (8 + 3 + 3)
FAULTS = [
    "none",
    "wrong",
    "missing",
    "repeated",
    "hang",
    "runaway",
    "extra_word",
    "outside",
    "skip_state",
    "quit",
    "stuck",
]

ROM = """module rom_{name} (input wire [{top}:0] addr, output wire [7:0] data);
    reg [7:0] mem [0:{last}];
    initial $readmemh("rom/{name}.mem", mem);
    assign data = mem[addr];
endmodule
"""


def write_memory(path: Path, words) -> None:
    """Write a ROM image."""
    path.write_text("".join(f"{int(word):02x}\n" for word in words))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A compiled folder of the toy accelerator, simulated once so that it holds the built program."""
    folder = tmp_path_factory.mktemp("toy")
    for name in ("rtl", "rom", "ir"):
        (folder / name).mkdir()
    shutil.copy(Path(__file__).with_name("toy_accelerator.v"), folder / "rtl" / "accelerator.v")
    for name, words in (("conv1", CONV1_ROM), ("fc1", FC1_ROM)):
        bits = len(words).bit_length() - 1
        (folder / "rtl" / f"rom_{name}.v").write_text(ROM.format(name=name, top=bits - 1, last=len(words) - 1))
        write_memory(folder / "rom" / f"{name}.mem", words)
    write_memory(folder / "rom" / "fault.mem", [0])
    layers = [
        {"name": "conv1", "output": "conv1", "shape": [2, 2, 2]},
        {"name": "fc1", "output": "output", "shape": [3]},
    ]
    program = {"layers": layers, "input": {"shape": [2, 2, 2]}, "output": {"shape": [3], "signed": True}}
    (folder / "ir" / "program.json").write_text(json.dumps(program))
    simulate(folder, *vectors()).check()
    return folder


@pytest.fixture
def toy(built, tmp_path) -> Path:
    """A copy of the built folder that a test may spoil."""
    return shutil.copytree(built, tmp_path / "toy")


def vectors(count: int = VECTORS):
    """Return inputs and expected tensors."""
    inputs = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 2))
    features = (inputs.reshape(-1, 8) + CONV1_ROM) % 256
    results = features[:, :3] - features[:, 3:6] + FC1_ROM[:3]
    return inputs, {"conv1": features.reshape(-1, 2, 2, 2), "output": (results + 128) % 256 - 128}


def run_fault(toy: Path, fault: str, **options):
    """Simulate the toy with one of its faults."""
    write_memory(toy / "rom" / "fault.mem", [FAULTS.index(fault)])
    return simulate(toy, *vectors(), **options)


def test_right_design(toy):
    inputs, expected = vectors()
    lines: list[str] = []
    result = simulate(toy, inputs, expected, progress=lines.append)
    assert result.check() is result
    np.testing.assert_array_equal(result.outputs, expected["output"])
    assert (result.vectors, result.inferences, result.values_compared) == (VECTORS, VECTORS, VALUES)
    assert (result.mismatch_count, result.mismatches, result.failure) == (0, (), None)
    assert result.cycles == Cycles(load=8, layers={"conv1": 8, "fc1": 4}, unload=3, total=23, interval=23)
    assert lines[0] == "build simulation with verilator"
    assert lines[-1] == "compare values"


def test_same_run_twice_is_the_same(toy):
    first, second = (simulate(toy, *vectors(), stalls=StallPattern(0.5, 0.5, seed=3)) for _ in range(2))
    assert first.simulated_cycles == second.simulated_cycles
    np.testing.assert_array_equal(first.outputs, second.outputs)


def test_leaves_only_the_program_behind(toy):
    before = sorted(path.relative_to(toy) for path in toy.rglob("*"))
    simulate(toy, *vectors()).check()
    assert sorted(path.relative_to(toy) for path in toy.rglob("*")) == before


def test_few_vectors_are_repeated(toy):
    inputs, expected = vectors(1)
    result = simulate(toy, inputs, expected).check()
    assert (result.vectors, result.inferences) == (1, 3)
    np.testing.assert_array_equal(result.outputs, expected["output"])
    assert result.cycles.interval == 23


@pytest.mark.parametrize(("input_gap", "output_gap"), [(0.5, 0), (0, 0.5), (0.5, 0.5), (0.9, 0.9)])
def test_stalls_change_no_value(toy, input_gap, output_gap):
    inputs, expected = vectors()
    result = simulate(toy, inputs, expected, stalls=StallPattern(input_gap, output_gap, seed=11)).check()
    np.testing.assert_array_equal(result.outputs, expected["output"])
    assert result.values_compared == VALUES
    assert result.cycles is None
    assert result.simulated_cycles > simulate(toy, inputs, expected).simulated_cycles


def test_wrong_value_is_named(toy):
    result = run_fault(toy, "wrong")
    first = result.first_mismatch
    place = (first.kind, first.layer, first.vector, first.channel, first.y, first.x, first.cycle)
    assert place == ("value", "fc1", 0, 1, 0, 0, 18)
    wanted = int(vectors()[1]["output"][0, 1])
    assert (first.expected, first.got) == (wanted, wanted + 1)
    assert result.mismatch_count == 2 * VECTORS  # once in the trace, once in the output stream
    text = (
        r"RTL differs from the reference in 10 places \(70 values compared\); first: layer 'fc1' "
        rf"\(vector 0, channel 1, y 0, x 0, cycle 18\): expected {wanted}, got {wanted + 1}"
    )
    with pytest.raises(VerificationError, match=f"^{text}$"):
        result.check()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("missing", r"layer 'conv1' \(vector 0, channel 1, y 1, x 0\): never written, expected \d+$"),
        ("repeated", r"layer 'fc1' \(vector 0, channel 2, y 0, x 0, cycle 20\): written more than once, got -?\d+$"),
        ("outside", r"layer 'fc1' \(vector 0, channel 3, y 0, x 0, cycle 19\): outside the tensor, got \d+$"),
        ("extra_word", r"layer 'output stream' \(vector 1, channel 0, y 0, x 0, cycle 24\): expected -?\d+, got 0$"),
        (
            "hang",
            (
                r"^Design hangs in layer 'fc1' \(state 2\) of inference 0, at cycle \d+: "
                r"no word and no value for 500 cycles; 8 input words accepted, 0 output words received$"
            ),
        ),
        (
            "runaway",
            (
                r"^Design hangs in layer 'fc1' \(state 2\) of inference 0, at cycle 33: "
                r"more than twice as many values written as the network has; "
                r"8 input words accepted, 0 output words received\. RTL differs .* first: layer 'fc1' "
            ),
        ),
        ("stuck", r"layer 'conv1' \(vector 0, channel 0, y 0, x 0, cycle 33\): expected \d+, got \d+$"),
        ("skip_state", r"^State must walk through \[1, 2, 3\] during an inference, not through \[2, 3\]\. RTL differs"),
    ],
)
def test_fault_is_named(toy, fault, text):
    result = run_fault(toy, fault, idle_limit=500)
    with pytest.raises(VerificationError, match=text):
        result.check()


def test_hang_leaves_no_cycles_and_no_outputs(toy):
    result = run_fault(toy, "hang", idle_limit=500)
    assert result.cycles is None
    assert result.outputs.shape == (0, 3)


@pytest.mark.parametrize(("rom", "layer"), [("conv1", "conv1"), ("fc1", "fc1")])
def test_flipped_rom_bit_names_the_layer_without_a_build(toy, rom, layer):
    words = CONV1_ROM if rom == "conv1" else FC1_ROM
    write_memory(toy / "rom" / f"{rom}.mem", [words[0], words[1] ^ 0x40, *words[2:]])
    programs = list((toy / "sim").iterdir())
    result = simulate(toy, *vectors())
    assert list((toy / "sim").iterdir()) == programs
    assert result.first_mismatch.layer == layer
    assert result.first_mismatch.vector == 0


def test_missing_rom_image(toy):
    (toy / "rom" / "fc1.mem").unlink()
    with pytest.raises(InputError, match="^Compiled folder '.*' lacks the ROM image 'rom/fc1.mem'$"):
        simulate(toy, *vectors())


def test_changed_rtl_is_built_anew_and_named(toy):
    path = toy / "rtl" / "accelerator.v"
    path.write_text(path.read_text().replace("features[count + 3]", "features[count + 2]"))
    with pytest.raises(VerificationError, match="first: layer 'fc1' "):
        simulate(toy, *vectors()).check()


def test_waves_are_written(toy):
    result = simulate(toy, *vectors(), waves=True).check()
    assert result.waves == toy / "sim" / "dump.vcd"
    assert "trace_data" in result.waves.read_text()


def test_golden_samples_and_reference_are_the_default(toy, monkeypatch):
    inputs, expected = vectors()
    model = SimpleNamespace(input="input", golden={"input": inputs})
    monkeypatch.setattr(emit, "load_program", lambda folder: SimpleNamespace(model=model))
    monkeypatch.setattr(reference, "run", lambda network, codes: {tensor: expected[tensor] for tensor in expected})
    result = simulate(toy).check()
    np.testing.assert_array_equal(result.outputs, expected["output"])
    assert result.values_compared == VALUES
    model.golden = {}
    with pytest.raises(InputError, match="^Inputs must be given: the artifact in '.*' holds no golden samples$"):
        simulate(toy)


def test_only_named_tensors_are_compared(toy):
    inputs, expected = vectors()
    del expected["conv1"]
    result = simulate(toy, inputs, expected).check()
    assert result.values_compared == VECTORS * 6


def test_program_that_ends_early_is_a_tool_error(toy):
    with pytest.raises(ToolError, match="^Simulation of '.*' ended before its results were complete\n"):
        run_fault(toy, "quit")


def test_missing_icarus(toy, monkeypatch):
    monkeypatch.setenv("PATH", str(toy))
    text = (
        "^Icarus Verilog is missing: looked for 'iverilog' and 'vvp' on the PATH; "
        "install it with `apt-get install iverilog`, or use the simulator 'verilator'$"
    )
    with pytest.raises(ToolError, match=text):
        simulate(toy, *vectors(), simulator="icarus")


@pytest.mark.optional_tool
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed (it is optional)")
def test_icarus_agrees(toy):
    inputs, expected = vectors()
    result = simulate(toy, inputs, expected, simulator="icarus").check()
    assert result.cycles == simulate(toy, inputs, expected).cycles


def spoil(tensor: str, change):
    """Return the vectors with one tensor changed."""
    inputs, expected = vectors()
    everything = {"inputs": inputs, **expected}
    everything[tensor] = change(everything[tensor])
    return everything.pop("inputs"), everything


@pytest.mark.parametrize(
    ("tensor", "change", "text"),
    [
        ("inputs", lambda x: x[:, 0], r"Inputs must have shape \(vectors, 2, 2, 2\), not \(5, 2, 2\)"),
        ("inputs", lambda x: x[:0], r"Inputs must have shape \(vectors, 2, 2, 2\), not \(0, 2, 2, 2\)"),
        ("inputs", lambda x: x / 2, r"Inputs must be integer codes, not float64"),
        ("inputs", lambda x: x + 200, r"Inputs must be 8-bit codes, not \d+ to \d+"),
        ("conv1", lambda x: x[:3], r"Inputs have 5 vectors, but expected tensor 'conv1' has 3"),
        ("output", lambda x: x[:, :2], r"Expected tensor 'output' must have shape \(vectors, 3\), not \(5, 2\)"),
    ],
)
def test_bad_vectors(toy, tensor, change, text):
    with pytest.raises(InputError, match=f"^{text}$"):
        simulate(toy, *spoil(tensor, change))


def test_unknown_tensor_and_simulator(toy):
    inputs, expected = vectors()
    with pytest.raises(InputError, match="^Expected tensors must be among conv1, output, not fc7$"):
        simulate(toy, inputs, {"fc7": expected["output"]})
    with pytest.raises(InputError, match="^Simulator must be verilator or icarus, not 'questa'$"):
        simulate(toy, inputs, expected, simulator="questa")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"input_gap": 1.0}, "input_gap must be at least 0 and below 1, not 1.0"),
        ({"output_gap": -0.1}, "output_gap must be at least 0 and below 1, not -0.1"),
        ({"seed": 0}, r"seed must be at least 1 and below 2\*\*32, not 0"),
    ],
)
def test_bad_stall_pattern(arguments, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        StallPattern(**arguments)


def test_progress_counts_inferences(toy, monkeypatch):
    monkeypatch.setattr(simulation, "_PROGRESS_SECONDS", 0.02)
    lines: list[str] = []
    simulate(toy, *vectors(3000), progress=lines.append).check()
    assert any(line.startswith("simulate: ") and line.endswith(" of 3000 inferences") for line in lines)
