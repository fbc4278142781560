"""A model comes that is not what it says: nothing is kept, and what was in use stays in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from client import session
from client.library import kept_models, model_in_use, use_model
from client.scoring.model import open_model
from common.errors import BadInputError, FedcartError, VerificationError
from common.model_files import METADATA_FILE, NEVER_LEAVES, WEIGHTS_FILE, statement_of
from common.strict_json import readable
from common.trust import Identity
from tests.delivered_models import SITES, Federation, make_federation

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return make_federation(tmp_path_factory.mktemp("market"))


def resigned(document: bytes, signer: Identity, **changes: Any) -> bytes:
    """A document with other facts, signed by whoever."""
    tree = json.loads(document)
    tree["metadata"] |= changes.pop("metadata", {})
    tree |= changes | {"coordinator": signer.public_key.hex()}
    tree["signature"] = signer.sign(statement_of(tree)).hex()
    return readable(tree).encode()


def with_document(federation: Federation, message: dict[str, Any], document: bytes) -> dict[str, Any]:
    import hashlib

    return federation.signed(message | {"document": document}, document=hashlib.sha256(document).hexdigest())


def weights_with(message: dict[str, Any], value: float) -> bytes:
    tensors = {name: tensor.copy() for name, tensor in load(message["weights"]).items()}
    next(iter(tensors.values())).reshape(-1)[0] = value
    return save(tensors)


def altered(federation: Federation) -> dict[str, dict[str, Any]]:
    import hashlib

    run, other = federation.run(), federation.run()
    honest, foreign = federation.delivery(run), federation.delivery(other)
    mallory, true = Identity.generate("coordinator"), federation.identity
    nan = weights_with(honest, float("nan"))
    marked = save({"personal": np.zeros(3, dtype=np.float32)}, {"fedcart": NEVER_LEAVES})
    plan = json.loads(honest["document"])["metadata"]["plan"]
    drowned = plan | {"populations": [[site, 10**6] for site in SITES]}
    invented = plan | {"populations": [*plan["populations"], ["nobody", 64]]}
    without = plan | {"populations": [p for p in plan["populations"] if p[0] != SITES[0]]}
    features = json.loads(plan["features"])
    recoded = plan | {"features": json.dumps(features | {"catalogue_digest": "ab" * 32})}

    def facts(**changes: Any) -> dict[str, Any]:
        return with_document(federation, honest, resigned(honest["document"], true, metadata=changes))

    def reweighted(weights: bytes) -> dict[str, Any]:
        document = resigned(honest["document"], true, sha256=hashlib.sha256(weights).hexdigest())
        return with_document(federation, honest | {"weights": weights}, document)

    return {
        "unsigned": honest | {"signature": b""},
        "announced by a stranger": honest | {"signature": mallory.sign(b"x")},
        "signed by a stranger": with_document(federation, honest, resigned(honest["document"], mallory)),
        "edited behind the signature": honest | {"document": honest["document"].replace(b'"last"', b'"best"')},
        "other weights": honest | {"weights": foreign["weights"][:-4] + b"\1\2\3\4"},
        "half of the weights": honest | {"weights": honest["weights"][: len(honest["weights"]) // 2]},
        "no weights": honest | {"weights": b""},
        "a model of another run": honest | {k: foreign[k] for k in ("document", "weights")},
        "a model of another run, announced anew": federation.signed(foreign, run=run.plan().run),
        "another plan": federation.signed(honest, plan="ab" * 32),
        "another roster": federation.signed(honest, roster="ab" * 32),
        "more rounds than it has": federation.signed(honest, rounds=7),
        "drowned populations": facts(plan=drowned),
        "a site that is in no roster": facts(plan=invented),
        "a run without this site": facts(plan=without),
        "another catalogue": facts(plan=recoded),
        "facts of another kind": facts(rounds=-1),
        "which of another kind": facts(which="../../x"),
        "a number that is none": reweighted(nan),
        "another number of parameters": reweighted(save({"item.weight": np.zeros((2, 2), dtype=np.float32)})),
        "a file that is none": reweighted(b"\xff" * 64),
        "a personal model": reweighted(marked),
        "a document that is none": with_document(federation, honest, b"[" * 100_000),
        "a document that is too long": with_document(federation, honest, b"{" + b" " * (1 << 23)),
    }


def test_every_altered_delivery_is_refused_and_nothing_is_kept(federation):
    kit = federation.kits.site(SITES[0])
    before = federation.run(finished=5)
    kept = session.keep(federation.site(), federation.delivery(before))["model"]
    use_model(kit, kept)
    for what, message in altered(federation).items():
        with pytest.raises(FedcartError):
            session.keep(federation.site(), message)
        assert [one.name for one in kept_models(kit)] == [kept], what
        assert model_in_use(kit).name == kept, what
        assert [p.name for p in kit.models.iterdir() if p.is_dir()] == [kept], what


def test_an_older_model_of_a_run_does_not_come_after_a_newer_one(federation):
    run = federation.run(rounds=2)
    older = federation.delivery(run)
    federation.finish(run, 5, 2_000, shift=0.5)
    session.keep(federation.site(), federation.delivery(run))
    with pytest.raises(VerificationError, match="came after one behind 5"):
        session.keep(federation.site(), older)
    federation.finish(run, 5, 2_000, shift=0.7)
    with pytest.raises(VerificationError, match="came after"):
        session.keep(federation.site(), federation.delivery(run))


def test_a_replayed_model_of_an_older_run_is_kept_and_does_not_take_the_place_of_a_newer_one(federation):
    site, kit = federation.site(SITES[1]), federation.kits.site(SITES[1])
    names = [session.keep(site, federation.delivery(federation.run(finished=at)))["model"] for at in (90, 10)]
    for name in names:
        path = kit.models / name / "kept.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"took_part": True}))
    assert model_in_use(kit).name == names[0]


@pytest.mark.parametrize("damage", ["weights", "document", "catalogue", "swapped"])
def test_what_is_changed_in_the_library_later_is_noticed_at_the_latest_when_it_is_opened(federation, damage):
    site, kit = federation.site(SITES[2]), federation.kits.site(SITES[2])
    folder = kit.models / session.keep(site, federation.delivery(federation.run()))["model"]
    other = kit.models / session.keep(site, federation.delivery(federation.run(shift=0.3)))["model"]
    if damage == "weights":
        raw = bytearray((folder / WEIGHTS_FILE).read_bytes())
        raw[-1] ^= 1
        (folder / WEIGHTS_FILE).write_bytes(bytes(raw))
    elif damage == "document":
        text = (folder / METADATA_FILE).read_text()
        (folder / METADATA_FILE).write_text(text.replace('"rounds": 2', '"rounds": 3'))
    elif damage == "catalogue":
        replaced(folder / "catalogue.json")
    else:
        (folder / WEIGHTS_FILE).write_bytes((other / WEIGHTS_FILE).read_bytes())
    with pytest.raises(BadInputError):
        open_model(use_model(kit, folder.name).folder, site=site.name)


def replaced(path: Path) -> None:
    tree = json.loads(path.read_text())
    tree["items"][:2] = tree["items"][1::-1]
    path.write_text(json.dumps(tree))


def test_with_another_catalogue_in_the_kit_no_model_of_this_one_is_taken_and_the_kept_one_keeps_its_own(
    federation,
):
    site, kit = federation.site(SITES[2]), federation.kits.site(SITES[2])
    name = session.keep(site, federation.delivery(federation.run()))["model"]
    text = kit.catalogue.read_text()
    try:
        replaced(kit.catalogue)
        with pytest.raises(FedcartError):
            session.keep(federation.site(SITES[2]), federation.delivery(federation.run()))
        assert open_model(kit.models / name, site=site.name).catalogue is not None
    finally:
        kit.catalogue.write_text(text)
