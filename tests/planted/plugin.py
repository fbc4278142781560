"""``pytest -p tests.planted.plugin`` with ``FEDCART_PLANT=NAME`` in the environment: a run with one bug planted."""

import os

import pytest


def pytest_configure() -> None:
    from tests.planted.bugs import BUGS

    BUGS[os.environ["FEDCART_PLANT"]].plant(pytest.MonkeyPatch())
