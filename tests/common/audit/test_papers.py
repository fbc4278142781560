"""Parts of papers by themselves: what an epsilon means, text that does nothing, YAML that says what it was given."""

import math

import pytest
import yaml
from hypothesis import given, settings, strategies as st
from markdown_it import MarkdownIt

from common.audit.papers.facts import most_found
from common.audit.papers.writing import as_yaml, inert
from common.plain_text import shown


@pytest.mark.parametrize(
    ("epsilon", "found"),
    [
        (0.0, 0.01),
        (1.0, math.e * 0.01),
        (4.0, math.exp(4) * 0.01),
        (8.0, 1 - 0.99 * math.exp(-8)),
        (math.inf, 1.0),
    ],
)
def test_what_a_test_finds_at_most_is_the_corner_of_the_region_that_epsilon_allows(epsilon, found):
    assert most_found(epsilon, 0.0) == pytest.approx(found, rel=1e-12)


def test_delta_adds_to_what_is_found_and_nobody_finds_more_than_all():
    assert most_found(1.0, 1e-3) == pytest.approx(math.e * 0.01 + 1e-3)
    assert most_found(50.0, 0.5) == 1.0
    assert most_found(5_000.0, 1e-5) == 1.0


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab 1.)-+#*_`[](){}<>|!&~$\\\n\t:/=w@\u202e\x1b\u2028"), max_size=30))
def test_text_of_others_is_one_paragraph_of_plain_text(text):
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(inert(text))
    kinds = {one.type for token in tokens for one in (token, *(token.children or ()))}
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}
    plain = "".join(one.content for token in tokens for one in (token.children or ()))
    assert plain == " ".join(shown(text.replace("\n", " ")).split())


@pytest.mark.parametrize("text", ["https://b.c", "see www.b.c now", "HTTP://B.C", "mail a@b.co"])
def test_an_address_does_not_become_a_link_by_itself(text):
    assert "://" not in inert(text).replace("\\://", "")
    assert "www." not in inert(text)
    assert "a@b" not in inert(text)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text(max_size=20), max_size=3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=40),
)
def test_yaml_is_read_as_what_was_written(texts, number, text):
    value = {"list_of": texts, "number": number, "inner": {"text": text, "whole": 3}}
    lines = "\n".join(shown(line).rstrip() for line in text.rstrip("\n").split("\n"))
    read = yaml.safe_load(as_yaml(value))
    assert read["list_of"] == ([shown(one) for one in texts] or None)
    assert read["number"] == number
    assert read["inner"] == {"text": lines if "\n" in text else shown(text), "whole": 3}


def test_yaml_has_no_keys_but_ours():
    with pytest.raises(ValueError, match="no key of ours"):
        as_yaml({"a: b": 1})
