"""Accuracy-density curves of made-up results: what a line joins, and the figure's file."""

from __future__ import annotations

import pytest

from test_pruning_summary import finish, read_from
from zeroskip.pruning.curves import Line, curves, draw
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.recipe import Method
from zeroskip.pruning.rows import find_rows
from zeroskip.pruning.zoo_build import main

DENSE = "vgg-fashion-dense-w8a8"
SHARES = {
    DENSE: (1.0, 0.93),
    "vgg-fashion-filter-50pct-w8a8": (0.5, 0.925),
    "vgg-fashion-filter-25pct-w8a8": (0.25, 0.91),
    "vgg-fashion-filter-magnitude-50pct-w8a8": (0.5, 0.92),
    "vgg-fashion-filter-magnitude-25pct-w8a8": (0.25, 0.9),
    "vgg-fashion-kernel-50pct-w8a8": (0.5, 0.92),
}


@pytest.fixture
def vgg(tmp_path):
    """Rows and results of a dense network, of two densities of two ways, and of one density of a third."""
    rows = find_rows(list(SHARES), [0, 1, 2], True)
    for row in rows:
        density, share = SHARES[row.base]
        if row.control is None and row.recipe.seed < 2:
            figures = {"weights": 40_000, "kept": round(40_000 * density)}
            finish(row, tmp_path, share + 0.002 * row.recipe.seed, 10_000, **figures)
    return rows, read_from(tmp_path)


def test_lines_join_medians_of_one_structure_and_way(vgg):
    ((place, (panel, dense, measure)),) = curves(*vgg).items()
    assert place == ("small_vgg", "fashion_mnist")
    assert (dense, measure) == (pytest.approx(93.1), "accuracy in %")
    assert list(panel) == [Line("filter", Method.ADMM, 8), Line("filter", Method.MAGNITUDE, 8)]
    assert panel[Line("filter", Method.ADMM, 8)] == [(50.0, pytest.approx(92.6)), (25.0, pytest.approx(91.1))]
    assert panel[Line("filter", Method.MAGNITUDE, 8)][1] == (25.0, pytest.approx(90.1))


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_figure_is_the_same_file_twice(vgg, tmp_path, suffix):
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path in paths:
        draw(*vgg, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size > 3000


def test_figure_says_what_it_shows(vgg, tmp_path):
    draw(*vgg, tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    for part in ("small_vgg, fashion_mnist", "filter, ADMM", "filter, sum of magnitudes", "dense", "weights kept in %"):
        assert part in text
    assert "kernel" not in text


def test_refuses_other_files_and_too_few_results(vgg, tmp_path):
    rows, results = vgg
    with pytest.raises(PruningError, match=r"curves\.bmp' must end in \.svg, \.pdf, \.png"):
        draw(rows, results, tmp_path / "curves.bmp")
    with pytest.raises(PruningError, match="No structure has results at two densities.*vgg-fashion-kernel-50pct"):
        draw([row for row in rows if "kernel" in row.base], results, tmp_path / "curves.svg")
    assert not list(tmp_path.glob("curves.*"))


def test_from_the_command_line(vgg, tmp_path, capsys):
    path = tmp_path / "curves.svg"
    assert main(["vgg-fashion-filter-*", DENSE, "--curves", str(path), "--out", str(tmp_path)]) == 0
    assert path.read_bytes().startswith(b"<?xml")
    assert main(["--curves", str(tmp_path / "x.svg"), "--out", str(tmp_path / "empty")]) == PruningError.exit_code
    assert "build more rows" in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()
