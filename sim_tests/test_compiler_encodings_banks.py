"""The bank index: what is filled up, short last banks, and refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.banks import encode_row
from zeroskip.compiler.errors import CompileError


@given(st.sets(st.integers(0, 59)), st.integers(1, 60), st.integers(1, 16))
def test_every_bank_names_its_positions_and_has_the_same_number_of_codes(kept, length, bank):
    positions = sorted(position for position in kept if position < length)
    banks = [[p % bank for p in positions if p // bank == number] for number in range(-(-length // bank))]
    entries = max(1, *map(len, banks))
    codes = encode_row(positions, length, bank, entries)
    assert len(codes) == entries * len(banks)
    for number, used in enumerate(banks):
        mine = codes[number * entries : (number + 1) * entries]
        assert set(used) <= set(mine)
        assert all(0 <= code < min(bank, length - number * bank) for code in mine)
        room = min(bank, length - number * bank)
        assert len(set(mine)) == min(entries, room)


def test_banks_are_filled_up_with_other_positions_in_order():
    assert encode_row([1, 4], 8, 4, 2) == [0, 1, 0, 1]
    assert encode_row([3, 6], 8, 4, 2) == [0, 3, 0, 2]


def test_short_last_bank_repeats_its_first_position():
    assert encode_row([0, 1, 2, 4], 5, 4, 3) == [0, 1, 2, 0, 0, 0]


def test_bank_with_too_many_weights_is_refused():
    with pytest.raises(CompileError, match="^Bank at position 4 has 3 weights, but 2 are allowed$"):
        encode_row([0, 4, 5, 7], 8, 4, 2)
