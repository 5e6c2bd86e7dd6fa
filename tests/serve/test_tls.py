"""HTTPS: a certificate is proven before the port is opened, and read again by a reload."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.service import running
from pocketbert.errors import ConfigError
from pocketbert.serve import event_loop, server
from pocketbert.serve.settings import Settings
from pocketbert.serve.tls import Certificate

pytest.importorskip("cryptography")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from uvicorn.loops.auto import auto_loop_factory

DAY = datetime.timedelta(days=1)


def make(folder: Path, name: str, *, begins: int = -1, ends: int = 1, password: bytes | None = None) -> Path:
    """A certificate for localhost that signs itself, and its key; days are counted from today."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * DAY)
        .not_valid_after(now + ends * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    kind = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kind
    (folder / f"{name}.key").write_bytes(key.private_bytes(*form))
    return folder / f"{name}.pem"


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("ours.pem", "other.key", "--tls-key .*other.key is not the key of --tls-cert .*ours.pem"),
        ("old.pem", "old.key", "--tls-cert .*old.pem: certificate has expired"),
        ("new.pem", "new.key", "--tls-cert .*new.pem: certificate is not yet valid"),
        ("ours.pem", "locked.key", "--tls-key .*locked.key is encrypted"),
        ("ours.pem", "ours.pem", "--tls-key .*ours.pem contains no private key"),
        ("ours.key", "ours.key", "--tls-cert .*ours.key contains no certificate"),
        ("empty", "ours.key", "--tls-cert .*empty contains no certificate"),
        ("nowhere.pem", "ours.key", "--tls-cert .*nowhere.pem: No such file"),
        ("ours.pem", ".", "--tls-key .*: Is a directory"),
    ],
)
def test_certificates_that_do_not_fit(tmp_path: Path, certificate: str, key: str, message: str) -> None:
    make(tmp_path, "ours")
    make(tmp_path, "other")
    make(tmp_path, "old", begins=-9, ends=-1)
    make(tmp_path, "new", begins=1, ends=9)
    make(tmp_path, "locked", password=b"sesame")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ConfigError, match=message) as caught:
        Certificate(tmp_path / certificate, tmp_path / key)
    assert "\n" not in str(caught.value)


def test_one_needs_the_other(tmp_path: Path) -> None:
    for option in ("tls_cert", "tls_key"):
        with pytest.raises(ConfigError, match=f"--tls-{'key' if option == 'tls_key' else 'cert'} .* needs --tls-"):
            Settings((), **{option: tmp_path})  # type: ignore[arg-type]


def test_https_and_a_renewed_certificate(models: dict[str, Path], tmp_path: Path) -> None:
    first = make(tmp_path, "ours")
    trusted = ssl.create_default_context(cafile=first)
    arguments: list[str | Path] = [
        "--tls-cert",
        first,
        "--tls-key",
        first.with_suffix(".key"),
        "--no-log",
        "--api-keys",
    ]
    (tmp_path / "keys.toml").write_text('[all]\nkey = "k"\nreload = true\n')

    def ask(path: str, context: ssl.SSLContext, method: str = "GET") -> int:
        connection = http.client.HTTPSConnection("localhost", service.port, timeout=300, context=context)
        connection.request(method, path, headers={"authorization": "Bearer k"})
        status = connection.getresponse().status
        connection.close()
        return status

    with running(models["classify"], *arguments, tmp_path / "keys.toml") as service:
        assert ask("/v1/models", trusted) == 200
        with pytest.raises((http.client.BadStatusLine, ConnectionError)):
            service.ask("/v1/models")  # not encrypted
        make(tmp_path, "ours")
        assert ask("/admin/reload", trusted, "POST") == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            ask("/v1/models", trusted)
        renewed = ssl.create_default_context(cafile=first)
        assert ask("/v1/models", renewed) == 200
        make(tmp_path, "ours", begins=-9, ends=-1)
        assert ask("/admin/reload", renewed, "POST") == 500
        assert ask("/v1/models", renewed) == 200


def test_a_wrong_certificate_is_found_before_the_port_is_opened(tmp_path: Path) -> None:
    expired = make(tmp_path, "old", begins=-9, ends=-1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings((), port=port, tls_cert=expired, tls_key=expired.with_suffix(".key"))
        with pytest.raises(ConfigError, match="certificate has expired"):
            server.serve(settings, lambda port: None)


@pytest.mark.parametrize("usual", [auto_loop_factory(), asyncio.SelectorEventLoop])
def test_a_client_that_never_begins_its_handshake_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usual: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A limit of a minute would let silent clients hold all sockets, of which the service counts none."""
    monkeypatch.setattr(event_loop, "auto_loop_factory", lambda: usual)
    monkeypatch.setattr(event_loop, "HEAD_SECONDS", 0.2)
    path = make(tmp_path, "ours")
    context = Certificate(path, path.with_suffix(".key")).context

    async def silent() -> bytes:
        running_loop = asyncio.get_running_loop()
        async with await running_loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context) as listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            ended = await asyncio.wait_for(reader.read(), 10)
            writer.close()
        return ended

    loop = event_loop.make_event_loop()
    try:
        assert loop.run_until_complete(silent()) == b""
    finally:
        loop.close()
