"""What a geometry may be: every refused size is named with its limit."""

from __future__ import annotations

import pytest

from designs import engine_config
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.target import MAX_ACTIVATION, Geometry, pair_bits, pair_spacing


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"lanes": 5}, "Geometry lanes must be 4, 8, 16 or 32, not 5"),
        ({"lanes": 4, "columns": 33}, "Geometry columns must be 1 to 32, not 33"),
        ({"lanes": 4, "cores": 0}, "Geometry cores must be 1 to 8, not 0"),
        ({"lanes": 4, "columns": 2, "cores": 2}, "2 columns and 2 cores; only one of them may be above 1"),
        ({"lanes": 4, "results": 3}, "Geometry results must be a power of two up to the 4 lanes, not 3"),
        ({"lanes": 4, "results": 8}, "Geometry results must be a power of two up to the 4 lanes, not 8"),
        ({"lanes": 4, "columns": 16, "results": 4}, "results must be below the 4 lanes with 16 columns; use 2"),
        ({"lanes": 4, "columns": 2, "logic_products": 9}, "logic_products must be 0 to the 8 products, not 9"),
        (
            {"lanes": 4, "cores": 2, "paired_products": True},
            "paired_products must have at least 2 columns, not 1: the two products of a multiplier have the same",
        ),
        ({"lanes": 4, "sign_adds": 3}, "sign_adds must be 1, 2, 4, 8 or 16, up to the 4 lanes, not 3"),
        ({"lanes": 4, "sign_adds": 8}, "sign_adds must be 1, 2, 4, 8 or 16, up to the 4 lanes, not 8"),
        ({"lanes": 4, "sign_adds": 2, "banked_vectors": True}, "Geometry has 2 sign_adds and banked_vectors; only one"),
        (
            {"lanes": 4, "columns": 2, "sign_adds": 2, "paired_products": True},
            "Geometry has 2 sign_adds and paired_products; only one of them may be set: a multiplier is",
        ),
        ({"lanes": 8, "sign_adds": 4, "logic_products": 3}, "logic_products must be 0 to the 2 products, not 3"),
    ],
)
def test_refused_geometry_names_the_number_and_its_limit(sizes, text):
    with pytest.raises(CompileError, match=text):
        Geometry(**sizes)


def test_geometry_in_words():
    assert str(Geometry(8)) == "8 lanes x 1 columns"
    assert str(Geometry(8, 1, 3, 2, 4)) == "8 lanes x 3 cores, 2 results a cycle, 4 products in logic"
    assert str(Geometry(8, 3, paired_products=True)) == "8 lanes x 3 columns, two products a multiplier"


def test_columns_whose_products_are_paired_go_together():
    paired, plain, cores = Geometry(4, 5, paired_products=True), Geometry(4, 5), Geometry(4, cores=5)
    assert [paired.skew(column) for column in range(5)] == [0, 0, 1, 1, 2]
    assert [plain.skew(column) for column in range(5)] == [0, 1, 2, 3, 4]
    assert [cores.skew(core) for core in range(5)] == [0] * 5
    for geometry, delay in ((paired, 2), (plain, 4), (cores, 0)):
        assert engine_config(geometry, has_slow=True).drain_delay == delay


@pytest.mark.parametrize(
    ("columns", "logic", "level_bits", "shared", "single"),
    [
        (2, 0, 4, 4, 0),
        (3, 0, 4, 4, 4),
        (4, 3, 4, 5, 3),
        (4, 6, 4, 4, 2),
        (4, 16, 4, 0, 0),
        (4, 0, 2, 8, 0),
    ],
)
def test_pairs_have_one_multiplier_and_what_is_in_logic_none(columns, logic, level_bits, shared, single):
    geometry = Geometry(4, columns, logic_products=logic, paired_products=True)
    config = engine_config(geometry, level_bits=level_bits)
    assert (config.paired_multipliers, config.single_multipliers) == (shared, single)
    alone = engine_config(Geometry(4, columns, logic_products=logic), level_bits=level_bits)
    products = 0 if level_bits == 2 else geometry.products - logic
    assert (alone.paired_multipliers, alone.single_multipliers) == (0, products)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 15, 16, 127])
def test_two_levels_share_an_operand_of_the_fewest_bits(limit):
    spacing, bits = pair_spacing(limit), pair_bits(limit)
    largest = MAX_ACTIVATION * limit
    assert -(1 << (spacing - 1)) <= -largest and largest < 1 << (spacing - 1)
    assert largest >= 1 << (spacing - 2)
    packed = (limit << spacing) + limit
    assert 1 << (bits - 2) <= packed < 1 << (bits - 1)
    assert str(Geometry(8, sign_adds=4)) == "8 lanes x 1 columns, 4 additions a product"
