from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from . import implementations
from .cases import TYPE_CASES
from .harness import SourceHarness, TargetHarness


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "case(name): the conformance case, as `gaps` of an implementation names it")


def _harnesses(kind: str) -> list[type[Any]]:
    modules = [
        importlib.import_module(f"{implementations.__name__}.{m.name}")
        for m in pkgutil.iter_modules(implementations.__path__)
    ]
    return [harness for module in modules for harness in getattr(module, kind, ())]


def _param(harness: type[Any], case: str, *values: Any, suffix: str = "") -> Any:
    marks: list[pytest.MarkDecorator] = []
    if {case, case.partition(".")[0], "*"} & getattr(harness, "soak", frozenset()):
        marks.append(pytest.mark.soak)
    if reason := harness.declared_gaps().get(case):
        marks.append(pytest.mark.xfail(reason=reason, strict=True))
    return pytest.param(harness, *values, marks=marks, id=harness.name + suffix)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test over every implementation; a case that an implementation declares as a gap must fail."""
    for kind, fixture in (("SOURCES", "source_harness"), ("TARGETS", "target_harness")):
        if fixture not in metafunc.fixturenames:
            continue
        marker = metafunc.definition.get_closest_marker("case")
        assert marker, f"{metafunc.function.__name__} needs @pytest.mark.case"
        case = marker.args[0]
        if "type_case" in metafunc.fixturenames:
            params = [
                _param(h, f"{case}.{t.name}", t, suffix=f"-{t.name}") for h in _harnesses(kind) for t in TYPE_CASES
            ]
            metafunc.parametrize((fixture, "type_case"), params, indirect=[fixture])
        else:
            metafunc.parametrize(fixture, [_param(h, case) for h in _harnesses(kind)], indirect=True)


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[type[Any]], Any]]:
    """Start every harness once; a parametrized fixture of session scope would start it again and again."""
    started: dict[type[Any], Any] = {}

    def get(harness: type[Any]) -> Any:
        if harness not in started:
            new = harness(tmp_path_factory.mktemp(harness.name))
            new.start()
            started[harness] = new
        return started[harness]

    yield get
    for harness in started.values():
        harness.stop()


@pytest.fixture
def source_harness(request: pytest.FixtureRequest, _running: Callable[[type[Any]], Any]) -> SourceHarness:
    harness: SourceHarness = _running(request.param)
    return harness


@pytest.fixture
def target_harness(request: pytest.FixtureRequest, _running: Callable[[type[Any]], Any]) -> TargetHarness:
    harness: TargetHarness = _running(request.param)
    return harness
