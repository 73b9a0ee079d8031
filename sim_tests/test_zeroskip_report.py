"""Reports: what a person reads is what was counted or measured, nothing else, and damaged files are named."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import models
from designs import write_design
from zeroskip import api
from zeroskip.compiler.errors import InputError
from zeroskip.report import Column, comparison_table, html_page, render, result_rows, write_html

BOARD = "ulx3s-25f"
SYNTHESIZED = {
    "kinds": {"resources": "measured", "fmax_mhz": "measured"},
    "resources": {
        "lut": {"used": 2028, "available": 24288},
        "ff": {"used": 1502, "available": 24288},
        "bram": {"used": 5, "available": 56},
        "dsp": {"used": 4, "available": 28},
    },
    "fmax_mhz": {"median": 121.9, "min": 121.9, "max": 121.9, "seeds": [121.9], "constraint": 100.0},
    "latency_us": 13.6,
    "throughput_per_s": 73101.4,
    "netlist_check": {"vectors": 1, "mismatches": 0},
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A compiled network; read only."""
    folder = tmp_path_factory.mktemp("report")
    write_design(models.tiny("pool_remainder"), folder, "sparse", 4)
    return folder / "design"


@pytest.fixture
def design(compiled, tmp_path):
    shutil.copytree(compiled, tmp_path / "design")
    return api.load(tmp_path / "design")


def edit(design, board=None, **values):
    """Change the report of a design or of a board of it."""
    content = design.report()
    for key, value in values.items():
        content[key] = {**content[key], **value} if isinstance(content.get(key), dict) else value
    folder = design.directory / "report"
    api.write_json((folder / board if board else folder) / "report.json", content)


def test_nothing_is_claimed_before_a_simulation(design):
    edit(design, accuracy={"float": None})
    text = str(design)
    assert "RTL: not simulated" in text
    assert "accuracy: float not measured" in text
    assert "between results (estimated)" in text
    assert "MHz" not in text


def test_a_simulation_is_told(design):
    edit(design, accuracy={"rtl_vectors": 1, "rtl_mismatches": 0}, rtl_sha256=design.rtl_digest())
    assert "RTL: 1 vector, 0 values differ\n" in str(design)
    assert design.is_simulated()


@pytest.mark.parametrize("pattern", ["rtl/accelerator.v", "rom/bias.mem"])
def test_a_simulation_of_other_files_is_marked(design, pattern):
    edit(design, accuracy={"rtl_vectors": 16, "rtl_mismatches": 0}, rtl_sha256=design.rtl_digest())
    with (design.directory / pattern).open("a") as file:
        file.write("\n")
    assert "RTL: 16 vectors, 0 values differ; files were changed since, simulate again" in str(design)
    assert "files were changed since, simulate again" in html_page(design)
    assert not design.is_simulated()


def test_a_board_is_shown_with_its_check(design):
    edit(design, BOARD, **SYNTHESIZED)
    assert design.boards() == [BOARD]
    assert str(design).endswith(
        "ulx3s-25f: LUT 2,028 of 24,288, FF 1,502 of 24,288, BRAM 5 of 56, DSP 4 of 28\n"
        "  Fmax 121.9 MHz (median of 1 seed, 121.9 to 121.9), latency 13.6 us, 73,101 inferences/s\n"
        "  netlist check: 1 vector, 0 values differ"
    )


def test_a_board_without_a_netlist_check_shows_no_number(design):
    edit(design, BOARD)
    assert str(design).endswith("ulx3s-25f: not measured (the netlist was not checked)")
    assert "Not measured: the netlist was not checked." in html_page(design)


def test_the_layers_of_the_tables_add_up(design):
    report = design.report()
    cycles, row = report["cycles"], result_rows(report)
    layers = sum(layer["model_cycles"] for layer in cycles["layers"])
    assert cycles["load"] + layers + cycles["unload"] == cycles["total"]
    kinds = ("value", "index", "filler", "row_end", "tap_table", "bias", "requantize", "padding")
    assert sum(row[kind] for kind in kinds) == row["storage"] == report["storage_bits"]["total"]
    assert row["fmax"] is row["lut"] is row["latency"] is None


