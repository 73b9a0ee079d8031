"""What all tests share: fixed seeds, the data folder, fast tests first, and a mode in which nothing may skip."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

__all__ = ["SEED", "data_folder", "fixed_seeds"]

SEED = 20170
"""Seed of every generator a test may use without making its own."""

NO_SKIP_VARIABLE = "ZEROSKIP_NO_SKIP"
DATA_VARIABLE = "ZEROSKIP_DATA"

hypothesis.settings.register_profile(
    "zeroskip", derandomize=True, deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("zeroskip")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Start every test from the same random state, whatever ran before it."""
    random.seed(SEED)
    np.random.seed(SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the data sets (``mnist/*.gz``) that ``ZEROSKIP_DATA`` names; skip where it names none."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{DATA_VARIABLE} names no data folder")
    if not Path(folder).is_dir():
        pytest.fail(f"{DATA_VARIABLE} must name an existing folder, not {folder!r}")
    return Path(folder)


def may_skip(markers: set[str], environment: dict[str, str]) -> bool:
    """Say whether a test with these markers may skip although skips are forbidden."""
    if "optional_tool" in markers:
        return True
    return "data" in markers and not environment.get(DATA_VARIABLE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the data folder, and run the fast ones first."""
    for item in items:
        if "data_folder" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one where skips are forbidden."""
    report = yield
    expected_failure = hasattr(report, "wasxfail")
    if os.environ.get(NO_SKIP_VARIABLE) == "1" and report.skipped and not expected_failure:
        if not may_skip({marker.name for marker in item.iter_markers()}, dict(os.environ)):
            _forbid(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a module that skips itself into an error where skips are forbidden."""
    report = yield
    if os.environ.get(NO_SKIP_VARIABLE) == "1" and report.outcome == "skipped":
        _forbid(report)
    return report


def _forbid(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{NO_SKIP_VARIABLE}=1 forbids to skip: {reason}"
