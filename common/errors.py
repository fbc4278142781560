"""One tree of errors. Only these cross a public function; each says what happened and what to do.

Style: lower case, no final period, values and the limit they broke; the hint is an instruction.
The class decides the exit code of the command line (see ``docs/`` and the contract in ``cli/main.py``).
"""

from __future__ import annotations


class FedcartError(Exception):
    """Base of every error of ours: a message, a hint, and the process exit code it maps to.

    Guarantee: ``code`` is a fixed word without data in it; it is all that may leave a site.
    """

    exit_code = 1
    code = "failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # where nobody prints the hint, as in a notebook, Python does


class BadInputError(FedcartError):
    """A file, key, message or argument is not usable; found before the work (exit 2)."""

    exit_code = 2
    code = "bad-input"


class ConfigError(BadInputError):
    """A setting is unknown, impossible, or contradicts another (exit 2)."""

    code = "bad-config"


class MechanismError(ConfigError, ValueError):
    """A mechanism whose loss nobody can account for (exit 2). A ValueError too: parsers of foreign text expect one."""

    code = "bad-mechanism"


class RefusedError(FedcartError):
    """A rule of the site says no (exit 3)."""

    exit_code = 3
    code = "refused"


class PolicyRefusedError(RefusedError):
    """The proposal is outside ``policy.toml``; ``rule`` names the rule."""

    code = "policy"

    def __init__(self, rule: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rule = rule


class BudgetExhaustedError(RefusedError):
    """The next release would pass the epsilon limit of the scope."""

    code = "budget"


class PausedError(RefusedError):
    """This site has failed in the run: it takes no further part until its operator has looked."""

    code = "paused"


class RollbackError(RefusedError):
    """The ledger on disk is older than a head this site has already signed."""

    code = "rollback"


class WorkFailedError(FedcartError):
    """The work could not be finished: too few sites, disk full, a peer vanished (exit 1)."""

    code = "failed"


class RoundAbortedError(WorkFailedError):
    """The round gives no sum; the state before it is untouched. ``reason`` is a fixed word."""

    code = "round-aborted"

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class VerificationError(FedcartError):
    """A signature, chain, digest or recomputation does not hold (exit 1)."""

    code = "verification"


class ProtocolError(FedcartError):
    """A step of a protocol is illegal. Nothing has changed in the machine that raised it."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """We tried an illegal step: a bug on this side."""

    code = "protocol-local"


class RemoteProtocolError(ProtocolError):
    """The other side sent something illegal: refuse it, keep our state."""

    code = "protocol-remote"
