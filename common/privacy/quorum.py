"""Who must be honest for how much noise: the numbers of quorum noise, and what they must satisfy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from common.errors import ConfigError
from common.privacy.mechanism import PrivacyEvent

LEAST_HONEST = 2  # with one, a site's own noise is all there is: that is local noise


def usual_colluders(sites: int) -> int:
    """How many of so many sites are assumed to collude where nobody says so: fewer than a third."""
    return (sites - 1) // 3


@dataclass(frozen=True)
class Quorum:
    """``sites`` (n) are in a session, ``threshold`` (t) of them sign what opens, ``colluders`` (c) of them may work with whoever
    reads the sum; ``honest`` (h) shares of noise are counted on.

    Guarantee: where ``check`` returns, whatever opens holds either nothing of an honest site's vector or the vectors of at
    least ``honest`` honest sites. Two lists cannot both be signed by t sites while at most c sign twice, as 2t > n + c; and
    each honest vector in the one that is signed is tied by a pair mask to every honest signer, of whom there are t - c.
    Source: Bonawitz et al. 2017, section 6.2, and docs/adr.
    """

    sites: int
    threshold: int
    colluders: int
    honest: int

    def check(self) -> None:
        """Return if the noise can be counted on. Raises: ConfigError saying which numbers would do."""
        n, t, c, h = self.sites, self.threshold, self.colluders, self.honest
        if not 2 * t > n + c:
            enough = (n + c) // 2 + 1
            other = f"aggregation.threshold={enough}" if enough <= n else "larger sessions: aggregation.max_cohort"
            raise ConfigError(
                f"{t} of {n} sites sign what opens, and {c} may collude: two lists could both be signed",
                hint=f"at most {max(2 * t - n - 1, 0)} may collude at this threshold, or take {other}",
            )
        if h < LEAST_HONEST:
            raise ConfigError(
                f"the noise of {h} honest sites is that of the site alone",
                hint=f"use privacy.trust=local, or fewer colluders: now {t} sign and {c} may collude",
            )
        if not t - c >= h:
            raise ConfigError(
                f"the noise of {h} honest sites is counted on, of {t} that sign {c} may collude",
                hint=f"privacy.honest can be {t - c} at most",
            )

    def in_session(self, sites: int, threshold: int) -> Self:
        """The same counts in a session of so many sites with such a threshold."""
        return type(self)(sites, threshold, self.colluders, self.honest)

    def share(self, multiplier: float) -> float:
        """Noise multiplier of each site's own draw, for a sum that shall have ``multiplier``: rounded up."""
        return math.ceil(multiplier / math.sqrt(self.honest) * 1e6) / 1e6

    @property
    def cliff(self) -> int:
        """From how many colluders on two lists can be signed, and everything may open alone: 2t - n."""
        return 2 * self.threshold - self.sites

    def honest_against(self, colluders: int) -> int:
        """How many honest shares a sum holds at least where so many sites collude; 1: a site's own may be all there is."""
        return max(self.threshold - colluders, 1) if colluders < self.cliff else 1

    def __str__(self) -> str:
        return (
            f"the noise of {self.honest} honest sites, as at least {self.threshold} of {self.sites} sign what opens and "
            f"at most {self.colluders} of them collude"
        )

    def against(self) -> str:
        """Against whom what a sum holds is enough, for people."""
        others = f"and up to {self.colluders} of {self.sites} sites together" if self.colluders else "alone"
        return f"against the server {others}; {self}"

    def event(self, multiplier: float, rate: float, steps: int, side: str) -> PrivacyEvent:
        """What ``steps`` sums cost in which each site draws noise of ``multiplier``."""
        return PrivacyEvent(multiplier, rate, steps, side, self.honest, self.colluders)
