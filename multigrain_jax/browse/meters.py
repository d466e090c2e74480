"""What the server counts, in the text format that Prometheus reads."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "multigrain_"
# Upper ends of the ranges in which durations are counted, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
HELP: Mapping[str, tuple[str, str]] = {
    "requests_total": ("counter", "Requests that were answered."),
    "photos_embedded_total": ("counter", "Photos that went through the network."),
    "batches_total": ("counter", "Batches that went through the network."),
    "rejected_total": ("counter", "Requests refused since the queue was full."),
    "request_seconds": ("histogram", "From a request's first byte to its answer."),
    "network_seconds": ("histogram", "One batch in the network."),
    "search_seconds": ("histogram", "One search among the descriptors."),
    "waiting": ("gauge", "Photos under way."),
    "photos": ("gauge", "Photos in the collection."),
}


class Meters:
    """Counters and durations, from any thread."""

    def __init__(self, gauges: Mapping[str, Callable[[], float]]):
        """Start at zero.

        Args:
            gauges: names of `HELP`, and what reads their value.
        """
        self._gauges = gauges
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], float] = defaultdict(float)
        self._durations: dict[tuple[str, str], list[int]] = {}

    def count(self, name: str, amount: float = 1, *, labels: str = "") -> None:
        """Add to a counter.

        Args:
            name: of `HELP`.
            amount: how much.
            labels: which of its kind, such as `path="/health"`.
        """
        with self._lock:
            self._counts[name, labels] += amount

    def observe(self, name: str, seconds: float, *, labels: str = "") -> None:
        """Add a duration; arguments as of `count`."""
        key = name, labels
        with self._lock:
            ranges = self._durations.setdefault(key, [0] * (len(BUCKETS) + 1))
            ranges[sum(seconds > end for end in BUCKETS)] += 1
            self._counts[f"{name}_sum", key[1]] += seconds

    def text(self) -> str:
        """All of it, in Prometheus' text format."""
        lines: list[str] = []
        with self._lock:
            for name, (kind, words) in HELP.items():
                lines += [f"# HELP {PREFIX}{name} {words}"]
                lines += [f"# TYPE {PREFIX}{name} {kind}"]
                if kind == "gauge":
                    read = self._gauges.get(name)
                    if read is not None:
                        lines.append(f"{PREFIX}{name} {read():g}")
                elif kind == "counter":
                    found = [k for k in sorted(self._counts) if k[0] == name]
                    lines += [
                        f"{PREFIX}{name}{_braced(labels)} {self._counts[n, labels]:g}"
                        for n, labels in found
                    ] or [f"{PREFIX}{name} 0"]
                else:
                    lines += self._histogram(name)
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> list[str]:
        lines = []
        for (known, labels), ranges in sorted(self._durations.items()):
            if known != name:
                continue
            total = 0
            for end, number in zip((*BUCKETS, float("inf")), ranges, strict=True):
                total += number
                bound = "+Inf" if end == float("inf") else f"{end:g}"
                listed = ",".join(filter(None, (labels, f'le="{bound}"')))
                lines.append(f"{PREFIX}{name}_bucket{{{listed}}} {total}")
            seconds = self._counts[f"{name}_sum", labels]
            lines.append(f"{PREFIX}{name}_sum{_braced(labels)} {seconds:g}")
            lines.append(f"{PREFIX}{name}_count{_braced(labels)} {total}")
        return lines


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


class Metered:
    """Counts the requests of an application by their path and answer."""

    def __init__(self, app: ASGIApp, meters: Meters, *, paths: Sequence[str]):
        """Stand before an application.

        Args:
            app: the application.
            meters: counts.
            paths: beginnings of paths that are counted apart.
        """
        self._app = app
        self._meters = meters
        self._paths = sorted(paths, key=len, reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        finally:
            path = next(
                (p for p in self._paths if scope["path"].startswith(p)), "other"
            )
            labels = f'path="{path}"'
            self._meters.count("requests_total", labels=f'{labels},status="{status}"')
            self._meters.observe(
                "request_seconds", time.perf_counter() - started, labels=labels
            )
