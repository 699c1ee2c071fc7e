"""The judge of instruction counts: what it lets pass and what it does not."""

import importlib.util
import json

import pytest

from server import REPOSITORY

HERE = REPOSITORY / "tests/instructions"


@pytest.fixture(scope="module")
def count():
    spec = importlib.util.spec_from_file_location("count", HERE / "count.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("now, passes", [(100, True), (105, True), (105.2, False), (200, False), (10, True)])
def test_a_step_may_cost_the_slack_more_and_anything_less(count, now, passes):
    found = count.worse({"a": 100.0, "b": 7.0}, {"a": float(now), "b": 7.0})
    assert (found == []) is passes
    assert passes or found[0].startswith("a: ")


def test_a_step_that_is_new_or_gone_is_said(count):
    found = count.worse({"a": 1.0, "b": 1.0}, {"b": 1.0, "c": 1.0})
    assert found == ["a stands only in the baseline", "c stands only in the program"]


def test_the_baseline_has_each_case_of_the_program():
    baseline = json.loads((HERE / "baseline.json").read_text())
    source = (HERE / "src/main.rs").read_text()
    cases = {line.split('"')[1] for line in source.splitlines() if line.strip().startswith('("')}
    assert cases == set(baseline["instructions"]) and len(cases) >= 4
    assert baseline["compiler"].startswith("rustc ") and all(n > 0 for n in baseline["instructions"].values())
