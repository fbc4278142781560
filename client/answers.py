"""From a question to the one contribution: the site's half of the run's task makes the releases.

An answer is one Contribution: bounded, noised, multiplied by the site's public weight. What training looked
like from inside goes to the site's own diagnostics file and nowhere else.
"""

from __future__ import annotations

from client.site import Question, Site
from client.tasks.half import half_of
from common.contribution import Contribution
from common.errors import ConfigError


def answer(site: Site, question: Question) -> Contribution:
    """Compute the contribution to a question. Nothing is recorded or sent here.

    Raises: ConfigError for a kind of query that this version does not know.
    """
    query, plan = question.query, question.plan
    function = half_of(plan.task.name).ANSWERS.get(query.kind)
    if function is None:
        raise ConfigError(f"query kind {query.kind!r} is unknown", hint="both sides need the same version")
    return Contribution.of(query, plan.blocks(query.kind), function(site, question))
