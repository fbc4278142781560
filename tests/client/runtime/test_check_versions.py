"""Which versions of Flower a site accepts."""

import pytest

from client.runtime.check import flower_fits


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("1.41.0", True),
        ("1.42.1", True),
        ("1.40.9", False),
        ("1.43.0", False),
        ("2.0", False),
        ("nonsense", False),
    ],
)
def test_flower_is_compared_by_range(version, fits):
    assert flower_fits(version) is fits
