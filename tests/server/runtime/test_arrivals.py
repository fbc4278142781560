"""The server keeps a site's question until there is an answer, and hands no message to a site that hung up."""

import asyncio
from dataclasses import replace

import server.runtime.arrivals
from common.flower import private
from server.runtime.arrivals import FROM_SITES, TO_SITES, Arrivals, patient, telling


class Mailbox:
    """An ASGI app that says what is in it, empty or not, and remembers what it was asked."""

    def __init__(self) -> None:
        self.letters: list[bytes] = []
        self.asked: list[bytes] = []
        self.status = 200

    async def __call__(self, scope, receive, send) -> None:
        self.asked.append((await receive())["body"])
        body = self.letters.pop(0) if self.letters else b""
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body})


class Caller:
    """A site's side of one request. ``hang_up`` ends it from there."""

    def __init__(self, *parts: bytes) -> None:
        self.sent: list[dict] = []
        self._parts = [
            {"type": "http.request", "body": part, "more_body": i + 1 < len(parts)} for i, part in enumerate(parts)
        ]
        self._gone = asyncio.Event()

    def hang_up(self) -> None:
        self._gone.set()

    async def receive(self) -> dict:
        if self._parts:
            return self._parts.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, part: dict) -> None:
        self.sent.append(part)

    @property
    def body(self) -> bytes:
        return b"".join(part.get("body", b"") for part in self.sent)


def ask(app, caller: Caller, path: str = TO_SITES.waiting, key: bytes = b"") -> asyncio.Task:
    scope = {"type": "http", "path": path, "state": {}, "headers": [(b"flwr-public-key", key)] if key else []}
    return asyncio.ensure_future(app(scope, caller.receive, caller.send))


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_message_that_is_there_is_handed_over_at_once():
    async def story() -> None:
        mailbox, caller = Mailbox(), Caller(b"who ", b"am I")
        mailbox.letters = [b"letter"]
        await ask(patient(mailbox, Arrivals()), caller)
        assert (caller.body, mailbox.asked) == (b"letter", [b"who am I"])

    asyncio.run(story())


def test_an_empty_answer_is_kept_until_a_message_has_come():
    async def story() -> None:
        mailbox, arrivals, caller = Mailbox(), Arrivals(), Caller(b"me")
        asked = ask(patient(mailbox, arrivals), caller)
        await settled()
        assert not caller.sent
        mailbox.letters = [b"letter"]
        arrivals.announced(0)
        await asked
        assert (caller.body, mailbox.asked) == (b"letter", [b"me", b"me"])

    asyncio.run(story())


def test_a_message_for_another_site_wakes_nobody_for_good():
    async def story() -> None:
        mailbox, arrivals, caller = Mailbox(), Arrivals(), Caller(b"me")
        asked = ask(patient(mailbox, arrivals), caller)
        for _ in range(3):
            arrivals.announced(0)
            await asyncio.sleep(0.01)
        assert not caller.sent
        arrivals.end()
        await asked
        assert caller.body == b""

    asyncio.run(story())


def test_a_message_is_not_taken_out_for_a_site_that_hung_up():
    async def story() -> None:
        mailbox, arrivals, caller = Mailbox(), Arrivals(), Caller(b"me")
        asked = ask(patient(mailbox, arrivals), caller)
        await settled()
        caller.hang_up()
        await asked
        mailbox.letters = [b"letter"]
        arrivals.announced(0)
        await asyncio.sleep(0.01)
        assert (mailbox.letters, caller.sent) == ([b"letter"], [])

    asyncio.run(story())


