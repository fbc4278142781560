"""A server app and a client app that only prove the runtime: five exchanges, what each site said, how long."""

import json
import os
import secrets
import sys
import time
from pathlib import Path

from flwr.app import ConfigRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid, context):
    started = time.time()
    kit = Path(os.environ["FEDCART_COORDINATOR"])
    nodes = json.loads((kit / "state/nodes.json").read_text())
    exchanges = []
    for number in range(int(os.environ.get("TRIVIAL_EXCHANGES", "5"))):
        began = time.time()
        body = {"number": number}
        from flwr.app import Message

        kind = "query.fail" if context.run_config["run"].startswith("fail") else "query.ping"
        sent = list(
            grid.push_messages(
                [Message(RecordDict({"b": ConfigRecord(body)}), node, kind) for node in nodes.values()]
            )
        )
        answers, open_ids = [], set(sent)
        while open_ids and time.time() - began < float(os.environ.get("TRIVIAL_DEADLINE", "30")):
            for reply in grid.pull_messages(list(open_ids)):
                open_ids.discard(reply.metadata.reply_to_message_id)
                if reply.has_error():
                    answers.append({"error": reply.error.code, "reason": reply.error.reason})
                else:
                    answers.append(dict(reply.content["b"]))
            time.sleep(0.05)
        exchanges.append({"seconds": time.time() - began, "answers": answers, "lost": len(open_ids)})
    name = context.run_config["run"]
    out = kit / "runs" / f"{name}.json"
    temporary = out.with_suffix(".tmp")
    temporary.write_text(json.dumps({"started": started, "exchanges": exchanges}))
    temporary.rename(out)


@client.query("ping")
def ping(message, context):
    from flwr.app import Message

    count = context.state["n"]["n"] + 1 if "n" in context.state else 1
    context.state["n"] = ConfigRecord({"n": count})
    body = {
        "site": Path(os.environ["FEDCART_SITE"]).name,
        "pid": os.getpid(),
        "count": count,
        "torch": "torch" in sys.modules,
        "random": secrets.token_hex(8),
        "config": json.dumps(dict(context.run_config)),
        "path": json.dumps(sys.path[:2]),
    }
    return Message(RecordDict({"b": ConfigRecord(body)}), reply_to=message)


@client.query("fail")
def fail(message, context):
    raise ValueError("consumer 4711 of /data/secret.csv bought 3 items")
