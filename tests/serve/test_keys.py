"""API keys: files and the environment, and the limits of each key."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from helpers.service import Inside
from pocketbert.errors import ConfigError
from pocketbert.serve.keys import Keys, KeyUse, read_keys
from pocketbert.serve.settings import Key

FINE = {"inputs": "the film is great"}
TABLES = """\
[search]
key = "first-key"
requests-per-minute = 2
[bulk]
key = "second-key"
tokens-per-minute = 60
concurrent = 1
reload = true
"""


def test_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETBERT_API_KEYS", " a, b ,,")
    assert read_keys(None) == (Key(name="key-1", secret="a"), Key(name="key-2", secret="b"))
    monkeypatch.delenv("POCKETBERT_API_KEYS")
    assert read_keys(None) == ()
    for empty in ("", " , ,", "\n"):  # a mistake, and not a service for everybody
        monkeypatch.setenv("POCKETBERT_API_KEYS", empty)
        with pytest.raises(ConfigError, match="POCKETBERT_API_KEYS is set and contains no API key"):
            read_keys(None)


def test_keys_from_a_file(tmp_path: Path) -> None:
    lines, tables = tmp_path / "keys.txt", tmp_path / "keys.toml"
    lines.write_text("# of the page\nab:c\n\n  d=e  \n")
    assert read_keys(lines) == (Key(name="key-1", secret="ab:c"), Key(name="key-2", secret="d=e"))
    tables.write_text(TABLES)
    assert read_keys(tables) == (
        Key(name="search", secret="first-key", requests_per_minute=2),
        Key(name="bulk", secret="second-key", tokens_per_minute=60, concurrent=1, reload=True),
    )
    assert "first-key" not in repr(read_keys(tables))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("keys", b"# none\n", "keys contains no API key: write one per line"),
        ("keys", b"k\xe9y\n", r"keys is not UTF-8 \(byte 1\)"),
        ("keys", "fine\nclé\n".encode(), "keys, line 2: an API key must consist of ASCII letters"),
        ("keys", b"two words\n", "keys, line 1: an API key must consist of ASCII letters"),
        ("keys", None, "cannot read .*keys: No such file"),
        ("keys.toml", b"", "contains no API key: write a table for each"),
        (
            "keys.toml",
            b"[a]\nkey = 'SECRET'\nlimit = 3",
            "line 3, a.limit: is not an option of a key; options are key, requests-per-minute, tokens-",
        ),
        ("keys.toml", b"[a]\nkey = 'SECRET'\nconcurrent = 0", "line 3, a.concurrent: must be a positive number"),
        ("keys.toml", b"[a]\nkey = 'SECRET'\nconcurrent = inf", "line 3, a.concurrent: must be a positive number"),
        ("keys.toml", b"[a]\nkey = 'SECRET'\nconcurrent = true", "line 3, a.concurrent: must be a positive number"),
        ("keys.toml", b"[a]\nkey = 'SECRET'\nreload = 1", "line 3, a.reload: must be true or false"),
        ("keys.toml", b"[a]\nreload = true", r"line 1, a: has no key: write key = \"…\" below \[a\]"),
        ("keys.toml", b"[a]\nkey = 7", "line 2, a.key: must be a text"),
        ("keys.toml", b"[a]\nkey = 'SECRET SECRET'", "line 2, a.key: an API key must consist of ASCII letters"),
        ("keys.toml", b"[a]\nkey = 'SECRET'\n[b]\nkey = 'SECRET'", "line 4, b.key: another name has the same key"),
        ("keys.toml", b"a = 'SECRET'", r"line 1, a: every API key is a table: \[a\]"),
        ("keys.toml", b"['a b']\nkey = 'SECRET'", "a b: a name must consist of letters, digits"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_keys(tmp_path / name)
    assert "SECRET" not in str(caught.value)


def test_which_key() -> None:
    keys = Keys([Key(name="a", secret="first"), Key(name="b", secret="second")])
    for given, name in ((b"Bearer first", "a"), (b"bearer  second ", "b"), (b"Bearer third", None), (b"first", None)):
        found = keys.find(given)
        assert (found and found.key.name) == name
    assert not Keys([])


def found(keys: Keys, authorization: bytes) -> KeyUse:
    use = keys.find(authorization)
    assert use is not None
    return use


def test_limits_of_a_key() -> None:
    now = 100.0
    keys = Keys([Key(name="a", secret="x", requests_per_minute=3, tokens_per_minute=120, concurrent=2)], lambda: now)
    use = found(keys, b"Bearer x")

    def ask() -> str:
        refusal = keys.refusal(use)
        if refusal is None:
            use.enter()
            return "fine"
        assert refusal[1] > 0
        return refusal[0]

    assert [ask() for _ in range(3)] == ["fine", "fine", "2 requests at a time"]
    use.leave(0)
    use.leave(0)
    assert [ask(), ask()] == ["fine", "3 requests per minute"]
    use.leave(0)
    refusal = keys.refusal(use)
    assert refusal is not None
    assert refusal[1] == pytest.approx(20)
    now += 20
    assert ask() == "fine"
    use.leave(240)  # twice what a minute allows: a minute of it is owed
    now += 59.9
    assert ask() == "120 tokens per minute"
    now += 0.2
    assert ask() == "fine"
    use.leave(0)
    # Of another key with the same name, what was used stays used; a key that is gone is refused.
    keys.replace([Key(name="a", secret="y", requests_per_minute=1)])
    assert keys.find(b"Bearer x") is None
    use = found(keys, b"Bearer y")
    assert ask() == "1 requests per minute"


def test_a_key_that_is_used_up(models: dict[str, Path], tmp_path: Path) -> None:
    """The other one goes on; every request is counted under the name of its key."""
    (tmp_path / "keys.toml").write_text(TABLES)

    async def statuses() -> None:
        async def ask(key: str, path: str = "/v1/classify") -> int:
            return (await service.ask(path, FINE, authorization=f"Bearer {key}")).status

        assert [await ask("first-key") for _ in range(3)] == [200, 200, 429]
        found = await service.ask("/v1/classify", FINE, authorization="Bearer first-key")
        assert found.json["error"]["message"] == "the limit of this API key is 2 requests per minute"
        assert 1 <= int(found.headers["retry-after"]) <= 30
        assert (await service.ask("/v1/models", authorization="Bearer first-key")).status == 200
        body = asyncio.Event()
        first = asyncio.create_task(service.ask("/v1/classify", FINE, body.wait, authorization="Bearer second-key"))
        await asyncio.sleep(0)  # its body has not come
        assert await ask("second-key") == 429
        body.set()
        assert (await first).status == 200
        assert await ask("second-key") == 200
        text = service.guard.metrics.text().decode()
        for line in (
            'pocketbert_key_requests_total{key="search",status="200"} 3.0',
            'pocketbert_key_requests_total{key="search",status="429"} 2.0',
            'pocketbert_key_requests_total{key="bulk",status="200"} 2.0',
            'pocketbert_key_requests_total{key="bulk",status="429"} 1.0',
        ):
            assert line in text
        assert 'pocketbert_key_tokens_total{key="bulk"} ' in text

    with Inside(("one", models["classify"]), keys=tmp_path / "keys.toml") as service:
        asyncio.run(statuses())
