"""What a planted bug is: a patch, the test file that goes red, and the self-test's group that does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from client.training.gaussian import GaussianMechanism

Patch = pytest.MonkeyPatch

CLIPPED = "tests/properties/test_dpsgd_sensitivity.py"
EXACT = "tests/oracles/test_dpsgd_brute_force.py"
CHARGED = "tests/attacks/test_charged_is_what_ran.py"
KNOWN = "tests/vectors/test_accountant_vectors.py"
GUARD = "tests/client/guard/test_guard.py"
PAUSES = "tests/client/guard/test_guard_pauses.py"
LATER = "tests/attacks/test_runs_chosen_later.py"
DRAWS = "tests/attacks/test_what_is_drawn.py"


@dataclass(frozen=True)
class Bug:
    """A bug, how it is planted, the test file that goes red and the self-test's group that does (empty: not a site's)."""

    plant: Callable[[Patch], None]
    test: str
    check: str = ""

    @property
    def name(self) -> str:
        """In words."""
        return self.plant.__name__.replace("_", " ")


def change_noise(patch: Patch, change: Callable[[np.ndarray], np.ndarray]) -> None:
    true = GaussianMechanism.noise
    patch.setattr(GaussianMechanism, "noise", lambda self, size: change(true(self, size)))
