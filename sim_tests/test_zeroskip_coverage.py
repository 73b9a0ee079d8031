"""The features of soak configurations, and the table that counts them."""

from __future__ import annotations

from collections import Counter

from zeroskip import soak
from zeroskip.configurations import draw_configuration
from zeroskip.coverage import coverage_table, features

SEED = 11


def labels(index: int) -> tuple[str, ...]:
    """Features of a configuration that the compiler serves."""
    configuration = draw_configuration(SEED, index)
    return features(configuration, soak.compile_configuration(configuration))


def test_features_are_those_of_network_geometry_and_hardware():
    counts: Counter[str] = Counter()
    for index in range(40):
        try:
            counts.update(labels(index))
        except soak.Refused:
            continue
    assert len(counts) > 100
    served = [draw_configuration(SEED, index) for index in range(40)]
    stalled = {f"family: {configuration.family}" for configuration in served}
    assert stalled <= set(counts)
    for option in ("stalls", "without passes", "index bits given", "banked vectors", "shared multipliers"):
        assert 0 < counts[f"option: {option}"] < 40, option
    # multipliers are generated exactly where some scale is no power of two
    assert 0 < counts["hardware: multiplier_width"] < 40


def test_each_feature_counts_once():
    found = labels(0)
    assert len(set(found)) == len(found) == len(sorted(found))
    assert found == labels(0)


def test_table_names_what_was_not_covered():
    lines = coverage_table(Counter({"family: graph": 2, "family: chain": 3, "lanes: 4": 3})).splitlines()
    assert lines[0] == "     family  chain: 3, graph: 2, 1-D: 0, linear: 0, pointwise: 0"
    assert lines[-1] == "      lanes  4: 3"
    assert "     engine  dense: 0, hybrid: 0, sparse: 0" in lines
