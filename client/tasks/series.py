"""The one release of a site's sales series: bounded per consumer, noised, charged; and what the site keeps of it.

The kept file holds the very bytes that left, and its digest is the one in the ledger's COMMIT: training reads
this file and nothing else, so whatever is learnt from it is post-processing.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from client.guard import outbox_digest
from client.site import Site
from client.tasks.purchases import Purchases, joined_purchases, purchases_of
from client.training.gaussian import GaussianMechanism, Noise
from common.atomic import private_folder, write_atomic
from common.contribution import SERIES, STATISTICS, Release
from common.errors import BadInputError, ConfigError, VerificationError
from common.privacy import sides_of
from common.run import RunPlan
from common.tasks.sales_series import Floats, SalesSpec
from common.trust.randomness import RandomStream

if TYPE_CHECKING:
    from common.data import EventLog

_ARRAYS = ("consumer", "cell", "amounts")


def noised_series(purchases: Purchases, plan: RunPlan, stream: RandomStream) -> Release:
    """Sum of the clipped consumers plus Gaussian noise, in units of the bounds: ``float64[cells]``.

    Guarantee: with a private stream and ``plan.noise_multiplier`` above 0, one Gaussian mechanism on all consumers
    of the site without sampling; L2 sensitivity ``privacy.clip`` under adding or removing one consumer, noise
    ``noise_multiplier * clip`` on every cell. All consumers are read, so every sub-scope pays.
    """
    privacy, spec = plan.config.privacy, SalesSpec.of(plan.config)
    scopes = sides_of(privacy.holdout, privacy.validation)
    noise = Noise(plan.noise_multiplier, privacy.clip, scopes, hardened=privacy.noise == "hardened")
    mechanism, series = GaussianMechanism(noise, stream), purchases.series(spec, privacy.clip).reshape(-1)
    return Release(SERIES, series + mechanism.noise(series.size), mechanism.events())


def noise_floor(plan: RunPlan) -> float:
    """Standard deviation of the noise on a released cell, in units of the bounds: public."""
    return plan.noise_multiplier * plan.config.privacy.clip


def purchases_at(site: Site, plan: RunPlan) -> Purchases:
    """What the site's consumers bought, from the state folder or made from the event log. PRIVATE.

    Raises: BadInputError for an unusable log.
    """
    path = purchases_path(site.kit.state, plan, site.source_stamp())
    if not path.exists():
        store_purchases(path, joined_purchases(purchases_in(piece, plan) for piece in site.pieces()))
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Purchases(*(stored[name] for name in _ARRAYS))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadInputError(f"{path} is damaged", hint="remove it: it is made again from the event log") from error


def purchases_in(log: EventLog, plan: RunPlan) -> Purchases:
    """A log's purchases in the cells of a plan."""
    sales = plan.config.sales
    return purchases_of(log, SalesSpec.of(plan.config), (sales.quantity_cap, sales.price_cap))


def purchases_path(state: Path, plan: RunPlan, source: str = "") -> Path:
    """Where the summed purchases are kept: a name made from all that they depend on."""
    key = repr((plan.config.sales.model_dump_json(), source))
    return state / f"purchases-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def store_purchases(path: Path, purchases: Purchases) -> None:
    """Write purchases atomically, without pickle, readable by the owner only."""
    arrays = {name: getattr(purchases, name) for name in _ARRAYS}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(private_folder(path.parent) / path.name, buffer.getvalue(), mode=0o600)


def keep_release(state: Path, plan: RunPlan, ring: bytes) -> None:
    """Keep the bytes of a release that is about to leave, under the name of its plan."""
    path = release_path(state, plan)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(path, ring, mode=0o600)


def release_path(state: Path, plan: RunPlan) -> Path:
    """Where the release of a plan is kept."""
    return state / "releases" / f"{plan.digest().hex()[:32]}.ring"


def kept_release(site: Site, plan: RunPlan) -> Floats:
    """The site's own noised series: ``float64[channels, categories, periods]`` in units of the bounds.

    Guarantee: with privacy these are the bytes whose digest the ledger has committed and charged in this run.
    Raises: ConfigError if there are none; VerificationError if they are not the charged ones.
    """
    from common.secagg import fixedpoint

    path = release_path(site.kit.state, plan)
    try:
        kept = path.read_bytes()
    except OSError:
        raise ConfigError(
            f"run {plan.run} has no released series at this site",
            hint="it was not in round 0, or the file is lost",
        ) from None
    if plan.config.privacy.enabled:
        charged = site.guard().released_digest(plan.run, plan.digest().hex())
        if outbox_digest(kept).hex() != charged:
            raise VerificationError(
                f"{path.name} is not what the ledger has charged in run {plan.run}",
                hint="restore the file; this run cannot go on without it",
            )
    blocks = plan.blocks(STATISTICS)
    ring = np.frombuffer(kept, dtype=np.uint32)
    fixedpoint.check_ring(ring, blocks)
    return fixedpoint.decode(ring, blocks).reshape(SalesSpec.of(plan.config).shape)
