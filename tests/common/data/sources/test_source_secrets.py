"""A password of a source is in no settings, no error and no word; where it may come from is bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.data.sources.opening import open_source
from common.data.sources.secret import Password, password_of
from common.data.sources.uris import PostgresAddress
from common.errors import FedcartError
from common.source_settings import SourceSettings

WORD = "pa ss'w\\ord%"


def settings(**more: Any) -> SourceSettings:
    return SourceSettings.model_validate(
        {"kind": "sql", "uri": "postgresql://reader@127.0.0.1:1/shop", "query": "SELECT 1"} | more
    )


@pytest.mark.parametrize(
    "wrong",
    [{"uri": "postgresql://reader:word@db/shop"}, {"uri": "postgresql://db/shop?password=word"},
     {"password_env": "HOME"}, {"password_env": "AWS_SECRET_ACCESS_KEY"}, {"password_file": "/srv/keys/id_ed25519"},
     {"driver": "/tmp/evil.so"}, {"query": ""}, {"files": {"a": "b"}}],
)  # fmt: skip
def test_settings_that_hold_or_reach_for_a_secret_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_a_file_of_a_password_is_its_owners_alone(tmp_path: Path) -> None:
    told, path = settings(password_file="db.password"), tmp_path / "db.password"
    path.write_text(WORD + "\n")
    path.chmod(0o644)
    with pytest.raises(FedcartError) as caught:
        password_of(told, tmp_path)
    assert WORD not in str(caught.value)
    path.chmod(0o600)
    found = password_of(told, tmp_path)
    assert found is not None and found.text == WORD
    assert WORD not in f"{found!r} {found}"


def test_a_variable_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDCART_SOURCE_SHOP", raising=False)
    with pytest.raises(FedcartError, match="FEDCART_SOURCE_SHOP is not set"):
        open_source(settings(password_env="FEDCART_SOURCE_SHOP"), tmp_path)


def test_words_of_a_library_lose_the_password_in_every_form() -> None:
    words = "cannot: password='pa ss\\'w\\\\ord%' uri pa%20ss%27w%5Cord%25 pa ss'w\\ord%"
    assert Password(WORD).hidden(words).count("(hidden)") == 3


def test_a_server_that_cannot_be_reached_is_refused_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("adbc_driver_postgresql", reason="the extra sql is not installed")
    monkeypatch.setenv("FEDCART_SOURCE_SHOP", WORD)
    source = open_source(settings(password_env="FEDCART_SOURCE_SHOP"), tmp_path)
    with pytest.raises(FedcartError, match="cannot be opened") as caught:
        next(iter(source.batches()))
    assert WORD not in f"{caught.value} {caught.value.hint} {source!r}"


def test_a_server_elsewhere_must_prove_who_it_is_and_gets_no_word_in_clear() -> None:
    address = PostgresAddress.of("postgresql://reader@db.example.org/shop")
    info = address.conninfo(Password("word"))
    assert "sslmode='verify-full'" in info and "require_auth='scram-sha-256'" in info
    assert "default_transaction_read_only=on" in info
    assert "word" not in address.shown