def test_a_site_that_asks_again_has_lost_its_earlier_question_and_no_message_goes_there():
    async def story() -> None:
        mailbox, arrivals = Mailbox(), Arrivals()
        app, before, now, other = patient(mailbox, arrivals), Caller(b"me"), Caller(b"me"), Caller(b"you")
        asked = [ask(app, one, key=key) for one, key in ((other, b"yours"), (before, b"mine"), (now, b"mine"))]
        await settled()
        assert [one.done() for one in asked] == [False, True, False]
        mailbox.letters = [b"for you", b"for me"]
        arrivals.announced(0)
        await asyncio.gather(*asked)
        assert (before.body, {other.body, now.body}) == (b"", {b"for you", b"for me"})
        again = ask(app, Caller(b"me"), key=b"mine")
        await settled()
        assert not again.done()
        arrivals.end()
        await again

    asyncio.run(story())


def test_a_refusal_is_not_kept_back():
    async def story() -> None:
        mailbox, caller = Mailbox(), Caller(b"me")
        mailbox.status = 401
        await ask(patient(mailbox, Arrivals()), caller)
        assert caller.sent[0]["status"] == 401

    asyncio.run(story())


def test_every_other_request_passes_untouched():
    async def story() -> None:
        mailbox, caller = Mailbox(), Caller(b"me")
        await ask(patient(mailbox, Arrivals()), caller, "/v1/fleet/push-object")
        assert (caller.body, len(mailbox.asked)) == (b"", 1)

    asyncio.run(story())


def test_a_question_that_nobody_answers_ends_by_itself():
    async def story() -> None:
        mailbox, caller = Mailbox(), Caller(b"me")
        briefly = Arrivals(replace(TO_SITES, hold_s=0.01))
        await asyncio.wait_for(ask(patient(mailbox, briefly), caller), 5)
        assert caller.body == b""
        assert len(mailbox.asked) == 2

    asyncio.run(story())


def test_sites_are_woken_when_the_last_part_of_the_messages_is_there():
    async def story() -> None:
        arrivals, server, site = Arrivals(), Mailbox(), Mailbox()
        answer = private("PushAppMessagesResponse")(message_ids=["m"], objects_to_push=["a", "b"])
        server.letters = [answer.SerializeToString()]
        app, caller = telling(server, arrivals), Caller(b"me")
        asked = ask(patient(site, arrivals), caller)
        await ask(app, Caller(b""), TO_SITES.messages)
        await ask(app, Caller(b""), TO_SITES.part)
        await settled()
        assert len(site.asked) == 1
        site.letters = [b"letter"]
        await ask(app, Caller(b""), TO_SITES.part)
        await asked
        assert (caller.body, len(site.asked)) == (b"letter", 2)

    asyncio.run(story())


def test_the_server_app_is_kept_until_the_last_part_of_an_answer_is_there_and_looks_up_now_and_then():
    async def story() -> None:
        arrivals, fleet, app = Arrivals(FROM_SITES), Mailbox(), Mailbox()
        answer = private("PushMessagesResponse")(objects_to_push=["a"])
        fleet.letters = [answer.SerializeToString()]
        sites, caller = telling(fleet, arrivals), Caller(b"me")
        asked = ask(patient(app, arrivals), caller, FROM_SITES.waiting)
        await ask(sites, Caller(b""), FROM_SITES.messages)
        await settled()
        assert len(app.asked) == 1
        app.letters = [b"letter"]
        await ask(sites, Caller(b""), FROM_SITES.part)
        await asked
        assert (caller.body, len(app.asked)) == (b"letter", 2)

    asyncio.run(story())
    assert FROM_SITES.hold_s <= 1.0  # or a round's deadline, and a coordinator who stops it, would wait


def test_sites_are_woken_when_the_parts_stop_coming(monkeypatch):
    monkeypatch.setattr(server.runtime.arrivals, "STALLED_S", 0.01)

    async def story() -> None:
        arrivals, site, caller = Arrivals(), Mailbox(), Caller(b"me")
        asked = ask(patient(site, arrivals), caller)
        await settled()
        site.letters = [b"letter"]
        arrivals.announced(2)
        await asyncio.wait_for(asked, 5)
        assert caller.body == b"letter"

    asyncio.run(story())
