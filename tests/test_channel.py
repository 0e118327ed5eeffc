"""The unix socket of docs/wire.md: peers that go, dawdle or talk nonsense cost nobody but themselves."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.app.channel import Channel, connect, listen
from gateway.codec.frames import Message, pack_frame
from gateway.errors import ConfigError, LinkError, LogError, TrustError
from tests.loops import on_both_loops

Serve = Callable[[Channel], Coroutine[Any, Any, None]]
Failed = asyncio.Future[None]


@contextlib.asynccontextmanager
async def served(path: Path, serve: Serve) -> AsyncIterator[Failed]:
    """Serve on path; yield the future that a fatal error goes to."""
    failed: Failed = asyncio.get_running_loop().create_future()
    server = await listen(path, serve, failed=failed)
    try:
        yield failed
    finally:
        server.close()
        failed.cancel()


async def echo(channel: Channel) -> None:
    """Send each message back."""
    while True:
        await channel.send(*await channel.receive())


async def received(channel: Channel, count: int) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < count:
        messages += await channel.receive()
    return messages


async def still_echoes(path: Path) -> bool:
    channel = await connect(path)
    await channel.send(["ack", 1])
    answer = await channel.receive()
    channel.close()
    return answer == [["ack", 1]]


async def raw(path: Path, sent: bytes) -> bytes:
    """Send these bytes, and return all that comes back until the other side closes."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


# --- messages ---


@on_both_loops
async def test_messages_pass_in_order_both_ways(tmp_path: Path) -> None:
    async with served(tmp_path / "x.sock", echo):
        channel = await connect(tmp_path / "x.sock")
        sent: list[Message] = [["put", n, "event", bytes(n)] for n in range(300)]
        await channel.send(*sent[:100])
        for message in sent[100:]:
            await channel.send(message)
        assert await received(channel, 300) == sent
        channel.close()


@on_both_loops
async def test_messages_larger_than_any_buffer_pass(tmp_path: Path) -> None:
    """Both sides wait for each other's reading, and neither for ever."""
    async with served(tmp_path / "x.sock", echo):
        channel = await connect(tmp_path / "x.sock")
        sent: list[Message] = [["put", n, "event", os.urandom(3_000_000)] for n in range(4)]

        async def send() -> None:
            for message in sent:
                await channel.send(message)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(), name="send")
            arrived = tasks.create_task(received(channel, 4), name="receive")
        assert arrived.result() == sent
        channel.close()


@on_both_loops
async def test_sending_waits_for_a_peer_that_does_not_read(tmp_path: Path) -> None:
    """Memory is bounded by the peer's pace."""
    waits = asyncio.Event()

    async def idle(_: Channel) -> None:
        await waits.wait()

    async with served(tmp_path / "x.sock", idle):
        channel = await connect(tmp_path / "x.sock")
        much: list[Message] = [["put", 1, "event", bytes(3_000_000)]] * 10
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.send(*much), 0.3)
        waits.set()
        channel.close()


@on_both_loops
async def test_a_frame_in_pieces_is_one_message(tmp_path: Path) -> None:
    async with served(tmp_path / "x.sock", echo):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "x.sock")
        frame = pack_frame(["ack", 7])
        for byte in frame:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)
        assert await reader.readexactly(len(frame)) == frame
        writer.close()


# --- peers that go ---


@on_both_loops
async def test_connecting_where_nobody_listens_is_a_link_error(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="No such file or directory"):
        await connect(tmp_path / "none.sock")
    (tmp_path / "file").touch()
    with pytest.raises(LinkError):
        await connect(tmp_path / "file")
    with pytest.raises(LinkError):
        await connect(tmp_path / ("x" * 150))


