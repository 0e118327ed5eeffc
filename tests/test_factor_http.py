"""The way out to providers: certificates are checked, and nothing is followed."""

import asyncio
import ssl
from pathlib import Path

import pytest

from gateway.carbon.grid.answers import AnswerError
from gateway.errors import ConfigError
from gateway.north.factors import SOURCES, Ask, Http, Secret
from gateway.north.pki import make_dev_ca


async def test_a_certificate_that_no_authority_of_the_system_signed_is_refused(tmp_path: Path) -> None:
    make_dev_ca(tmp_path, gateways=["gw1"], ledger="ledger", hosts=["127.0.0.1", "localhost"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "broker.pem", tmp_path / "broker.key")
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        http = Http(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", name="electricitymaps")
        with pytest.raises(AnswerError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await http.get("/latest", {}, headers={"auth-token": "never sent"})
        await http.close()
    assert caught.value.what == "unreachable"
    assert not heard


def test_a_url_of_no_use_is_the_operator_s_to_mend() -> None:
    with pytest.raises(ConfigError, match="url"):
        Http("https://[::1", name="neso")


@pytest.mark.parametrize("provider", SOURCES)
async def test_each_source_opens_without_a_network(provider: str) -> None:
    ask = Ask(base="", zone="HOME", region="X", signal="average", type="direct")
    source = SOURCES[provider](ask, Secret(user="u", token="t"))
    await source.close()
