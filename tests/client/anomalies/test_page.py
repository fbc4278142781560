"""The page of review: for this machine and whoever has the key; nothing of others acts on it; verdicts reach the book."""

import asyncio
import re

import httpx
import pytest

from client.anomalies.evidence import Verdict
from client.anomalies.page import COOKIE, derived, review_app
from client.anomalies.verdicts import VerdictBook
from tests.review_samples import HOSTILE, fill

TOKEN = "the-key-of-the-address"
CSRF = derived(TOKEN, "forms")
HERE = "http://127.0.0.1:8080"


def ask(home, *requests, cookie=True, peer="127.0.0.1", base=HERE, headers=None):
    """Answers to (method, path, fields) by one browser."""

    async def all_of_them():
        app = review_app(home, TOKEN, lambda name: [1003] if name == "c17" else [])
        transport = httpx.ASGITransport(app, client=(peer, 5))
        cookies = {COOKIE: derived(TOKEN, "session")} if cookie else {}
        async with httpx.AsyncClient(
            transport=transport, base_url=base, cookies=cookies, headers=headers
        ) as client:
            return [await client.request(m, p, data=d) for m, p, d in requests]

    answers = asyncio.run(all_of_them())
    return answers[0] if len(answers) == 1 else answers


def get(home, path="/", **more):
    return ask(home, ("GET", path, None), **more)


def post(home, path, fields, **more):
    return ask(home, ("POST", path, fields), **more)


@pytest.fixture
def home(tmp_path):
    fill(tmp_path)
    return tmp_path


def ids(page):
    return re.findall(r'<article class="alarm[^"]*" id="a-([0-9a-f]+)"', page.text)


def test_without_the_cookie_there_is_nothing_but_the_door(home):
    for path in ("/", "/alarm/000000000001"):
        answer = get(home, path, cookie=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/enter")
    said = post(home, "/alarm/000000000001", {"csrf": CSRF, "verdict": "yes"}, cookie=False)
    assert said.status_code == 403
    assert VerdictBook(home).said() == []


def test_the_key_is_changed_for_a_cookie_that_is_not_the_key(home):
    wrong, right = (post(home, "/enter", {"token": t}, cookie=False) for t in ("guess", TOKEN))
    assert wrong.status_code == 403 and "set-cookie" not in wrong.headers
    assert right.status_code == 303
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and TOKEN not in cookie
    assert TOKEN not in get(home).text


def test_other_machines_and_other_names_of_this_one_get_nothing(home):
    assert get(home, peer="192.0.2.7").status_code == 403
    assert get(home, base="http://shop.example:8080").status_code == 403  # a name that was bent to loopback
    assert get(home, base="http://localhost:8080").status_code == 200
    assert get(home, base="http://[::1]:8080", peer="::1").status_code == 200


def test_a_form_of_another_page_says_nothing(home):
    for fields, headers in (
        ({"verdict": "yes"}, None),
        ({"verdict": "yes", "csrf": "guess"}, None),
        ({"verdict": "yes", "csrf": CSRF}, {"origin": "http://evil.example"}),
        ({"verdict": "yes", "csrf": CSRF}, {"origin": "null"}),
        ({"verdict": "yes", "csrf": CSRF, "much": "x" * 5_000}, None),
    ):
        assert post(home, "/alarm/000000000001", fields, headers=headers).status_code == 403
    assert post(home, "/alarm/000000000001", {"verdict": "maybe", "csrf": CSRF}).status_code == 400
    assert VerdictBook(home).said() == []


def test_every_answer_carries_a_strict_policy_and_pages_have_nothing_inline(home):
    for path in ("/", "/enter", "/alarm/000000000001", "/style.css", "/review.js", "/nothing"):
        answer = get(home, path)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script>|<style>| style=| on\w+=|https?://", answer.text) or path == "/nothing"


def test_hostile_names_are_words_and_nothing_else(tmp_path):
    fill(tmp_path, 2, HOSTILE)
    for path in ("/?state=all&who=%3Cscript%3E", "/", "/alarm/000000000001", "/?at=%22%3E%3Cscript%3E"):
        page = get(tmp_path, path).text
        assert "<script>alert" not in page and '"onmouseover="' not in page and "\u202e" not in page
    assert "&lt;script&gt;" in get(tmp_path, "/alarm/000000000001").text


def test_a_verdict_reaches_the_book_and_can_be_undone(home):
    path = "/alarm/000000000003"
    answer = post(home, path, {"csrf": CSRF, "verdict": "yes", "back": "alarm"})
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    post(home, path, {"csrf": CSRF, "verdict": "no"})
    assert [(one.alarm, one.anomaly) for one in VerdictBook(home).said()] == [
        ("000000000003", True),
        ("000000000003", False),
    ]
    shown = get(home, path).text
    assert "✗ ordinary" in shown and shown.count(" UTC: ") == 2
    post(home, path, {"csrf": CSRF, "verdict": "undo"})
    assert [one.anomaly for one in VerdictBook(home).standing()] == [True]
    assert post(home, "/alarm/ffff", {"csrf": CSRF, "verdict": "yes"}).status_code == 404
    assert get(home, "/alarm/ffff").status_code == 404


def test_after_a_verdict_in_the_list_the_next_alarm_is_in_focus(home):
    order = ids(get(home))
    answer = post(home, f"/alarm/{order[2]}", {"csrf": CSRF, "verdict": "no", "back": "state=open"})
    assert answer.headers["location"] == f"/?state=open&page=1&at={order[3]}"
    page = get(home, answer.headers["location"])
    assert re.search(rf'href="/alarm/{order[3]}" autofocus', page.text)
    assert ids(page) == [one for one in order if one != order[2]]


@pytest.mark.parametrize(
    ("query", "found"),
    [("", 7), ("state=judged", 1), ("state=all", 8), ("state=all&kind=bot", 2), ("state=all&days=1", 2),
     ("state=all&who=00000000000003e8", 2), ("state=all&who=c17", 2), ("state=all&who=ffff", 0),
     ("state=nonsense&kind=%3Cb%3E&page=-7&days=x", 7)],
)  # fmt: skip
def test_alarms_are_filtered(home, query, found):
    VerdictBook(home).say([Verdict(1001, True, 2.3, 1.0, 5, "000000000003")])
    page = get(home, f"/?{query}")
    assert (page.status_code, len(ids(page))) == (200, found)


def test_figures_have_bars_and_the_way_of_the_threshold_is_drawn(home):
    VerdictBook(home).say([Verdict(n, n % 3 == 0, 1.5, 1.0, 5, f"x{n}") for n in range(30)])
    page = get(home).text
    assert 'aria-label="95 % interval' in page
    assert "how the threshold moved" in page
    assert "30 verdicts on 30 consumers move the threshold by +" in page
    few = get(home / "none").text
    assert "0 open alarms" in few and "No alarm yet" in few


def test_an_alarm_shows_its_events_as_a_picture_and_its_reasons(home):
    page = get(home, "/alarm/000000000001").text
    assert page.count('class="mark view"') == 6
    assert "2 s later" in page and "3 Jul 2024" not in page
    assert "none of the reference has this or more" in page.lower()
    assert "Looks like an account takeover" in page


def test_a_damaged_book_is_told_with_what_to_do(home):
    with (home / "verdicts.jsonl").open("a") as file:
        file.write("no verdict\n")
    answer = get(home)
    assert answer.status_code == 500
    assert re.search(r"error: .*verdicts.jsonl, line \d+ is damaged\nhint: restore it", answer.text)