@on_both_loops
async def test_a_peer_that_closes_is_a_link_error_at_each_further_try(tmp_path: Path) -> None:
    """Once, uvloop answered the second try with a RuntimeError, which stopped the whole process."""

    async def hang_up(channel: Channel) -> None:
        await channel.receive()

    async with served(tmp_path / "x.sock", hang_up):
        channel = await connect(tmp_path / "x.sock")
        await channel.send(["ack", 1])
        with pytest.raises(LinkError):
            await channel.receive()
        with contextlib.suppress(LinkError):  # what a kernel takes before it knows that the peer has gone
            await channel.send(["ack", 2])
        for _ in range(3):
            await asyncio.sleep(0.01)
            with pytest.raises(LinkError):
                await channel.send(["ack", 3])
            with pytest.raises(LinkError):
                await channel.receive()
        channel.close()


@on_both_loops
async def test_a_channel_that_we_closed_takes_nothing_more(tmp_path: Path) -> None:
    async with served(tmp_path / "x.sock", echo):
        channel = await connect(tmp_path / "x.sock")
        channel.close()
        channel.close()
        for _ in range(3):
            with pytest.raises(LinkError):
                await channel.send(["ack", 1])
            await asyncio.sleep(0.01)
        with pytest.raises(LinkError):
            await channel.receive()


@on_both_loops
async def test_a_peer_that_goes_within_a_frame_is_a_link_error(tmp_path: Path) -> None:
    """Half a message is no message."""
    seen: list[object] = []

    async def serve(channel: Channel) -> None:
        try:
            seen.extend(await channel.receive())
        except LinkError as e:
            seen.append(str(e))
            raise

    async with served(tmp_path / "x.sock", serve) as failed:
        _, writer = await asyncio.open_unix_connection(tmp_path / "x.sock")
        writer.write(pack_frame(["ack", 7])[:-1])
        writer.close()
        while not seen:
            await asyncio.sleep(0.001)
        assert seen == ["unix socket: the peer closed"]
        assert not failed.done()


@on_both_loops
async def test_sending_to_a_peer_that_left_ends_that_connection_alone(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def talk(channel: Channel) -> None:
        try:
            while True:
                await channel.send(["ack", 1])
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    async with served(tmp_path / "x.sock", talk) as failed:
        channel = await connect(tmp_path / "x.sock")
        await channel.receive()
        channel.close()
        await ended.wait()
        await asyncio.sleep(0.01)
        assert not failed.done()


# --- nonsense ---


@pytest.mark.parametrize(
    "nonsense",
    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\x01\xc0", b"\0\0\0\x02\x91\xc1"],
    ids=["empty frame", "too long", "http", "no array", "no msgpack"],
)
def test_nonsense_ends_the_connection_and_no_other(nonsense: bytes, tmp_path: Path) -> None:
    """A TrustError in one peer's bytes neither stops the process nor disturbs its other peers."""

    async def run() -> None:
        async with served(tmp_path / "x.sock", echo) as failed:
            other = await connect(tmp_path / "x.sock")
            assert await raw(tmp_path / "x.sock", nonsense) == b""
            assert not failed.done()
            await other.send(["ack", 5])
            assert await other.receive() == [["ack", 5]]
            other.close()
            assert await still_echoes(tmp_path / "x.sock")

    asyncio.run(run())


@on_both_loops
async def test_messages_before_nonsense_in_one_read_are_not_acted_upon(tmp_path: Path) -> None:
    """They are not acknowledged either, so the peer sends them again."""
    async with served(tmp_path / "x.sock", echo):
        assert await raw(tmp_path / "x.sock", pack_frame(["ack", 1]) + b"\0\0\0\0") == b""


# --- what stops the process ---


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("error", [LinkError("gone"), TrustError("nonsense")], ids=repr)
def test_a_peers_fault_never_reaches_failed(error: Exception, grouped: bool, tmp_path: Path) -> None:  # noqa: FBT001
    async def serve(channel: Channel) -> None:
        await channel.receive()
        if grouped:
            raise ExceptionGroup("a task group", [error, ExceptionGroup("another", [error])])
        raise error

    async def run() -> None:
        async with served(tmp_path / "x.sock", serve) as failed:
            assert await raw(tmp_path / "x.sock", pack_frame(["idle"])) == b""
            await asyncio.sleep(0.01)
            assert not failed.done()

    asyncio.run(run())


@pytest.mark.parametrize("grouped", [0, 1, 2])
@pytest.mark.parametrize("error", [LogError("the disk lies"), ZeroDivisionError("a bug")], ids=repr)
def test_a_fatal_error_reaches_failed_as_what_it_is(error: Exception, grouped: int, tmp_path: Path) -> None:
    """Not as a group of one: whoever waits decides by its class what to tell the operator."""

    async def serve(channel: Channel) -> None:
        await channel.receive()
        raised = error
        for _ in range(grouped):
            raised = ExceptionGroup("a task group", [LinkError("gone"), raised])
        raise raised

    async def run() -> None:
        async with served(tmp_path / "x.sock", serve) as failed:
            assert await raw(tmp_path / "x.sock", pack_frame(["idle"])) == b""
            with pytest.raises(type(error)) as caught:
                await failed
            assert caught.value is error

    asyncio.run(run())


@on_both_loops
async def test_the_first_fatal_error_is_the_one_that_is_told(tmp_path: Path) -> None:
    async def serve(channel: Channel) -> None:
        raise LogError(str(await channel.receive()))

    async with served(tmp_path / "x.sock", serve) as failed:
        for number in range(3):
            assert await raw(tmp_path / "x.sock", pack_frame(["ack", number])) == b""
        with pytest.raises(LogError, match=r"\[\['ack', 0\]\]"):
            await failed


@on_both_loops
async def test_a_connection_that_is_cancelled_is_no_failure(tmp_path: Path) -> None:
    """Cancellation is how a process stops."""
    tasks: list[asyncio.Task[object] | None] = []

    async def serve(channel: Channel) -> None:
        tasks.append(asyncio.current_task())
        await channel.receive()

    async with served(tmp_path / "x.sock", serve) as failed:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "x.sock")
        while not tasks:
            await asyncio.sleep(0.001)
        assert tasks[0] is not None
        tasks[0].cancel()
        assert await reader.read() == b""
        writer.close()
        assert not failed.done()


