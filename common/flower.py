"""Every private import of Flower, nowhere else: 1.41 moved its modules, so one file knows where they are.

A test imports each name, so an upgrade of Flower that moves one fails here and not in a run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.serde import (
    context_from_proto,
    context_to_proto,
    message_from_proto,
    message_to_proto,
    recorddict_from_proto,
    recorddict_to_proto,
)
from flwr.proto.message_pb2 import Context as ProtoContext, Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.errors import WorkFailedError

SERVER_NODE_ID = 1
BODY = "body"
FIRST_RETRY_S = 0.05

# Flower's private names and where 1.41 keeps them; imported only by the process that needs them.
PRIVATE = {
    "AcquireTaskRequest": "flwr.proto.runtime_pb2",
    "ControlHttpClient": "flwr.supercore.control",
    "DeactivateNodeRequest": "flwr.proto.fleet_pb2",
    "Error": "flwr.app",
    "Fab": "flwr.supercore.fab",
    "FleetHttpClient": "flwr.supernode.fleet_http_client",
    "ListNodesRequest": "flwr.proto.control_pb2",
    "ListRunsRequest": "flwr.proto.control_pb2",
    "NodeAuthHttpInterceptor": "flwr.supernode.node_auth_http_interceptor",
    "NodeStateFactory": "flwr.supernode.nodestate",
    "ObjectStoreFactory": "flwr.supercore.object_store",
    "PushAppMessagesResponse": "flwr.proto.runtime_pb2",
    "PushMessagesRequest": "flwr.proto.fleet_pb2",
    "PushMessagesResponse": "flwr.proto.fleet_pb2",
    "RegisterNodeRequest": "flwr.proto.control_pb2",
    "RunNotRunningException": "flwr.supercore.run",
    "RuntimeHttpClient": "flwr.supercore.runtime",
    "RuntimeVersionHttpInterceptor": "flwr.supercore.interceptors",
    "StartRunRequest": "flwr.proto.control_pb2",
    "StopRunRequest": "flwr.proto.control_pb2",
    "SuperExecAuthHttpInterceptor": "flwr.supercore.interceptors",
    "Status": "flwr.common.constant",
    "SubStatus": "flwr.common.constant",
    "TIMESTAMP_HEADER": "flwr.common.constant",
    "TaskType": "flwr.supercore.constant",
    "TransportError": "httpx",
    "UnregisterNodeRequest": "flwr.proto.control_pb2",
    "add_exit_handler": "flwr.supercore.exit",
    "build_fab_from_files": "flwr.cli.build",
    "bytes_to_public_key": "flwr.supercore.primitives.asymmetric",
    "disable_process_dumping": "flwr.supercore.utils",
    "fab_to_proto": "flwr.common.serde",
    "no_object_id_recompute": "flwr.supercore.inflatable.inflatable_object",
    "pull_objects": "flwr.supercore.inflatable.inflatable_utils",
    "get_all_nested_objects": "flwr.supercore.inflatable.inflatable_object",
    "get_fab_metadata": "flwr.cli.config_utils",
    "get_object_tree": "flwr.supercore.inflatable.inflatable_object",
    "inflate_object_from_contents": "flwr.supercore.inflatable.inflatable_utils",
    "iterate_object_tree": "flwr.supercore.inflatable.inflatable_object",
    "make_simple_http_retry_invoker": "flwr.supercore.retry",
    "mirror_output_to_queue": "flwr.supercore.logger",
    "restore_output": "flwr.supercore.logger",
    "run_serverapp": "flwr.superlink.runtime",
    "user_config_to_proto": "flwr.common.serde",
    "verify_signature": "flwr.supercore.primitives.asymmetric",
}
PRIVATE_MODULES = {
    "flower_superlink": "flwr.superlink.cli.flower_superlink",
    "start_client_internal": "flwr.supernode.start_client_internal",
}


Parts = Mapping[str, bytes | str | int]


def private(name: str) -> Any:
    """A private name of Flower from the tables above, imported now. Raises: KeyError for a name not listed."""
    if name in PRIVATE_MODULES:
        return import_module(PRIVATE_MODULES[name])
    return getattr(import_module(PRIVATE[name]), name)


def transport_errors() -> tuple[type[Exception], ...]:
    """What Flower's grid raises while its server does not answer. Made only where one is caught: it costs an import."""
    of_http: type[Exception] = private("TransportError")
    return of_http, ConnectionError, TimeoutError


# What we replace inside Flower's modules, one function each (``replaces``), and the parameters we count on.
PATCHED: dict[tuple[str, str], tuple[str, ...]] = {
    ("pull_objects", ""): (
        "object_ids", "pull_object_fn", "max_concurrent_pulls", "max_time", "max_tries_per_object",
        "initial_backoff", "backoff_cap",
    ),
    ("start_client_internal", "time.sleep"): (),
    ("start_client_internal", "_push_messages"): ("state", "object_store", "send", "push_object"),
    ("start_client_internal", "http_request_response"): (
        "server_address", "insecure", "root_certificates", "authentication_keys", "max_retries", "max_wait_time",
    ),
    ("flower_superlink", "uvicorn.run"): ("app",),
}  # fmt: skip


