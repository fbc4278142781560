"""An entry for OpenDP's registry of deployments of differential privacy, as its public schema wants it."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.audit.papers.details import Details
from common.audit.papers.facts import NOT_PRIVATE, SIMULATED, Facts, Total, eps
from common.audit.papers.paper import HUMAN, Item
from common.audit.papers.writing import STATED, TO_FILL, inert
from common.privacy import show_exact

REGISTRY = "opendp-deployment"
KEYS = (
    "controller.name", "purpose.purpose", "registry.name", "registry.region", "registry.published", "registry.tuning",
    "registry.authors",
)  # fmt: skip


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Basic(_Part):
    """Tier 1. ``publication_date``: YYYY-MM-DD."""

    name: str
    data_curators: list[str] = Field(min_length=1)
    intended_use: str
    data_product_type: Literal["Machine learning model"] = "Machine learning model"
    data_product_region: str
    description: str
    publication_date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")


class Variant(_Part):
    """What differential privacy means here."""

    variant_name: Literal["Approximate DP"] = "Approximate DP"
    data_domain: str
    unprotected_quantities: str


class Parameters(_Part):
    """Both at the worst site."""

    epsilon: float = Field(ge=0)
    delta: float = Field(gt=0, lt=1)


class PrivacyLoss(_Part):
    """What is lost by whom."""

    privacy_unit: str
    privacy_unit_details: str
    privacy_parameters: Parameters
    privacy_parameters_details: str


class Model(_Part):
    """Who is trusted."""

    model_name: Literal["Federated"] = "Federated"
    model_name_details: str
    actors: str
    release_type: Literal["Many releases"] = "Many releases"
    release_type_details: str
    data_source_type: Literal["Dynamic"] = "Dynamic"
    access_type: Literal["Non-interactive"] = "Non-interactive"


class Accounting(_Part):
    """How losses add up."""

    post_processing: str
    composition: str


class Implementation(_Part):
    """How it was done."""

    preprocessing_and_hyperparameter_tuning: str
    mechanisms: str
    justification: str


class Administrative(_Part):
    """Who wrote the entry, and what it rests on."""

    sources: str
    notes: str
    registry_authors: list[str] = Field(min_length=1)


class Deployment(_Part):
    """All of it; without privacy the parts about it are left out."""

    basic: Basic
    dp_variant: Variant | None = None
    privacy_loss: PrivacyLoss | None = None
    deployment_model: Model | None = None
    accounting: Accounting | None = None
    implementation: Implementation | None = None
    administrative: Administrative


class Entry(_Part):
    """The whole entry: always a draft, which people submit or do not."""

    url_slug: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    status: Literal["Draft"] = "Draft"
    tier: Literal[1, 3]
    deployment: Deployment


def registry_entry(facts: Facts, details: Details) -> dict[str, Any]:
    """The entry as plain data."""
    worst = facts.worst
    parts: dict[str, Any] = {"basic": _basic(facts, details), "administrative": _administrative(facts, details)}
    if worst is not None:
        parts |= _about_privacy(facts, worst, details)
    entry = Entry(url_slug=_slug(facts.name), tier=1 if worst is None else 3, deployment=Deployment(**parts))
    return entry.model_dump(exclude_none=True)


def registry_gaps(details: Details) -> tuple[Item, ...]:
    """What the entry asks of a person, and nobody has said."""
    return tuple(item for item in details.items(*KEYS) if item.of != HUMAN)


def _basic(facts: Facts, details: Details) -> Basic:
    warnings = [headline for headline, _ in facts.marks if headline in (NOT_PRIVATE[0], SIMULATED[0])]
    name = _said(details, "registry.name")
    what = "A sequence model of shopping behaviour, trained by federated learning between sites"
    how = (
        "; each site clips and noises what leaves it"
        if facts.private
        else f". {NOT_PRIVATE[0]}: {NOT_PRIVATE[1].removesuffix('.')}"
    )
    how += f". {SIMULATED[1]}" if facts.statement.simulated else ""
    return Basic(
        name=": ".join([*warnings, name]),
        data_curators=[_said(details, "controller.name")],
        intended_use=_said(details, "purpose.purpose"),
        data_product_region=_said(details, "registry.region"),
        description=what + how,
        publication_date=details.answers.get("registry.published") or facts.published or facts.drawn_up,
    )


def _about_privacy(facts: Facts, worst: Total, details: Details) -> dict[str, Any]:
    statement = facts.statement
    said = {section.title: inert(" ".join(section.sentences)) for section in statement.sections}
    actors = (
        f"{a.who}: {a.sees}; epsilon {'none' if a.epsilon is None else eps(a.epsilon)}: {a.why}"
        for a in statement.adversaries
    )
    together = (f"{who}: {eps(epsilon)} at delta {delta}" for who, epsilon, delta in facts.together)
    limits = ("each site's ledger stops training at the limit of its policy", *together)
    return {
        "dp_variant": Variant(data_domain=said["Unit"], unprotected_quantities=_bullets(statement.not_covered)),
        "privacy_loss": PrivacyLoss(
            privacy_unit="Consumer",
            privacy_unit_details=f"{said['Unit']} {said['Neighbouring relation']}",
            privacy_parameters=Parameters(epsilon=worst.epsilon, delta=worst.delta),
            privacy_parameters_details=_bullets([line for total in facts.totals for line in _total_lines(total)]),
        ),
        "deployment_model": Model(
            model_name_details=said["Trust model"],
            actors=_bullets(list(actors)),
            release_type_details=_bullets(list(limits)),
        ),
        "accounting": Accounting(
            post_processing="averaging of models over rounds, checkpoints, scoring at sites", composition=said["Composition"]
        ),
        "implementation": Implementation(
            preprocessing_and_hyperparameter_tuning=_said(details, "registry.tuning"),
            mechanisms=" ".join(said[title] for title in ("Mechanism", "Sampling", "Random source")),
            justification=_bullets(statement.assumptions),
        ),
    }  # fmt: skip


def _total_lines(total: Total) -> list[str]:
    limit = "limit not in this record" if total.limit is None else f"limit {show_exact(total.limit)}"
    lines = [f"{total.who}: epsilon {eps(total.epsilon)} at delta {total.delta}, {limit}"]
    if total.colluders is not None:
        lines.append(
            f"{total.who}, if no other site is honest: epsilon {eps(total.alone)}; the figure above holds against the server and up to {total.colluders} other sites together"
        )
    return lines + [f"{total.who}: from {one}, SHA-256 {one.digest}" for one in total.references]  # fmt: skip


def _administrative(facts: Facts, details: Details) -> Administrative:
    gaps = [f"{TO_FILL}: {gap.key}: {gap.words}" for gap in registry_gaps(details)]
    filled = [f"{item.label}: {STATED}" for item in details.items(*KEYS) if item.of == HUMAN]
    marks = [f"{headline}: {words}" for headline, words in facts.marks]
    return Administrative(
        sources=_bullets(
            ["signed ledgers and records, verified offline with fedcart audit verify", *facts.checked]
        ),
        notes=_bullets([f"drawn up {facts.drawn_up} by fedcart {facts.version}", *marks, *filled, *gaps]),
        registry_authors=[_said(details, "registry.authors")],
    )


def _said(details: Details, key: str) -> str:
    item = details.item(key)
    return inert(item.words) if item.of == HUMAN else f"{TO_FILL}: {item.words} ({key})"


def _bullets(sentences: Any) -> str:
    return "\n".join(f"- {inert(sentence)}" for sentence in sentences)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"fedcart-{name}".lower())[:80].strip("-")
