"""What every test stands on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# As in the Makefile: without it, threads that wait take the cores from those that work. Set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would what they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOOLS = [Path(__file__).with_name(name) for name in ("flows", "infra")]  # folders of tests that start the tools

# Deprecations inside the tools, on their own calls of one another: nothing that this project can change.
THIRD_PARTY = (
    "ignore::DeprecationWarning:mlflow.*",
    "ignore::FutureWarning:mlflow.*",
    "ignore::DeprecationWarning:prefect.*",
    "ignore::DeprecationWarning:pydantic.*",
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",  # MLflow, on a function of its own
    "ignore:Type object .* does not refer to an OperatorClass",  # SQLAlchemy, of the Prefect server's own types
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent in TOOLS:
            for text in THIRD_PARTY:
                item.add_marker(pytest.mark.filterwarnings(text))


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test sets in the environment ends with it: one left a registry behind that a later test then used."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() | before.keys():
        if name != "PYTEST_CURRENT_TEST" and os.environ.get(name) != before.get(name):
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})
