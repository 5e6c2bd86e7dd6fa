"""TLS: the certificate of the service, proven before the port is opened, and read again by a reload."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

from pocketbert.errors import ConfigError


class Certificate:
    """The certificate of a service and its key, both as PEM files; `context` is that of the server's connections.

    Raises `ConfigError`, as `check` does.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self.check()
        self.context = _server_context(*self._files)

    def check(self) -> None:
        """Raise `ConfigError` if a file cannot be read, the key is of another certificate, or the time is not its own.

        A server and a client in memory shake hands, the client trusting this certificate alone: so OpenSSL checks all
        that it checks in earnest, and the service starts with nothing that no client would accept.
        """
        certificate, key = self._files
        _check_readable("--tls-cert", certificate)
        _check_readable("--tls-key", key)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False  # of which names it is, clients know
        client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        try:
            client.load_verify_locations(certificate)
        except ssl.SSLError:
            raise ConfigError(f"--tls-cert {certificate} contains no certificate in PEM form") from None
        server = _server_context(certificate, key)
        try:
            _shake_hands(server, client)
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(f"--tls-cert {certificate}: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise ConfigError(f"--tls-cert {certificate} cannot be used: {error.reason}") from None

    def install(self) -> None:
        """Use the files as they are now for new connections."""
        _load_chain(self.context, *self._files)


def _check_readable(option: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from None


def _server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_chain(context, certificate, key)
    return context


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    def no_password() -> NoReturn:  # OpenSSL would ask for it on the terminal
        raise ConfigError(f"--tls-key {key} is encrypted: give a key without a password, readable by this user alone")

    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH" or error.reason == "KEY_TYPE_MISMATCH":
            raise ConfigError(f"--tls-key {key} is not the key of --tls-cert {certificate}") from None
        raise ConfigError(f"--tls-key {key} contains no private key in PEM form") from None


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """A handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):  # each side has two turns in TLS 1.2 and fewer in 1.3
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
