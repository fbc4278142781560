"""The finished model goes to the sites, over the channel that asked for it: signed, with the digests of plan and roster.

Who was away gets it at the next run of this coordinator, or when ``fedcart server deliver`` is called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import common.wire as wire
from common.errors import BadInputError
from common.flower import Parts
from common.model_files import read_document, refuse_personal
from common.plain_text import word_or
from common.run import DELIVERY, METADATA_FILE, WEIGHTS_FILE, Delivery, RunFolder
from common.trust import Identity, Roster
from server.exchange import Exchange

DELIVER = "deliver"  # purpose of a server app that only hands out the model of a run that is over
DELIVERY_S = 60.0
BYTES_PER_S = 1 << 20  # that a site's line carries at the least


@dataclass(frozen=True)
class Courier:
    """What a delivery needs: the line to the sites, who signs, and the roster that the sites have now."""

    exchange: Exchange
    coordinator: Identity
    roster: Roster

    def deliver(self, folder: RunFolder, sites: Iterable[str]) -> dict[str, str]:
        """Hand the models of a run to those of its sites that do not have them yet; a word for each of these sites.

        The word is empty where the site keeps the model now, else the site's code, or lost or late.
        Raises: BadInputError for a damaged model, or a personal one, which never leaves its site.
        """
        said: dict[str, str] = {}
        for model in (folder.path, folder.best_model):
            if not (model / METADATA_FILE).is_file():
                continue
            document, weights = (model / METADATA_FILE).read_bytes(), (model / WEIGHTS_FILE).read_bytes()
            refuse_personal(weights, str(model))
            digest = hashlib.sha256(document).hexdigest()
            waiting = [
                s for s in sites if s in self.exchange.nodes and digest not in folder.delivered().get(s, [])
            ]
            words = self._send(self._parts(folder, document, weights, digest), waiting)
            folder.add_delivered({site: digest for site, word in words.items() if not word})
            said |= {site: word for site, word in words.items() if word or site not in said}
        return said

    def _send(self, parts: Parts, sites: list[str]) -> Mapping[str, str]:
        if not sites:
            return {}
        size = sum(len(part) for part in parts.values() if isinstance(part, bytes))
        deadline = DELIVERY_S + size * len(sites) / BYTES_PER_S
        questions = {site: dict(parts) for site in sites}
        answers = self.exchange.ask("keep", questions, deadline_s=deadline, group="keep")
        return {
            site: " ".join(filter(None, (answer.error, word_or(answer.parts.get("rule"), ""))))
            for site, answer in answers.items()
        }

    def _parts(self, folder: RunFolder, document: bytes, weights: bytes, digest: str) -> Parts:
        plan, facts = folder.plan(), read_document(document, METADATA_FILE)["metadata"]
        if not isinstance(facts, dict) or "rounds" not in facts:
            raise BadInputError(f"the model in {folder.path} does not say how many rounds made it")
        delivery = Delivery(plan.run, plan.digest().hex(), self.roster.digest.hex(), int(facts["rounds"]), digest)
        signature = self.coordinator.sign(delivery.statement(DELIVERY))
        return {
            "delivery": wire.encode(delivery),
            "signature": signature,
            "document": document,
            "weights": weights,
        }
