"""What a geometry may be: every refused size is named with its limit."""

from __future__ import annotations

import pytest

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.target import Geometry


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
        ({"lanes": 4, "sign_adds": 3}, "sign_adds must be 1, 2, 4, 8 or 16, up to the 4 lanes, not 3"),
        ({"lanes": 4, "sign_adds": 8}, "sign_adds must be 1, 2, 4, 8 or 16, up to the 4 lanes, not 8"),
        ({"lanes": 4, "sign_adds": 2, "banked_vectors": True}, "Geometry has 2 sign_adds and banked_vectors; only one"),
        ({"lanes": 8, "sign_adds": 4, "logic_products": 3}, "logic_products must be 0 to the 2 products, not 3"),
    ],
)
def test_refused_geometry_names_the_number_and_its_limit(sizes, text):
    with pytest.raises(CompileError, match=text):
        Geometry(**sizes)


def test_geometry_in_words():
    assert str(Geometry(8)) == "8 lanes x 1 columns"
    assert str(Geometry(8, 1, 3, 2, 4)) == "8 lanes x 3 cores, 2 results a cycle, 4 products in logic"
    assert str(Geometry(8, sign_adds=4)) == "8 lanes x 1 columns, 4 additions a product"
