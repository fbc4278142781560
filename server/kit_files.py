"""Texts of the files in a kit that people read and edit."""

from __future__ import annotations

import json

from common.deployment import Federation, FederationPins, SiteEntry
from common.tasks.registry import TASKS


def site_toml(site: SiteEntry, federation: Federation, pins: FederationPins) -> str:
    """``site.toml``: the operator's facts, and what the site believes about its federation."""
    return f"""\
# Who this site is. Yours to edit, except [federation], which you compare with the coordinator by telephone.

[site]
name = {_quote(site.name)}
# The set of consumers that the privacy budget belongs to. Runs, models and restarts under one scope add up.
scope = {_quote(site.scope or site.name)}
# Declared number of consumers, rounded, public: it sets sampling rate and weight. Do not follow the true count.
population = {site.population}
# Paths are relative to this folder unless they are absolute.
events = {_quote(site.events or "events.csv")}
format = {_quote(site.format)}
mapping = {_quote(site.mapping)}
catalogue = {_quote(site.catalogue)}

[server]
address = {_quote(federation.coordinator.address)}

[federation]
name = {_quote(pins.name)}
# Ed25519 public key of the coordinator: nothing that it has not signed is answered.
coordinator = {_quote(pins.coordinator)}
# SHA-256 of the only app bundle that may run here. It holds no code: what runs is the program you installed.
bundle = {_quote(pins.bundle)}
"""


_POLICY = """\
# What {site} lets itself be asked. Only the site edits this file; the coordinator never sees it. A run whose
# settings break a rule is refused, naming the rule; nothing is ever silently changed.

# "ask": nothing is computed before a person has seen the run's settings: fedcart site approve KIT RUN
# "auto": the rules below decide alone.
approve = "{approve}"

# ---- privacy budget: what all releases together may tell about one consumer of the scope, for ever
# Limit of epsilon over all runs, models and restarts. Lower is safer; 8 is an upper end, 1 to 3 is strong.
epsilon_max = 8.0
# Chance that the promise fails, fixed when the ledger is made. Keep it below 1 / number of consumers.
delta = 1e-5
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
"""


def policy_toml(site: str, approve: str = "ask") -> str:
    """``policy.toml`` with safe defaults, every rule explained. A test compares it with ``SitePolicy``."""
    return _POLICY.format(site=site, approve=approve, tasks=", ".join(f'"{name}"' for name in TASKS))


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
5. fedcart site start .       or: ./start.sh, or the systemd unit fedcart-site.service
6. fedcart site approve .     shows the runs that wait for your yes, and how to say it
   fedcart site status .      running? spent? left?

Keep state/ for as long as the consumers' data live: it holds the privacy ledger. A site that loses it must run
`fedcart site recover .` before it can take part again.
"""


def start_script() -> str:
    """``start.sh``."""
    return """\
#!/bin/sh
# Starts this site and keeps it running until it is stopped with SIGTERM or Ctrl-C.
cd "$(dirname "$0")" || exit 1
exec "${FEDCART:-fedcart}" site start . "$@"
"""


def systemd_unit(site: str) -> str:
    """A systemd unit; the operator fills in user and paths."""
    return f"""\
# Copy to /etc/systemd/system/fedcart-{site}.service, adapt User, WorkingDirectory and ExecStart, then:
#   systemctl enable --now fedcart-{site}
[Unit]
Description=fedcart site {site}
Wants=network-online.target
After=network-online.target

[Service]
User=fedcart
WorkingDirectory=/srv/fedcart/{site}
ExecStart=/srv/fedcart/venv/bin/fedcart site start .
Restart=on-failure
RestartSec=30
TimeoutStopSec=30
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=yes
ReadWritePaths=/srv/fedcart/{site}/state

[Install]
WantedBy=multi-user.target
"""


def _quote(text: str) -> str:
    return json.dumps(text, allow_nan=False)
