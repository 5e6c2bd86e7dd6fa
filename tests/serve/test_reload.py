"""Reloads: new models take the place of old ones without a lost request, or everything stays as it was."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers.service import Held, Inside, Service, running
from pocketbert.serve.reload import ReloadError, prove
from pocketbert.serve.supervisor import HANGUP

FINE = {"inputs": "the film is great"}
KEYS = '[admin]\nkey = "may"\nreload = true\n[page]\nkey = "may-not"\n'
pytestmark = pytest.mark.skipif(HANGUP is None, reason="there is no SIGHUP on Windows")


@pytest.fixture
def folder(models: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(models["classify"], tmp_path / "model")


def change(folder: Path, scale: float, labels: list[str] | None = None) -> None:
    """Write other weights, in one step as all writers should."""
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"] = np.full_like(tensors["classifier.bias"], scale)
    tensors["classifier.bias"][0] = 0
    save_file(tensors, folder / "new")
    (folder / "new").rename(folder / "model.safetensors")
    if labels is not None:
        config = json.loads((folder / "config.json").read_text())
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
        config["label2id"] = {label: number for number, label in enumerate(labels)}
        (folder / "config.json").write_text(json.dumps(config))


def compute_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pocketbert-compute"]


async def best(service: Inside) -> str:
    found = await service.ask("/v1/classify", FINE)
    assert found.status == 200
    return str(found.json["results"][0][0]["label"])


def test_what_was_begun_is_completed_by_the_old_model(folder: Path) -> None:
    """And the old model is released then."""
    names = json.loads((folder / "config.json").read_text())["id2label"]

    async def swap() -> weakref.ref[Any]:
        old = service.models["one"]
        predictor, thread = old.queue.predictor, old._worker._thread
        old.queue.predictor = held = Held(predictor)
        change(folder, 1000.0, ["new-0", *(f"new-{i}" for i in range(1, len(names)))])
        begun = [asyncio.create_task(service.ask("/v1/classify", FINE)) for _ in range(3)]
        await asyncio.to_thread(held.busy.wait)
        await service.guard.reloader.reload()
        assert (await best(service)).startswith("new-")
        assert await best(service) != "new-0"
        held.go.set()
        for found in await asyncio.gather(*begun):
            assert found.status == 200
            assert not found.json["results"][0][0]["label"].startswith("new-")
        assert service.models["one"] is not old
        engine = weakref.ref(predictor)
        del old, predictor, held, begun, found
        await asyncio.to_thread(thread.join, 300)
        assert not thread.is_alive()
        return engine

    with Inside(("one", folder)) as service:
        engine = asyncio.run(swap())
        gc.collect()
        assert engine() is None


def spoil(folder: Path, how: str) -> str:
    """Damage a model, and tell what the error says."""
    if how == "not finite":
        change(folder, float("nan"))
        return "one fails its test request"
    if how == "cut":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        return "model.safetensors"
    shutil.rmtree(folder)
    return "reload failed, and the service continues with its previous models and API keys: "


@pytest.mark.parametrize("how", ["not finite", "cut", "gone"])
def test_a_model_that_cannot_be_used_changes_nothing(folder: Path, tmp_path: Path, how: str) -> None:
    async def fail() -> None:
        before, threads = service.models, set(compute_threads())  # those of a test before may be about to end
        message = spoil(folder, how)
        for _ in range(2):
            with pytest.raises(ReloadError, match=message) as caught:
                await service.guard.reloader.reload()
            assert "\n" not in str(caught.value)
        assert service.models is before
        assert set(compute_threads()) <= threads
        assert (await service.ask("/v1/classify", FINE)).status == 200
        text = service.guard.metrics.text().decode()
        assert 'pocketbert_reloads_total{outcome="failed"} 2.0' in text
        assert 'pocketbert_reloads_total{outcome="done"} 0.0' in text

    with Inside(("one", folder)) as service:
        asyncio.run(fail())


def test_two_reloads_at_once(folder: Path) -> None:
    async def both() -> None:
        reloader = service.guard.reloader
        found = await asyncio.gather(reloader.reload(), reloader.reload(), return_exceptions=True)
        assert found[0] is None
        assert isinstance(found[1], ReloadError)
        assert (found[1].status, str(found[1])) == (409, "a reload is in progress: retry when it has finished")
        await reloader.reload()
        await reloader.prepare()
        reloader.abort()
        await reloader.reload()

    with Inside(("one", folder)) as service:
        asyncio.run(both())


def test_every_task_has_a_probe(models: dict[str, Path]) -> None:
    async def all_of_them() -> None:
        for model in service.models.values():
            await prove(model)

    with Inside(*models.items()) as service:
        asyncio.run(all_of_them())


def test_who_may_reload(folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(KEYS)

    async def ask(key: str) -> Any:
        return await service.ask("/admin/reload", {}, authorization=f"Bearer {key}")

    async def try_all() -> None:
        assert [(await ask(key)).status for key in ("none", "may-not", "may")] == [401, 403, 200]
        keys.write_text(KEYS.replace("may-not", "other") + 'concurrent = "x"')
        found = await ask("may")
        assert found.status == 500
        assert found.json["error"].endswith("keys.toml, line 6, page.concurrent: must be a positive number")
        assert (await ask("may-not")).status == 403
        keys.write_text(KEYS.replace("may-not", "other"))
        found = await ask("may")
        assert (found.status, found.json["models"]) == (200, ["one"])
        assert [(await ask(key)).status for key in ("may-not", "other", "may")] == [401, 403, 200]

    with Inside(("one", folder), keys=keys) as service:
        asyncio.run(try_all())
    with Inside(("one", folder)) as service:
        found = asyncio.run(service.ask("/admin/reload", {}))
        assert (found.status, "SIGHUP" in found.json["error"]) == (403, True)


def label(service: Service) -> str:
    return str(service.ask("/v1/classify", FINE).json["results"][0][0]["label"])


def wait_for(service: Service, text: str) -> str:
    """Read what it writes until a line contains a text."""
    assert service.process.stderr is not None
    for line in service.process.stderr:
        if text in line:
            return str(line)
    raise AssertionError(text)


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.slow), "2"])  # the guide shows one
def test_by_signal_under_load(folder: Path, tmp_path: Path, workers: str) -> None:
    """No request is lost; with several workers all have the new model at once, or none has."""
    (tmp_path / "keys.toml").write_text('[all]\nkey = "k"\nreload = true\n')
    first = ["--no-log", "--workers", workers, "--api-keys", str(tmp_path / "keys.toml")]
    with running(f"one={folder}", *first) as service:
        end, seen = threading.Event(), Counter[Any]()

        def ask(path: str = "/v1/classify") -> Any:
            return service.ask(path, FINE, authorization="Bearer k")

        def load() -> None:
            while not end.is_set():
                found = ask()
                seen[found.status, found.json["results"][0][0]["label"]] += 1

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in (1, 2):
                change(folder, 1000.0, [f"{number}-a", *(f"{number}-b" for _ in range(9))][: len(labels(folder))])
                if number == 1:
                    service.process.send_signal(signal.SIGHUP)
                    wait_for(service, "reloaded in" if workers == "1" else "all 2 workers have reloaded")
                else:
                    assert ask("/admin/reload").status == 200
                    assert {ask().json["results"][0][0]["label"][0] for _ in range(8)} == {"2"}
            spoil(folder, "not finite")
            found = ask("/admin/reload")
            assert (found.status, "one fails its test request" in found.json["error"]) == (500, True)
        finally:
            end.set()
            for thread in threads:
                thread.join()
        assert {status for status, _ in seen} == {200}
        assert {name[0] for _, name in seen} >= {"2"}
    assert service.process.returncode == 0


def labels(folder: Path) -> list[str]:
    return list(json.loads((folder / "config.json").read_text())["id2label"].values())


@pytest.mark.slow
def test_a_worker_that_dies_while_it_answers(folder: Path) -> None:
    """Another takes its place as soon as its model can be read, and the service goes on meanwhile."""
    with running(f"one={folder}", "--no-log", "--workers", "2") as service:
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        victims = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        away = folder.rename(folder.with_name("away"))
        os.kill(victims[0], signal.SIGKILL)
        wait_for(service, "a worker ended with status -9 and is replaced")
        wait_for(service, "a worker could not start")
        assert {service.ask("/v1/classify", FINE).status for _ in range(4)} == {200}
        away.rename(folder)
        while True:
            service.process.send_signal(signal.SIGHUP)  # without effect while a worker starts
            if "reloaded in" in wait_for(service, "e"):
                break
        assert {service.ask("/v1/classify", FINE).status for _ in range(4)} == {200}
    assert service.process.returncode == 0
