"""Texts of the files in a kit that people read and edit."""

from __future__ import annotations

from collections.abc import Mapping

import tomli_w

from common.deployment import Federation, FederationPins, SiteEntry
from common.privacy import USUAL_DELTA, delta_for


def site_toml(site: SiteEntry, federation: Federation, pins: FederationPins) -> str:
    """``site.toml``: the operator's facts, and what the site believes about its federation."""
    from common.run import CATALOGUE_FILE

    return f"""\
# Who this site is. Yours to edit, except [federation], which you compare with the coordinator by telephone.

[site]
name = {_quote(site.name)}
# The set of consumers that the privacy budget belongs to. Runs, models and restarts under one scope add up.
scope = {_quote(site.scope or site.name)}
# Where the account of that scope is kept. If these consumers take part elsewhere too, all kits about them must name one
# ledger: a folder, or "user" for the user's state directory; and the same scope. Left out: in this kit's state folder.
# ledger = "user"
# Declared number of consumers, rounded, public: it sets sampling rate and weight. Do not follow the true count.
population = {site.population}
# Paths are relative to this folder unless they are absolute.
events = {_quote(site.events or ("" if site.source else "events.csv"))}
format = {_quote(site.format)}
mapping = {_quote(site.mapping)}
catalogue = {_quote(site.catalogue or (CATALOGUE_FILE if federation.catalogue else ""))}

{_source_table(site)}
[server]
address = {_quote(federation.coordinator.address)}

[federation]
name = {_quote(pins.name)}
# Ed25519 public key of the coordinator: nothing that it has not signed is answered.
coordinator = {_quote(pins.coordinator)}
# SHA-256 of the only app bundle that may run here. It holds no code: what runs is the program you installed.
bundle = {_quote(pins.bundle)}
"""


def _source_table(site: SiteEntry) -> str:
    """The table [source] of a site whose events are in no file, or how to write one."""
    if site.source is None:
        return (
            '# Events in a database instead: set events = "" above and add a table [source], see docs/data.md.\n'
        )
    plain = site.source.model_dump(mode="json", exclude_defaults=True)
    return f"# Where the events are; the password stays in the variable or file that is named here.\n{tomli_w.dumps({'source': plain})}"


_POLICY = """\
# What {site} lets itself be asked. Only the site edits this file; the coordinator never sees it. A run whose
# settings break a rule is refused, naming the rule; nothing is ever silently changed.

# "ask": nothing is computed before a person has seen the run's settings: fedcart site approve KIT
# "auto": the rules below decide alone.
approve = "{approve}"

# ---- privacy budget: what all releases together may tell about one consumer of the scope, for ever
# Limit of epsilon over all runs, models and restarts. Lower is safer; 8 is an upper end, 1 to 3 is strong.
epsilon_max = 8.0
# Chance that the promise fails, fixed when the ledger is made: below 1 / (10 x consumers); above 1 / consumers nothing is
# answered. A run must state this delta or a smaller one.
delta = {delta}
# Least noise of a training step, and of an evaluation.
noise_multiplier_min = 0.5
evaluation_noise_min = 1.0
# Largest share of the consumers in one training step, most steps in one round.
sampling_rate_max = 0.5
steps_max = 1000
# Bounds of the clipping norm.
clip_min = 1e-3
clip_max = 100.0
# Largest local learning rate, and how many times this site's consumers another site may declare: a wild step or
# a vanishing weight makes the sum tell more about fewer sites.
learning_rate_max = 10.0
weight_ratio_max = 1024.0

# ---- company: how many others must be in the sum
# Fewer invited sites, or a smaller share of needed survivors: refuse.
min_cohort = 3
min_threshold_fraction = 0.5
# Item rows that fewer sites stock stay local.
min_stockists = 3
# A declared population below this is too small to protect.
min_consumers = 100

# ---- purpose
allowed_tasks = [{tasks}]
# Release noised metric sums on held-out consumers; release noised statistics for preprocessing.
evaluation = true
statistics = true
# true lets the server see this site's noised contribution alone: only for tests.
plain_aggregation = false
# true lets sites share the noise of a sum: this site then adds a share, and its epsilon counts on so many honest others. Needs
# a limit of its own for the case that none of them is honest (0: none, refused). colluders_max: so many of the other sites may
# work with the server as far as you know them, -1: fewer than a third. docs/privacy.md says when to choose this.
quorum_noise = false
colluders_max = -1
honest_min = 2
epsilon_alone_max = 0.0
# Answers of a run that may fail here, each charged, before this site pauses for that run; and rounds of a run that may be
# given back because nothing had left: how long computing took is seen, so more than these are charged.
failures_max = 1
voids_max = 2
"""


def unusual_deltas(populations: Mapping[str, int]) -> dict[str, float]:
    """The deltas in new policies of sites that have too many consumers for the usual one."""
    found = {site: delta_for(population) for site, population in populations.items()}
    return {site: delta for site, delta in found.items() if delta < USUAL_DELTA}


def policy_toml(site: str, population: int, approve: str = "ask") -> str:
    """``policy.toml`` with safe defaults, every rule explained. A test compares it with ``SitePolicy``."""
    from common.tasks import TASKS

    delta = f"{delta_for(population):.0e}".replace("e-0", "e-")
    return _POLICY.format(site=site, approve=approve, delta=delta, tasks=", ".join(f'"{name}"' for name in TASKS))


def site_readme(site: str, federation: str, *, own_keys: bool) -> str:
    """``README.txt`` of a site kit."""
    keys = (
        "1. Copy identity.key and node.key, made by `fedcart site keygen`, into this folder (mode 0600)."
        if own_keys
        else "1. The private keys in this folder were made by the coordinator: good for a trial, not for real data.\n"
        "   For real data make your own (fedcart site keygen) and send only the .keys.json file."
    )
    return f"""\
Site {site} of the federation {federation}

{keys}
2. Edit site.toml (where your events are) and policy.toml (what you allow).
3. Compare the coordinator's key in site.toml with the coordinator over a second channel.
4. fedcart site check .       every row must be ok
5. fedcart site start .       or by systemd: fedcart site unit . writes the unit on your machine
6. fedcart site approve .     shows the runs that wait for your yes, and how to say it
   fedcart site status .      running? spent? left?

This folder holds data only, no program: a file that does not belong here fails `fedcart site check` and `start` by name.

Keep state/ for as long as the consumers' data live: it holds the privacy ledger. A site that loses it must run
`fedcart site recover .` before it can take part again.
"""


def _quote(text: str) -> str:
    """A TOML string: JSON's would write a character beyond the BMP as two halves, which no TOML reader takes."""
    return tomli_w.dumps({"value": text}).removeprefix("value = ").rstrip("\n")
