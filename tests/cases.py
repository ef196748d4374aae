"""Many cases in one test: where a case takes milliseconds, a test apiece would cost as much."""

import functools
import inspect
import os

import pytest

ERRORS = (Exception, BaseExceptionGroup, pytest.fail.Exception)


def each(names, cases, ids=None):
    """`pytest.mark.parametrize`, but one test: every case is run, and all that fail are named.

    With APART=1 in the environment they are tests of their own, among which -k can choose. What
    fixtures give is shared by the cases.
    """
    if os.environ.get("APART"):
        return pytest.mark.parametrize(names, cases, ids=ids)
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    cases = [_case(case, len(names)) for case in cases]
    if ids is not None:
        name = lambda values: ", ".join(str(ids(value)) for value in values)
        labels = [name(values) for _, values in cases] if callable(ids) else list(ids)
        cases = [(label, values) for label, (_, values) in zip(labels, cases, strict=True)]
    assert cases, "no cases: a test that cannot fail"

    def decorate(test):
        signature = inspect.signature(test)
        assert set(names) <= set(signature.parameters), f"{test.__name__} does not take {names}"

        @functools.wraps(test)
        def every(**given):
            failed = []
            for label, values in cases:
                try:
                    test(**dict(zip(names, values, strict=True)), **given)
                except ERRORS as error:
                    error.add_note(f"case: {', '.join(names)} = {label}")
                    failed.append(error)
            if failed:
                raise BaseExceptionGroup(f"{len(failed)} of {len(cases)} cases fail", failed)

        free = [p for name, p in signature.parameters.items() if name not in names]
        every.__signature__ = signature.replace(parameters=free)
        return every

    return decorate


def _case(case, many):
    """(label, values) of a case as pytest takes it."""
    if isinstance(case, type(pytest.param())):
        return case.id or repr(case.values), case.values
    return repr(case), tuple(case) if many > 1 else (case,)
