"""A recipe is a set of defaults: it fills what is left out, and is numbers once a run is planned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.recipes import RECIPES
from common.run import build_config
from simulations.jobs import new_job


def schedule(*overrides: str, **tree: object) -> tuple[int, int, float]:
    config = build_config(tree, overrides)
    return config.training.rounds, config.training.local_steps, config.privacy.sampling_rate


def test_without_a_word_a_run_is_quick() -> None:
    assert schedule() == schedule(recipe="quick") == (10, 10, 0.1)


def test_what_the_settings_name_comes_before_the_recipe_and_an_override_before_both() -> None:
    assert schedule(recipe="quality") == schedule("recipe=quality") == (200, 1, 0.25)
    assert schedule(recipe="quality", training={"rounds": 3}) == (3, 1, 0.25)
    assert schedule("training.rounds=5", recipe="quality", training={"rounds": 3}) == (5, 1, 0.25)


def test_the_word_is_signed_by_nobody_and_its_numbers_are() -> None:
    by_word, by_number = (
        build_config({}, overrides).public_json()
        for overrides in (
            ["recipe=quality"],
            [
                "training.rounds=200",
                "training.local_steps=1",
                "privacy.sampling_rate=0.25",
                "strategy.name=fedavgm",
                "strategy.learning_rate=0.1",
                "model.item_bias=false",
            ],
        )
    )
    assert by_word == by_number
    assert "recipe" not in json.loads(by_word)


def test_a_plan_that_is_read_again_stays_as_it_is() -> None:
    written = build_config({}, ["recipe=quality", "training.rounds=7"])
    assert build_config(written.model_dump(mode="json")) == written


@pytest.mark.parametrize("name", ["best", "", 3])
def test_an_unknown_recipe_is_refused_with_those_that_there_are(name: object) -> None:
    with pytest.raises(ConfigError, match="no recipe is called") as caught:
        build_config({"recipe": name})
    assert all(known in caught.value.hint for known in RECIPES)


def test_a_recipe_that_somebody_chose_comes_before_the_schedule_of_a_scenario_that_nobody_did() -> None:
    job = new_job(None, {"recipe": "quality"}, out=Path("x"))
    assert job.config.training.rounds == 200
    assert job.notes == ()
    assert new_job(None, {}, out=Path("x")).config.training.rounds == 6


def test_a_named_scenario_comes_before_the_recipe_and_the_run_says_so() -> None:
    job = new_job("marketplace", {"recipe": "quality"}, out=Path("x"))
    assert job.config.training.rounds == 6
    assert "training.rounds, training.local_steps" in job.notes[0]


def test_where_sites_share_noise_a_recipe_is_rounds_of_one_linear_step() -> None:
    for recipe, rounds in (("quick", 40), ("quality", 100)):
        config = build_config({"recipe": recipe, "privacy": {"trust": "quorum"}})
        assert (config.training.rounds, config.training.local_steps, config.training.optimizer) == (
            rounds,
            1,
            "sgd",
        )
        assert (config.strategy.name, config.privacy.sampling_rate, config.model.item_bias) == (
            "scalar-adam",
            0.2,
            False,
        )
    assert schedule(privacy={"trust": "local"}) == schedule()


def test_the_trust_that_is_chosen_comes_before_the_schedule_of_the_scenario_that_nobody_chose(
    tmp_path: Path,
) -> None:
    job = new_job(None, {"privacy.trust": "quorum"}, (), tmp_path / "run")
    assert (job.config.training.rounds, job.config.training.local_steps) == (40, 1)
    with pytest.raises(ConfigError, match="a second step would follow a share"):
        new_job("marketplace", {"privacy.trust": "quorum"}, (), tmp_path / "other")
