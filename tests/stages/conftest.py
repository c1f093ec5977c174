"""Stages that run in these tests keep their work in progress apart from the project's own."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GANOPS_STATE", str(tmp_path_factory.mktemp("state")))
        yield
