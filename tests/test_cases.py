"""`each` is `parametrize` in one test: every case is run, and those that fail are named."""

import pytest
from cases import each


def test_every_case_is_run_and_those_that_fail_are_named(monkeypatch):
    monkeypatch.delenv("APART", raising=False)
    seen = []

    @each("power", [1, 2], ids=["one", "two"])
    @each(("a", "b"), [pytest.param(2, 4, id="two"), (3, 9), pytest.param(1, 2, id="bad")])
    def is_a_power(a, b, power, x):
        seen.append((a, b, power))
        with pytest.raises(ZeroDivisionError):
            _ = x / (b - a**power)

    with pytest.raises(BaseExceptionGroup, match="2 of 2 cases fail") as caught:
        is_a_power(x=1)
    assert sorted(seen) == sorted((a, b, p) for a, b in ((2, 4), (3, 9), (1, 2)) for p in (1, 2))
    first, second = caught.value.exceptions
    assert [e.__notes__ for e in first.exceptions] == [
        [f"case: a, b = {label}"] for label in ("two", "(3, 9)", "bad")
    ]
    assert "1 of 3 cases fail" in str(second)
    assert second.__notes__ == ["case: power = two"]


def test_no_cases_and_names_that_a_test_does_not_take_are_refused(monkeypatch):
    monkeypatch.delenv("APART", raising=False)
    with pytest.raises(AssertionError, match="no cases"):
        each("a", [])
    with pytest.raises(AssertionError, match="does not take"):
        each("a", [1])(lambda b: None)
