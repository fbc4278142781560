"""Server strategies of your own: what the server does with the mean update of a round."""

from __future__ import annotations

from server.strategy import CUSTOM, CustomStrategy, register


def register_strategy(name: str, apply: CustomStrategy) -> str:
    """Make a strategy known; returns the word for the setting ``strategy.name``.

    ``apply(state, update) -> state``: a ServerState and the mean update ``float32[d]``; the round is counted, and the
    model's moving average is kept, by the caller. A strategy sees sums only, so it costs no epsilon. It is known in this
    process; a deployed server needs it registered in its own.
    Raises: ConfigError for a name that cannot be a setting.

    Example:
        >>> from dataclasses import replace
        >>> half = lambda state, update: replace(state, parameters=state.parameters + update / 2)
        >>> register_strategy("half", half)
        'custom:half'
    """
    register(name, apply)
    return CUSTOM + name