def patched(name: str, attribute: str) -> Any:
    """What ``PATCHED`` says is replaced, as it is now. Raises: WorkFailedError if this Flower has it otherwise."""
    target = private(name)
    for part in attribute.split(".") if attribute else ():
        target = getattr(target, part, None)
    expected = PATCHED[name, attribute]
    try:
        actual = tuple(inspect.signature(target).parameters)[: len(expected)] if expected else ()
    except (TypeError, ValueError):
        actual = ("nothing that can be called",)
    if actual != expected or not callable(target):
        raise WorkFailedError(
            f"this Flower has another {name} {attribute}: {', '.join(actual)}",
            hint="install a version that fedcart supports: pip install 'flwr>=1.41,<1.43'",
        )
    return target


def retry_pulls_quickly() -> None:
    """Ask again soon for a part of a message that is still on its way: Flower waits a second, ten times a round."""
    patched("pull_objects", "").__kwdefaults__["initial_backoff"] = FIRST_RETRY_S


def set_task_identity(run_id: int, node_id: int = SERVER_NODE_ID, task_id: int = 0) -> None:
    """Give this process the identity that ``Message(...)`` needs outside Flower's own runtimes."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = task_id


def instruction(node_id: int, message_type: str, parts: Parts, group: str) -> Message:
    """A message for one node whose body is named bytes, strings and integers; ``group`` names the round."""
    return Message(content=body(parts), dst_node_id=node_id, message_type=message_type, group_id=group)


def reply(message: Message, parts: Parts) -> Message:
    """The answer of a node."""
    return Message(content=body(parts), reply_to=message)


def body(parts: Parts) -> RecordDict:
    """A ``RecordDict`` with one record of named values."""
    return RecordDict({BODY: ConfigRecord(dict(parts))})


def parts_of(content: RecordDict) -> dict[str, Any]:
    """Inverse of ``body``; empty if the record is not there."""
    return dict(content.config_records.get(BODY, {}))


def payload_bytes(parts: Parts) -> int:
    """Size in bytes of what a body carries: names and values; counted without serialising a model again."""
    return sum(len(name) + (len(value) if isinstance(value, bytes | str) else 8) for name, value in parts.items())


def message_bytes(message: Message) -> bytes:
    """Serialised message, as it would go over the network (honest byte counts, no shared records)."""
    data: bytes = message_to_proto(message).SerializeToString()
    return data


def message_from(data: bytes) -> Message:
    """Inverse of ``message_bytes``."""
    return message_from_proto(ProtoMessage.FromString(data))


def take_out(message: Message, least: int) -> dict[str, bytes]:
    """Take the values of at least so many bytes out of a message's body: they travel beside it. Inverse: ``put_in``."""
    record = message.content.config_records.get(BODY) if message.has_content() else None
    large = {n: v for n, v in (record or {}).items() if isinstance(v, bytes) and len(v) >= least}
    for name in large:
        assert record is not None
        del record[name]
    return large


def put_in(message: Message, large: Mapping[str, bytes]) -> Message:
    """Put the values back that ``take_out`` has taken."""
    for name, value in large.items():
        message.content.config_records[BODY][name] = value
    return message


def with_message_id(message: Message, message_id: str) -> Message:
    """Stamp the id that a SuperLink would give."""
    message.metadata.__dict__["_message_id"] = message_id
    return message


def header_only(message: Message) -> Message:
    """The message without its content: enough to build an error reply, without keeping the model alive."""
    return make_message(message.metadata, content=RecordDict())


def error_reply(message: Message, code: int, reason: str) -> Message:
    """The reply of a node that could not answer."""
    return Message(error=Error(code=code, reason=reason), reply_to=message)


def state_bytes(context: Context) -> bytes:
    """Serialised ``context.state``."""
    data: bytes = recorddict_to_proto(context.state).SerializeToString()
    return data


def restore_state(context: Context, data: bytes) -> None:
    """Inverse of ``state_bytes``."""
    context.state = recorddict_from_proto(ProtoRecordDict.FromString(data))


def context_bytes(context: Context) -> bytes:
    """A whole context, serialised."""
    data: bytes = context_to_proto(context).SerializeToString()
    return data


def context_from(data: bytes) -> Context:
    """Inverse of ``context_bytes``."""
    return context_from_proto(ProtoContext.FromString(data))


def new_context(run_id: int, node_id: int, node_config: dict[str, Any], run_config: dict[str, Any]) -> Context:
    """A fresh ``Context`` with empty state."""
    return Context(run_id, node_id, dict(node_config), RecordDict(), dict(run_config))


__all__ = [
    "Context",
    "Message",
    "Metadata",
    "Parts",
    "RecordDict",
    "body",
    "context_bytes",
    "context_from",
    "error_reply",
    "header_only",
    "instruction",
    "message_bytes",
    "message_from",
    "new_context",
    "parts_of",
    "payload_bytes",
    "private",
    "put_in",
    "reply",
    "restore_state",
    "retry_pulls_quickly",
    "set_task_identity",
    "state_bytes",
    "take_out",
    "with_message_id",
]