def test_the_page_is_self_contained(design):
    edit(design, BOARD, **SYNTHESIZED)
    path = write_html(design)
    page = path.read_text()
    assert path == design.directory / "report" / "report.html"
    assert "<script" not in page
    assert not re.search(r"(src|href)=|url\(|@import", page)
    for layer in design.report()["cycles"]["layers"]:
        assert f"<td>{layer['name']}</td><td>{layer['model_cycles']:,}</td>" in page
    assert "121.9 MHz (median of 1 seed)" in page


def test_an_estimated_clock_says_so(design):
    edit(design, BOARD, **{**SYNTHESIZED, "kinds": {"resources": "measured", "fmax_mhz": "estimated"}})
    assert "  Fmax 121.9 MHz (estimated, median of 1 seed, 121.9 to 121.9)" in str(design)
    assert "121.9 MHz (estimated, median of 1 seed)" in html_page(design)


def test_names_are_escaped_on_the_page(design):
    edit(design, model="<b>net</b>")
    assert "<h1>&lt;b&gt;net&lt;/b&gt;</h1>" in html_page(design)


def test_a_page_that_cannot_be_written_is_named(design):
    (design.directory / "report" / ".report.html.new").mkdir()
    with pytest.raises(InputError, match=r"report\.html' cannot be written: Is a directory; make its folder writable$"):
        write_html(design)


COLUMNS = (Column("errors", "errors", "low"), Column("rate", "rate", "high", "{:.1f}"), Column("note", "note"))


def cells(rows):
    """Return the rows of a comparison as lists of cells."""
    text = render(comparison_table("title", rows, COLUMNS))
    return [
        [cell.strip() for cell in line.strip("│┃").split("│")] for line in text.splitlines() if line.startswith("│")
    ]


def test_the_winner_of_every_column_is_named():
    rows = [("a", {"errors": 3, "rate": 2.0, "note": 1}), ("b", {"errors": 4, "rate": 2.5, "note": 2})]
    assert cells(rows)[-1] == ["winner", "a", "b", ""]


def test_what_was_not_measured_cannot_win():
    rows = [("a", {"errors": None, "rate": 2.0}), ("b", {"errors": 4, "rate": None})]
    assert cells(rows) == [["a", "-", "2.0", "-"], ["b", "4", "-", "-"], ["winner", "b", "a", ""]]


def test_equal_designs_share_the_win():
    rows = [("a", {"errors": 3, "rate": 1.0}), ("b", {"errors": 3, "rate": 2.0}), ("c", {"errors": 4, "rate": 2.0})]
    assert cells(rows)[-2:] == [["winner", "a", "b", ""], ["", "b", "c", ""]]


def test_a_single_design_wins_nothing():
    assert cells([("a", {"errors": 3, "rate": 1.0})]) == [["a", "3", "1.0", "-"]]


DAMAGED = {
    "half": ('{"model": "x"', r"is damaged \(Expecting ',' delimiter.*\)"),
    "list": ("[]", r"is damaged \(a JSON object is missing\)"),
    "empty": ("{}", r"is damaged \('model' is missing\)"),
    "bytes": (b"\xaa\xbb", r"is damaged \('utf-8' codec can't decode .*\)"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_report_is_named(design, name):
    content, text = DAMAGED[name]
    path = design.directory / "report" / "report.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"report\.json' {text}; run 'zeroskip compile' again$"):
        design.report()


def test_a_missing_report_is_named(design):
    with pytest.raises(InputError, match=rf"does not exist; run 'zeroskip synth .*design --board {BOARD}' first$"):
        design.report(BOARD)


MANIFESTS = {
    "half": ('{"format"', r"is damaged \(.*\)"),
    "list": ("[]", r"is damaged \(a JSON object is missing\)"),
    "empty": ("{}", r"is damaged \('format' is missing\)"),
    "bytes": (b"\xaa\xbb", r"is damaged \('utf-8' codec can't decode .*\)"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_damaged_manifest_is_named(design, name):
    content, text = MANIFESTS[name]
    (design.directory / "manifest.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"manifest\.json' {text}; compile again$"):
        api.load(design.directory)


def test_reports_hold_the_keys_of_the_contract(design):
    content = json.loads((design.directory / "report" / "report.json").read_text())
    expected = (
        "model engine device tools kinds accuracy cycles storage_bits resources fmax_mhz latency_us throughput_per_s "
        "link_throughput_per_s netlist_check"
    )
    assert set(expected.split()) <= set(content)
    assert content["fmax_mhz"] is content["resources"] is content["netlist_check"] is None
