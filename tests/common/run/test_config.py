"""Settings: one schema, clear errors, the same text for every party."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.run import RunConfig, build_config, load_config


def test_settings_survive_their_own_toml() -> None:
    config = build_config({}, ["training.rounds=3", "model.encoder=gru", "privacy.epsilon=2.5"])
    assert build_config(tomllib.loads(config.to_toml())) == config


def test_public_settings_hide_paths_and_speed() -> None:
    config = build_config({"data": {"events": "/secret/place.csv"}, "performance": {"workers": 7}})
    public = json.loads(config.public_json())
    assert "data" not in public
    assert "performance" not in public
    assert build_config(public).digest() == config.digest()


def test_order_of_heads_does_not_matter() -> None:
    one = build_config({"model": {"heads": {"next-item": 1.0, "next-event": 0.1}}})
    other = build_config({"model": {"heads": {"next-event": 0.1, "next-item": 1.0}}})
    assert one.digest() == other.digest()
    assert list(one.model.heads) == list(other.model.heads)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.rounds=0", ("training.rounds", "greater than or equal to 1")),
        ("privacy.epsilon=-1", ("privacy.epsilon", "-1")),
        ("privacy.epsilon=nan", ("privacy.epsilon", "finite")),
        ("training.round=3", ("unknown setting: training.round",)),
        ("rounds", ("not KEY=VALUE",)),
        ("name.x=1", ("name",)),
        ("aggregation.threshold=1", ("threshold",)),
        ("model.heads={}", ("at least one head",)),
        ("name=../escape", ("name",)),
    ],
)
def test_impossible_settings_are_named_with_a_hint(override: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({}, [override])
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_unknown_settings_list_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({"training": {"round": 3}})
    assert "rounds" in caught.value.hint


def test_missing_and_malformed_files_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("nonsense = [")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "noise.toml").write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError):
        load_config(tmp_path / "noise.toml")


def test_settings_cannot_be_changed_after_the_start() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 5  # type: ignore[misc]


def test_what_is_declared_constant_is_neither_read_nor_predicted_unless_it_is_named() -> None:
    config = build_config({}, ['features.constant=["price", "event"]'])
    assert config.features.constant == ("event", "price")
    assert not {"event", "price"} & set(config.model.context)
    assert config.model.heads == {"next-item": 1.0}
    named = build_config({"model": {"context": ["price"]}}, ['features.constant=["price"]'])
    assert named.model.context == ("price",)
    assert build_config(config.model_dump(mode="json")) == config


def test_a_declaration_that_comes_later_changes_defaults_only() -> None:
    assert build_config({}).without(("price",)) == build_config({}, ['features.constant=["price"]'])
    own = build_config({"model": {"context": ["price", "gap"], "heads": {"next-item": 1.0, "next-event": 1.0}}})
    assert own.without(("price", "event")).model == own.model


def test_a_feature_that_does_not_exist_cannot_be_declared_constant() -> None:
    with pytest.raises(ConfigError, match="no feature named colour"):
        build_config({}, ['features.constant=["colour"]'])
