"""Every planted bug is caught by a test of the project: a third of them."""

from __future__ import annotations

import pytest

from tests.planted.caught import names_of, require_caught

pytestmark = pytest.mark.full


@pytest.mark.parametrize("name", names_of(1))
def test_a_test_of_the_project_catches_it(name: str) -> None:
    require_caught(name)
