"""``fedcart personalize`` at a site: the verdict, the marked file, and the commands that use it."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

import cli.main as front
import client.personal.behaviour as behaviour
from client.personal.file import PERSONAL_FILE, load_personal, personal_folder
from client.scoring.model import open_model
from common.data import catalogue_from_events
from common.errors import BadInputError
from common.kit_files import require_known_files
from common.model_files import METADATA_FILE, WEIGHTS_FILE, is_personal
from common.run import RunFolder
from server.delivery import Courier
from server.exchange import Exchange
from simulations.synthetic import SyntheticSpec, generate
from tests.delivered_models import SITES, make_federation
from tests.scoring_samples import config_of, original_name, write_events, write_model_folder

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop's log, and a shared model that learnt from another one of the same market."""
    folder = tmp_path_factory.mktemp("shop")
    market = generate(SyntheticSpec(sites=1, consumers=500, items=40, categories=6, tastes=4), seed=8)
    config = config_of(privacy={"enabled": False, "holdout": 0.2})
    catalogue = catalogue_from_events(market.log, with_stock=False)
    write_model_folder(folder / "model", config, catalogue, market.log, steps=60)
    events = write_events(market.log, folder / "shop.csv")
    return folder, events, market


@pytest.fixture(scope="module")
def personalized(shop):
    folder, events, market = shop
    assert front.main(["personalize", str(folder / "model"), str(events), "--state", str(folder / "state")]) == 0
    return folder, events, market


def asked(capsys, *arguments: object) -> dict:
    capsys.readouterr()
    assert front.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_verdict_is_printed_and_written_and_the_file_is_marked(personalized):
    folder, _, _ = personalized
    home = personal_folder(folder / "state", folder / "model")
    path = home / PERSONAL_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_personal(path.read_bytes())
    verdict = json.loads((home / "verdict.json").read_text())
    assert next(one["metric"] for one in verdict["verdicts"]) in ("recall@20", "intent_auc")
    assert {"recall@20", "event_accuracy", "category_accuracy", "intent_auc"} <= {
        one["metric"] for one in verdict["verdicts"]
    }
    assert "joining brings you" in verdict["verdicts"][0]["words"]
    assert "joining brings you" in (home / "verdict.html").read_text()


def test_the_personal_model_answers_everywhere_unless_the_shared_one_is_asked(personalized, capsys):
    folder, events, market = personalized
    at = (folder / "model", events, "--state", folder / "state")
    mine, theirs = (asked(capsys, "predict", *at, *more) for more in ((), ("--shared",)))
    assert mine["predictions"] != theirs["predictions"]
    intents = [
        asked(capsys, "predict", *at, "--task", "intent", *more)["predictions"] for more in ((), ("--shared",))
    ]
    # own trees serve intent only where they win: the same people are answered for, in either way
    assert [line["consumer"] for line in intents[0]] == [line["consumer"] for line in intents[1]]
    scores = [asked(capsys, "detect", *at, *more)["scores"] for more in ((), ("--shared",))]
    assert scores[0] != scores[1]
    who = original_name(int(market.log.consumers[0]))
    explained = [asked(capsys, "explain", who, *at, *more)["score"] for more in ((), ("--shared",))]
    assert all(
        isinstance(score, float) for score in explained
    )  # equal where the shared network won, with own counts


def test_a_stream_scores_as_the_whole_log_does_under_the_personal_model(personalized):
    import numpy as np

    from client.anomalies.likelihood import surprise
    from client.scoring.stream import StreamScorer

    folder, _, market = personalized
    own = personal_folder(folder / "state", folder / "model") / PERSONAL_FILE
    shared = open_model(folder / "model", personal=own)
    sequences = shared.sequences(market.log, max_events=400).take(np.arange(6))
    found = surprise(shared, sequences)
    scorer = StreamScorer(shared)
    from client.scoring.stream import StreamEvent

    for row in range(6):
        for place in range(int(sequences.offsets[row]), int(sequences.offsets[row + 1])):
            features = {n: int(sequences.column(n)[place]) for n in shared.spec.sizes}
            event = StreamEvent(row, int(sequences.timestamps[place]), features)
            got = scorer.push(event)
            if got.position:
                said = [got.nats[head] for head in found.heads]
                assert np.allclose(said, found.nats[place], atol=2e-3, equal_nan=True)


