"""Metrics over a unix socket and TCP: right, and out of the way of whatever a scraper does."""

import asyncio
import socket
import stat
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.app.metrics import counter, gauge, read_metrics, serve_metrics
from gateway.errors import ConfigError
from tests.loops import on_both_loops


@dataclass(slots=True)
class Counts:
    """Something to count."""

    polls: int = counter("polls of a device")
    lag_s: float = gauge("how long after its tick the latest poll ended")
    plain: int = 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def serving(folder: Path, counts: Counts, address: str | None = None) -> AsyncIterator[Path]:
    path = folder / "run" / "test.metrics.sock"
    servers = await serve_metrics("test", counts, socket=path, address=address)
    try:
        yield path
    finally:
        for server in servers:
            server.close()


async def asked(path: Path, sent: bytes, *, eof: bool = False) -> bytes:
    """Send these bytes; return all that comes back."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    if eof:
        writer.write_eof()
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@on_both_loops
async def test_each_field_is_a_metric_by_its_name_and_as_of_now(tmp_path: Path) -> None:
    counts = Counts()
    async with serving(tmp_path, counts) as path:
        assert await read_metrics(path) == {
            "wattseal_test_polls_total": 0,
            "wattseal_test_lag_s": 0,
            "wattseal_test_plain": 0,
        }
        counts.polls, counts.lag_s = 7, 0.25
        found = await read_metrics(path)
        assert (found["wattseal_test_polls_total"], found["wattseal_test_lag_s"]) == (7, 0.25)


@on_both_loops
async def test_the_answer_is_http_with_prometheus_text(tmp_path: Path) -> None:
    """A counter is typed as one, and the help says what it counts."""
    async with serving(tmp_path, Counts(polls=3)) as path:
        answer = await asked(path, b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"HTTP/1.0 200 OK"
    assert f"Content-Length: {len(body)}".encode() in head.splitlines()
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    polls = families["wattseal_test_polls"]
    assert (polls.type, polls.documentation, polls.samples[0].value) == ("counter", "polls of a device", 3)
    assert families["wattseal_test_lag_s"].type == "gauge"


async def test_a_tcp_address_serves_the_same_to_an_ordinary_client(tmp_path: Path) -> None:
    port = free_port()
    async with serving(tmp_path, Counts(polls=5), f"127.0.0.1:{port}") as path:

        def fetch() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                assert answer.status == 200
                body: bytes = answer.read()
                return body.decode()

        text = await asyncio.to_thread(fetch)
        assert "wattseal_test_polls_total 5.0" in text.splitlines()
        assert (await read_metrics(path))["wattseal_test_polls_total"] == 5


@on_both_loops
async def test_without_an_address_only_the_owners_socket_is_there(tmp_path: Path) -> None:
    async with serving(tmp_path, Counts()) as path:
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert not mode & stat.S_IWOTH
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@on_both_loops
async def test_a_socket_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    for polls in (1, 2):
        async with serving(tmp_path, Counts(polls=polls)) as path:
            assert (await read_metrics(path))["wattseal_test_polls_total"] == polls
        path.unlink(missing_ok=True)
        path.touch()


async def test_an_address_that_is_taken_is_a_config_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "x.metrics.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"test: metrics: got {address}: .*, want a free address of this host"):
            await serve_metrics("test", Counts(), socket=path, address=address)
    with pytest.raises(OSError):
        await read_metrics(path)


async def test_a_place_where_no_socket_can_be_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot listen: .*, want a path in a folder of ours"):
        await serve_metrics("test", Counts(), socket=tmp_path / "file" / "x.sock")


async def test_a_folder_too_deep_for_a_socket_serves_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 110) / "x.sock"
    servers = await serve_metrics("test", Counts(), socket=path)
    assert await read_metrics(path)
    for server in servers:
        server.close()


async def test_reading_the_metrics_of_a_process_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await read_metrics(tmp_path / "none.sock")


@pytest.mark.parametrize(
    ("sent", "eof", "answered"),
    [
        (b"", True, True),
        (b"GET /metrics HTTP/1.0\r\n", True, True),
        (b"\xff\xfe\x00\n\n", False, True),
        (b"x" * 20_000, False, False),
        (b"GET / HTTP/1.0\r\nCookie: " + b"x" * 20_000 + b"\r\n\r\n", False, False),
    ],
    ids=["nothing", "half a request", "binary", "a line without end", "a header without end"],
)
async def test_garbage_is_answered_or_dropped_and_disturbs_nobody(
    sent: bytes,
    eof: bool,  # noqa: FBT001
    answered: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """Anything that ends like a request gets the metrics; a line that is too long ends the connection."""
    async with serving(tmp_path, Counts(polls=1)) as path:
        async with asyncio.timeout(4):
            assert (b"wattseal_test_polls_total 1.0" in await asked(path, sent, eof=eof)) is answered
        assert (await read_metrics(path))["wattseal_test_polls_total"] == 1


@on_both_loops
async def test_scrapers_that_go_at_any_point_disturb_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, Counts(polls=1)) as path:
        request = b"GET /metrics HTTP/1.0\r\n\r\n"
        for count in range(len(request) + 1):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(request[:count])
            if count % 2:
                writer.transport.abort()
            else:
                writer.close()
        assert (await read_metrics(path))["wattseal_test_polls_total"] == 1


async def test_a_slow_scraper_is_dropped_and_holds_up_no_other(tmp_path: Path) -> None:
    """Neither one that says nothing, nor one that sends a header a second for ever, nor one that never reads."""
    async with serving(tmp_path, Counts(polls=1)) as path:
        began = time.monotonic()

        async def dawdle(each: bytes) -> float:
            reader, writer = await asyncio.open_unix_connection(path)
            ended = asyncio.ensure_future(reader.read())
            while not ended.done():
                writer.write(each)
                await asyncio.wait({ended}, timeout=0.5)
            assert await ended == b""
            writer.close()
            return time.monotonic() - began

        _, mute = await asyncio.open_unix_connection(path)
        mute.write(b"GET / HTTP/1.0\r\n\r\n")
        slow = asyncio.gather(dawdle(b""), dawdle(b"X: y\r\n"))
        for _ in range(10):
            async with asyncio.timeout(4):
                assert (await read_metrics(path))["wattseal_test_polls_total"] == 1
            await asyncio.sleep(0.01)
        assert not slow.done()
        assert min(await slow) > 4
        mute.close()
