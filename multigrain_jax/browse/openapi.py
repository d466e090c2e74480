"""The description of the API that /openapi.json has, and that /docs shows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

PHOTO = {
    "image/*": {"schema": {"type": "string", "format": "binary"}},
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"file": {"type": "string", "format": "binary"}},
            "required": ["file"],
        }
    },
}
NUMBERS = {"type": "array", "items": {"type": "number"}}
NEIGHBOUR = {
    "type": "object",
    "properties": {
        "row": {"type": "integer"},
        "path": {"type": "string"},
        "similarity": {"type": "number"},
    },
}
ERROR = {"type": "object", "properties": {"error": {"type": "string"}}}
# Status -> when it is the answer.
REFUSALS: Mapping[str, str] = {
    "400": "A request that cannot be understood.",
    "401": "A token is needed, and was not sent.",
    "403": "A request of another site's page, or to another name.",
    "404": "There is no such photo; of photos a grey picture that says so.",
    "408": "The photo did not come in time.",
    "413": "More than 50 MiB.",
    "422": "No photo that can be read.",
    "503": "The queue is full: Retry-After says when to come again.",
}


class Operation(NamedTuple):
    """One line of the table below.

    Attributes:
        method: in lower case.
        path: as OpenAPI writes it.
        summary: what it does, in a line.
        query: parameters -> (type, what they mean).
        body: media types -> their schemas; None: no body.
        answer: media type -> its schema.
        refusals: of `REFUSALS`.
    """

    method: str
    path: str
    summary: str
    query: Mapping[str, tuple[str, str]]
    body: Mapping[str, Any] | None
    answer: Mapping[str, Any]
    refusals: Sequence[str]


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {"application/json": {"schema": schema}}


STRING, INTEGER, NUMBER, BOOLEAN = (
    {"type": kind} for kind in ("string", "integer", "number", "boolean")
)
CLASSES = {
    "type": "array",
    "items": {"type": "object", "properties": {"name": STRING, "probability": NUMBER}},
}
STATUS = _object({"state": STRING, "progress": NUMBER, "allow_moves": BOOLEAN})
MARKS = _object({"marks": {"type": "object", "additionalProperties": STRING}})
PROBLEMS = {
    "type": "array",
    "items": {"type": "object", "properties": {"row": INTEGER, "reason": STRING}},
}
GROUP = {
    "type": "object",
    "properties": {
        "number": INTEGER,
        "num_photos": INTEGER,
        "photos": {"type": "array", "items": NEIGHBOUR},
        "lowest": NUMBER,
        "num_compared": INTEGER,
        "same_bytes": BOOLEAN,
        "suggested": INTEGER,
    },
}
UPLOAD_REFUSALS = ("400", "401", "403", "408", "413", "422", "503")
PART = {
    "folder": ("string", "only photos of this folder of the collection"),
    "class": ("string", "only photos whose folder has this name"),
}
OPERATIONS: list[Operation] = [
    Operation(
        "post",
        "/api/embed",
        "The descriptor of a photo, and its logits where the checkpoint has classes.",
        {},
        PHOTO,
        _object({"descriptor": NUMBERS, "logits": NUMBERS, "classes": CLASSES}),
        UPLOAD_REFUSALS,
    ),
    Operation(
        "post",
        "/api/search",
        "The most similar photos of the collection to a photo, a descriptor, or one "
        "of its own photos.",
        {
            "num_neighbours": ("integer", "how many, 10 if not said, 1000 at most"),
            **PART,
        },
        {**PHOTO, **_object({"descriptor": NUMBERS, "row": INTEGER})},
        _object(
            {
                "neighbours": {"type": "array", "items": NEIGHBOUR},
                "num_photos": INTEGER,
                "search_seconds": NUMBER,
            }
        ),
        (*UPLOAD_REFUSALS, "404"),
    ),
    Operation(
        "get",
        "/api/photo/{row}",
        "A photo of the collection, in a format that browsers show.",
        {},
        None,
        {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        ("401", "403", "404", "422"),
    ),
    Operation(
        "get",
        "/api/thumbnail/{row}",
        "The same as a JPEG file of at most 320 pixels.",
        {},
        None,
        {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
        ("401", "403", "404", "422"),
    ),
    Operation(
        "get",
        "/api/info",
        "What the collection has: folders, classes, where the same photo begins.",
        {},
        None,
        _object({"num_photos": INTEGER, "threshold": NUMBER}),
        ("401", "403"),
    ),
    Operation(
        "get",
        "/api/collection",
        "Photos of the collection, by their folders and names.",
        {
            "first": ("integer", "from which on"),
            "count": ("integer", "how many, 500 if not said, 2000 at most"),
            **PART,
        },
        None,
        _object(
            {"num_photos": INTEGER, "photos": {"type": "array", "items": NEIGHBOUR}}
        ),
        ("400", "401", "403"),
    ),
    Operation(
        "get",
        "/api/duplicates",
        "How far the search for duplicates is, and whether files may be moved.",
        {},
        None,
        STATUS,
        ("401", "403"),
    ),
    Operation(
        "post",
        "/api/duplicates",
        "Begins the search for duplicates, once.",
        {},
        None,
        STATUS,
        ("401", "403"),
    ),
    Operation(
        "get",
        "/api/groups",
        "Groups of duplicates, the largest first.",
        {
            "threshold": ("number", "least similarity, 0.9 if not said"),
            "linkage": ("string", "single, what pairs connect, or complete"),
            "kind": ("string", "similar photos, or files of the same bytes: exact"),
            "first": ("integer", "from which group on"),
            "count": ("integer", "how many, 20 if not said, 100 at most"),
        },
        None,
        _object({"num_groups": INTEGER, "groups": {"type": "array", "items": GROUP}}),
        ("400", "401", "403"),
    ),
    Operation("get", "/api/marks", "Every mark.", {}, None, MARKS, ("401", "403")),
    Operation(
        "post",
        "/api/marks",
        "Marks photos as keep or away, or with null as neither.",
        {},
        MARKS,
        MARKS,
        ("400", "401", "403", "404"),
    ),
    Operation(
        "post",
        "/api/marks/undo",
        "Takes the last step of marking back.",
        {},
        None,
        MARKS,
        ("401", "403"),
    ),
    Operation(
        "post",
        "/api/rules",
        "Marks all groups by a rule: keep_folder, keep_suggested or clear.",
        {},
        _object(
            {
                "rule": STRING,
                "folder": STRING,
                "threshold": NUMBER,
                "linkage": STRING,
                "kind": STRING,
            }
        ),
        MARKS,
        ("400", "401", "403", "404"),
    ),
    Operation(
        "get",
        "/api/export",
        "What is marked as CSV, or the paths of what is marked to go.",
        {"format": ("string", "csv, paths, or paths0: a zero byte behind each")},
        None,
        {"text/csv": {"schema": STRING}, "text/plain": {"schema": STRING}},
        ("400", "401", "403"),
    ),
    Operation(
        "post",
        "/api/trash",
        "Moves files that are marked to go, and have not changed, to the trash.",
        {},
        _object({"rows": {"type": "array", "items": INTEGER}}),
        _object({"moved": {"type": "array", "items": INTEGER}, "problems": PROBLEMS}),
        ("400", "401", "403"),
    ),
    Operation(
        "post",
        "/api/restore",
        "Brings all files back from the trash.",
        {},
        None,
        _object({"restored": INTEGER, "problems": {"type": "array", "items": STRING}}),
        ("401", "403"),
    ),
    Operation(
        "post",
        "/api/session",
        "A cookie for a browser that has sent the token once.",
        {},
        None,
        _object({"status": STRING}),
        ("401", "403"),
    ),
    Operation(
        "get",
        "/health",
        "Whether the server answers; needs no token.",
        {},
        None,
        _object({"status": STRING}),
        ("403",),
    ),
    Operation(
        "get",
        "/metrics",
        "Counters and durations for Prometheus.",
        {},
        None,
        {"text/plain": {"schema": STRING}},
        ("401", "403"),
    ),
]


def document() -> dict[str, Any]:
    """The description of the API, as OpenAPI 3.1 has it."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "multigrain_jax browse",
            "version": "1",
            "description": "Similar photos over HTTP. Where the server was started "
            "with a token, every request but /health sends `Authorization: Bearer "
            "TOKEN`. Paths in answers have bytes that are no UTF-8 as \\xNN.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}
        },
        "security": [{}, {"token": []}],
    }


def _described(operation: Operation) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": words,
            "schema": {"type": kind},
        }
        for name, (kind, words) in operation.query.items()
    ]
    if "{row}" in operation.path:
        row = {"name": "row", "in": "path", "required": True, "schema": INTEGER}
        parameters.append({**row, "description": "the photo's, from an answer"})
    described: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done.", "content": dict(operation.answer)},
            **{
                status: {
                    "description": REFUSALS[status],
                    "content": {"application/json": {"schema": ERROR}},
                }
                for status in operation.refusals
            },
        },
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": dict(operation.body)}
    return described