# --- the socket file ---


@on_both_loops
async def test_the_socket_is_for_its_owner_alone_unless_its_mode_says_otherwise(tmp_path: Path) -> None:
    failed: Failed = asyncio.get_running_loop().create_future()
    before = os.umask(0o022)
    try:
        for mode in (None, 0o660):
            path = tmp_path / "run" / f"{mode}.sock"
            server = await (
                listen(path, echo, failed=failed) if mode is None else listen(path, echo, failed=failed, mode=mode)
            )
            assert stat.S_IMODE(path.stat().st_mode) == (mode or 0o600)
            server.close()
        assert os.umask(0o022) == 0o022, "the process' own umask is as it was"
    finally:
        os.umask(before)
        failed.cancel()


@on_both_loops
async def test_a_place_where_no_socket_can_be_is_a_config_error(tmp_path: Path) -> None:
    """No restart would help."""
    failed: Failed = asyncio.get_running_loop().create_future()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot listen: .*, want a path in a folder of ours"):
        await listen(tmp_path / "file" / "x.sock", echo, failed=failed)
    failed.cancel()


@on_both_loops
async def test_a_folder_too_deep_for_a_socket_serves_all_the_same(tmp_path: Path) -> None:
    """The kernel takes 107 bytes of path; an operator's folder may be longer than that."""
    failed: Failed = asyncio.get_running_loop().create_future()
    path = tmp_path / ("d" * 110) / "x.sock"
    server = await listen(path, echo, failed=failed)
    channel = await connect(path)
    await channel.send(["hello", 1])
    assert await channel.receive() == [["hello", 1]]
    channel.close()
    server.close()
    failed.cancel()


@on_both_loops
async def test_a_socket_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "x.sock"))
    assert (tmp_path / "x.sock").is_socket()
    async with served(tmp_path / "x.sock", echo):
        assert await still_echoes(tmp_path / "x.sock")