def test_a_personal_model_on_top_of_another_shared_one_is_not_used(personalized, tmp_path):
    folder, _events, _market = personalized
    own = personal_folder(folder / "state", folder / "model") / PERSONAL_FILE
    other = generate(SyntheticSpec(sites=1, consumers=100, items=30, categories=6, tastes=4), seed=2)
    write_model_folder(tmp_path / "other", config_of(), catalogue_from_events(other.log, with_stock=False))
    with pytest.raises(BadInputError, match="another"):
        open_model(tmp_path / "other", personal=own)
    damaged = tmp_path / PERSONAL_FILE
    damaged.write_bytes(own.read_bytes()[:-40])
    with pytest.raises(BadInputError, match="not a usable personal model"):
        open_model(folder / "model", personal=damaged)
    assert load_personal(own).personal.base


def test_an_interrupted_run_leaves_what_was_there(personalized, monkeypatch, capsys):
    folder, events, _ = personalized
    home = personal_folder(folder / "state", folder / "model")
    before = {path.name: path.read_bytes() for path in home.iterdir()}

    def cut_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(behaviour.tuning, "tuned", cut_off)
    assert front.main(["personalize", str(folder / "model"), str(events), "--state", str(folder / "state")]) == 130
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before


def sends(folder: Path, model: Path) -> dict[str, list[str]]:
    """Commands that would hand a model on."""
    out = str(folder / "out")
    return {
        "a run that begins with it": ["simulate", "--set", f"start_from={model}", "--rounds", "1", "--out", out],
        "an export": ["export", str(model), out],
        "a prediction from a folder": ["predict", str(model), str(folder / "shop.csv")],
    }


@pytest.mark.parametrize("what", ["a run that begins with it", "an export", "a prediction from a folder"])
@pytest.mark.parametrize("name", ["as it is", "renamed"])
def test_nothing_that_sends_takes_a_personal_model(personalized, tmp_path, what, name, capsys):
    folder, events, _ = personalized
    own = personal_folder(folder / "state", folder / "model") / PERSONAL_FILE
    shutil.copytree(folder / "model", tmp_path / "model")
    shutil.copy(events, tmp_path / "shop.csv")
    target = tmp_path / "model"
    if name == "renamed":
        shutil.copy(own, target / WEIGHTS_FILE)
    else:
        shutil.copy(own, tmp_path / PERSONAL_FILE)
        target = tmp_path / PERSONAL_FILE
        shutil.copy(folder / "model" / METADATA_FILE, tmp_path)
        shutil.copy(own, tmp_path / WEIGHTS_FILE)
    capsys.readouterr()
    assert front.main(sends(tmp_path, target)[what]) == 2
    assert "never leaves" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_coordinator_delivers_no_personal_model(personalized, tmp_path):
    folder, _, _ = personalized
    own = personal_folder(folder / "state", folder / "model") / PERSONAL_FILE
    federation = make_federation(tmp_path / "f")
    run = federation.run()
    shutil.copy(own, run.path / WEIGHTS_FILE)
    courier = Courier(Exchange(None, dict.fromkeys(SITES, 1)), federation.identity, run.roster())  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="never leaves"):
        courier.deliver(RunFolder(run.path), SITES)


def test_at_a_kit_the_personal_model_lies_in_the_state_and_belongs_there(tmp_path, capsys):
    from client import session
    from client.library import use_model

    federation = make_federation(tmp_path / "f")
    kit = federation.kits.site(SITES[0])
    use_model(kit, session.keep(federation.site(), federation.delivery(federation.run()))["model"])
    code = front.main(["personalize", str(kit.path), str(federation.events())])
    said = capsys.readouterr()
    assert code in (0, 2), said.err
    if code == 0:
        assert list(kit.state.glob("personal/*/personal.safetensors"))
        require_known_files(kit)
    else:
        assert "too few" in said.err
