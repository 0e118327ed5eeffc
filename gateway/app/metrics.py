"""Metrics: each process counts in a plain object; here it becomes Prometheus text on a local address.

Every process serves on a unix socket `run/<process>.metrics.sock` (`curl --unix-socket`), and on a
TCP address where its configuration names one.
"""

import asyncio
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gateway.app.paths import reachable
from gateway.errors import ConfigError


def counter(text: str) -> Any:
    """Return a dataclass field that only grows; text is its help."""
    return dataclasses.field(default=0, metadata={"help": text, "kind": "counter"})


def gauge(text: str) -> Any:
    """Return a dataclass field that moves freely; text is its help."""
    return dataclasses.field(default=0, metadata={"help": text, "kind": "gauge"})


class _Plain(Collector):
    """The fields of a dataclass as metrics named wattseal_<process>_<field>."""

    def __init__(self, process: str, counts: Any) -> None:
        self._process, self._counts = process, counts

    def collect(self) -> Iterable[Metric]:
        """Yield one family a field."""
        for found in dataclasses.fields(self._counts):
            name, text = f"wattseal_{self._process}_{found.name}", found.metadata.get("help", found.name)
            value = float(getattr(self._counts, found.name))
            if found.metadata.get("kind") == "counter":
                yield CounterMetricFamily(name, text, value=value)
            else:
                yield GaugeMetricFamily(name, text, value=value)


async def serve_metrics(process: str, counts: Any, *, socket: Path, address: str | None = None) -> list[asyncio.Server]:
    """Serve counts (a dataclass instance) until the servers are closed.

    Raises ConfigError when there is no listening at the socket, or at the address.
    """
    registry = CollectorRegistry()
    registry.register(_Plain(process, counts))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                while (await reader.readline()).strip():
                    pass
                body = generate_latest(registry)
                head = (
                    f"HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (OSError, ValueError):
            pass  # a scraper that goes, dawdles or sends a line without end loses its answer, nothing else
        finally:
            writer.close()

    try:
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        with reachable(socket) as name:
            servers = [await asyncio.start_unix_server(answer, name, limit=8192)]
    except OSError as e:
        raise ConfigError(f"{socket}: cannot listen: {e.strerror or e}, want a path in a folder of ours") from e
    if address:
        host, _, port = address.rpartition(":")
        try:
            servers.append(await asyncio.start_server(answer, host, int(port), limit=8192))
        except OSError as e:
            servers[0].close()
            raise ConfigError(
                f"{process}: metrics: got {address}: {e.strerror or e}, want a free address of this host"
            ) from e
    return servers


async def read_metrics(socket: Path) -> Mapping[str, float]:
    """Return the metrics behind a socket by name. Raises OSError when the process is not there."""
    with reachable(socket) as name:
        reader, writer = await asyncio.open_unix_connection(name)
    try:
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(5):
            answer = await reader.read()
    finally:
        writer.close()
    _, _, body = answer.partition(b"\r\n\r\n")
    families = text_string_to_metric_families(body.decode())
    return {sample.name: sample.value for family in families for sample in family.samples}
