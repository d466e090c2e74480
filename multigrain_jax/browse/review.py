"""The routes by which duplicates are reviewed: groups, marks, lists, moves."""

import asyncio
import csv
import io
import math
import time
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from multigrain_jax.browse.api import integer
from multigrain_jax.browse.collection import Collection
from multigrain_jax.browse.duplicates import KINDS, MAX_COMPARED, Duplicates
from multigrain_jax.browse.marks import MARKS, Mark, Marks
from multigrain_jax.browse.photo_files import PhotoFiles
from multigrain_jax.browse.trash import Trash
from multigrain_jax.browse.uploads import UploadRefusedError, read_json
from multigrain_jax.descriptors.grouping import LINKAGES, Linkage
from multigrain_jax.descriptors.roots import is_below
from multigrain_jax.files import escape_name, unescape_name
from multigrain_jax.remedies import worded
from multigrain_jax.workdir import guarded

GROUPS_PER_PAGE = 20
MAX_SHOWN = 200  # photos of one group
MAX_DIGITS = 12
RULES = ("keep_folder", "keep_suggested", "clear")


class Review:
    """The routes of the review."""

    def __init__(
        self,
        collection: Collection,
        files: PhotoFiles,
        duplicates: Duplicates,
        marks: Marks,
        trash: Trash,
        *,
        allow_moves: bool,
    ):
        """Answer from these.

        Args:
            collection: the photos.
            files: knows which of them may be moved.
            duplicates: of the collection.
            marks: what the user has decided.
            trash: where files go.
            allow_moves: whether they may.
        """
        self._collection = collection
        self._files = files
        self._duplicates = duplicates
        self._marks = marks
        self._trash = trash
        self._allow_moves = allow_moves
        self._one_at_a_time = asyncio.Lock()

    def routes(self) -> list[Route]:
        """What is asked for, and what answers."""
        return [
            Route("/api/duplicates", self.status),
            Route("/api/duplicates", self.start, methods=["POST"]),
            Route("/api/groups", self.groups),
            Route("/api/marks", self.marks),
            Route("/api/marks", self.change_marks, methods=["POST"]),
            Route("/api/marks/undo", self.undo, methods=["POST"]),
            Route("/api/rules", self.rule, methods=["POST"]),
            Route("/api/export", self.export),
            Route("/api/trash", self.move, methods=["POST"]),
            Route("/api/restore", self.restore, methods=["POST"]),
        ]

    async def status(self, request: Request) -> Response:
        """How far the search for duplicates is, and what may be done."""
        del request
        return self._status()

    async def start(self, request: Request) -> Response:
        """Begin the search for duplicates, once."""
        del request
        self._duplicates.start()
        return self._status()

    async def groups(self, request: Request) -> Response:
        """Some of the groups at a similarity."""
        chosen = group_choice(request.query_params)
        first = integer(request, "first", 0, 0, 10**9)
        count = integer(request, "count", GROUPS_PER_PAGE, 1, 100)
        return JSONResponse(
            await asyncio.to_thread(self._describe_groups, chosen, first, count)
        )

    async def marks(self, request: Request) -> Response:
        """Every mark."""
        del request
        return self._all_marks()

    async def change_marks(self, request: Request) -> Response:
        """Mark photos, or take marks away."""
        sent = (await read_json(request)).get("marks")
        if not isinstance(sent, dict):
            raise UploadRefusedError(
                400, 'expected {"marks": {"5": "away", "6": null}}'
            )
        changes: dict[int, Mark | None] = {}
        for row, mark in sent.items():
            is_row = row.isdecimal() and len(row) <= MAX_DIGITS
            if not is_row or not self._collection.has(int(row)):
                raise UploadRefusedError(404, f"there is no photo of row {row[:20]}")
            if mark is not None and mark not in MARKS:
                raise UploadRefusedError(400, f"a mark is {', '.join(MARKS)} or null")
            changes[int(row)] = mark
        await asyncio.to_thread(self._marks.change, changes)
        return self._all_marks()

    async def undo(self, request: Request) -> Response:
        """Take the last step of marking back."""
        del request
        await asyncio.to_thread(self._marks.undo)
        return self._all_marks()

    async def rule(self, request: Request) -> Response:
        """Mark all groups by a rule, in one step."""
        sent = await read_json(request)
        rule, folder = sent.get("rule"), sent.get("folder")
        if rule not in RULES:
            raise UploadRefusedError(400, f"rule: expected one of {', '.join(RULES)}")
        if isinstance(folder, str):
            folder = unescape_name(folder)
        if rule == "keep_folder" and folder not in self._collection.folders:
            raise UploadRefusedError(404, "folder: expected one of the collection")
        chosen = group_choice({key: str(value) for key, value in sent.items()})
        await asyncio.to_thread(self._apply, rule, folder, chosen)
        return self._all_marks()

    async def export(self, request: Request) -> Response:
        """What is marked, as a table, or the paths of what is to go."""
        kind = request.query_params.get("format", "csv")
        marks = sorted(self._marks.all().items())
        if kind == "csv":
            return _file(self._table(marks), "marks.csv", "text/csv; charset=utf-8")
        ends = {"paths": "\n", "paths0": "\0"}
        if kind not in ends:
            raise UploadRefusedError(400, "format: expected csv, paths or paths0")
        paths = [self._collection.path(row) for row, mark in marks if mark == "away"]
        odd = [path for path in paths if "\n" in path]
        if kind == "paths" and odd:
            raise UploadRefusedError(
                400,
                f"{len(odd)} names have line breaks: take format=paths0, with a "
                "zero byte behind each path",
            )
        text = "".join(path + ends[kind] for path in paths)
        data = text.encode("utf-8", "surrogateescape")
        return _file(data, f"{kind}.txt", "text/plain; charset=utf-8")

    async def move(self, request: Request) -> Response:
        """Move files that are marked to the trash."""
        self._require_moves()
        rows = (await read_json(request)).get("rows")
        if not isinstance(rows, list) or not all(type(row) is int for row in rows):
            raise UploadRefusedError(400, 'expected {"rows": [5, 6]}')
        async with self._one_at_a_time:
            return JSONResponse(await asyncio.to_thread(self._move, rows))

    async def restore(self, request: Request) -> Response:
        """Bring all files back from the trash."""
        del request
        self._require_moves()
        async with self._one_at_a_time:
            restored, problems = await asyncio.to_thread(self._trash.restore)
        for entry in restored:
            row = self._collection.row_of(entry.path)
            if row is not None:
                self._collection.alive[row] = self._collection.index.live[row]
        return JSONResponse({"restored": len(restored), "problems": problems})

    def hide_moved(self) -> None:
        """Do not show what an earlier run has moved away."""
        for entry in self._trash.entries():
            row = self._collection.row_of(entry.path)
            if row is not None and not self._files.is_unchanged(row):
                self._collection.alive[row] = False

    def close(self) -> None:
        """Break off what goes on beside requests."""
        self._duplicates.close()

    def _require_moves(self) -> None:
        if not self._allow_moves:
            raise UploadRefusedError(
                403,
                worded("files may not be moved: start with --config.allow_moves=True"),
            )

    def _status(self) -> JSONResponse:
        return JSONResponse(
            {
                **self._duplicates.status(),
                "allow_moves": self._allow_moves,
                "num_in_trash": len(self._trash.entries()),
                "folders": [
                    {"name": escape_name(name), "count": count}
                    for name, count in self._collection.counts()
                ],
                "num_photos": len(self._collection),
            }
        )

    def _all_marks(self) -> JSONResponse:
        marks = self._marks.all()
        return JSONResponse({"marks": marks, "can_undo": self._marks.can_undo})

    def _describe_groups(
        self, chosen: tuple[float, Linkage, str], first: int, count: int
    ) -> dict[str, Any]:
        groups = self._duplicates.groups(*chosen)
        return {
            "num_groups": len(groups),
            "num_photos": sum(map(len, groups)),
            "groups": [
                self._describe(rows, number)
                for number, rows in enumerate(groups[first : first + count], first + 1)
            ],
        }

    def _describe(self, rows: np.ndarray, number: int) -> dict[str, Any]:
        found = self._duplicates
        shown = rows[:MAX_SHOWN]
        photos = []
        for row in shown.tolist():
            facts = found.facts(row)
            photos.append(
                {
                    "row": row,
                    "path": escape_name(self._collection.path(row)),
                    "width": facts.width,
                    "height": facts.height,
                    "size": facts.size,
                    "modified": facts.mtime_ns // 10**9,
                }
            )
        return {
            "number": number,
            "num_photos": len(rows),
            "photos": photos,
            "lowest": found.lowest(rows),
            "num_compared": min(len(rows), MAX_COMPARED),
            "same_bytes": found.are_exact(rows),
            "suggested": found.suggested(shown),
        }

    def _apply(
        self, rule: str, folder: str | None, chosen: tuple[float, Linkage, str]
    ) -> None:
        changes: dict[int, Mark | None] = {}
        if rule == "clear":
            self._marks.change(dict.fromkeys(self._marks.all()))
            return
        for rows in self._duplicates.groups(*chosen):
            if rule == "keep_suggested":
                kept = {self._duplicates.suggested(rows)}
            else:
                assert folder is not None
                kept = {row for row in rows.tolist() if self._is_in(row, folder)}
            # Where nothing of a group is kept, the rule says nothing of it.
            if kept:
                for row in rows.tolist():
                    changes[row] = "keep" if row in kept else "away"
        self._marks.change(changes)

    def _is_in(self, row: int, folder: str) -> bool:
        name = self._collection.folders[self._collection.folder_of[row]]
        return name == folder or is_below(name, folder)

    def _table(self, marks: list[tuple[int, Mark]]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(("mark", "path", "bytes", "modified"))
        for row, mark in marks:
            path, size, mtime_ns = self._collection.stamp(row)
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(mtime_ns // 10**9))
            writer.writerow((mark, guarded(path), size, at))
        return text.getvalue().encode("utf-8", "surrogateescape")

    def _move(self, rows: list[int]) -> dict[str, Any]:
        moved, problems = [], []
        marks = self._marks.all()
        for row in dict.fromkeys(rows):
            try:
                if not self._collection.has(row):
                    raise OSError("there is no such photo")
                if marks.get(row) != "away":
                    raise OSError("it is not marked to go")
                if not self._files.is_unchanged(row):
                    raise OSError("it is a link, or has changed since it was embedded")
                path, size, mtime_ns = self._collection.stamp(row)
                digest = self._duplicates.digest(row)
                self._trash.move(path, size=size, mtime_ns=mtime_ns, digest=digest)
            except OSError as error:
                problems.append({"row": row, "reason": error.strerror or str(error)})
                continue
            self._collection.alive[row] = False
            moved.append(row)
        return {"moved": moved, "problems": problems}


def group_choice(query: Mapping[str, str]) -> tuple[float, Linkage, str]:
    """The similarity, the linkage and the kind of groups that are asked for.

    Raises:
        UploadRefusedError: one of them is none.
    """
    try:
        threshold = float(query.get("threshold", "0.9"))
    except ValueError:
        threshold = math.nan
    if not -1 <= threshold <= 1:
        raise UploadRefusedError(400, "threshold: expected a number from -1 to 1")
    linkage = _one_of("linkage", query.get("linkage", "single"), get_args(Linkage))
    kind = _one_of("kind", query.get("kind", "similar"), KINDS)
    return threshold, "complete" if linkage == LINKAGES[1] else "single", kind


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UploadRefusedError(400, f"{name}: expected one of {', '.join(allowed)}")
    return value


def _file(data: bytes, name: str, media_type: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(data, headers=headers, media_type=media_type)
