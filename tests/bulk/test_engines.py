"""Ray and Spark on this machine, and a bucket that a local server keeps: the rows and bits of one process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest

from pocketbert import BulkOptions, ColumnPipeline, DataError, answer_files
from pocketbert.bulk.storage import Folder, find
from pocketbert.data import executors
from pocketbert.pipelines import pipeline

Models = dict[str, Path]
WORDS = ["the", "film", "is", "great", "dull", "was", "born", "in", "warsaw"]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("".join(" ".join(WORDS[(i * k) % 9] for k in range(1, 2 + i % 20)) + f" {i}\n" for i in range(400)))
    return path


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of a server on this machine."""
    pytest.importorskip("moto")
    pytest.importorskip("pyarrow")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()  # what an earlier one kept
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket"
    server.stop()


def script(name: str, *arguments: str | Path) -> list[dict[str, Any]]:
    """The lines that a script beside this file prints, in a process of its own."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    command = [sys.executable, str(Path(__file__).with_name(name)), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("part-*")))


@pytest.mark.slow
def test_a_bucket_is_a_folder(bucket: str, models: Models, lines: Path, tmp_path: Path) -> None:
    """Read by pattern, written, resumed, and refused where it is not there or not ours."""
    place = Folder(f"{bucket}/in")
    texts = lines.read_bytes().splitlines(keepends=True)
    for number in range(3):
        place.write(f"{number}.txt", b"".join(texts[100 * number : 100 * (number + 1)]))
    assert [one.name for one in find(f"{bucket}/*/[0-9].txt")] == [f"{bucket}/in/{number}.txt" for number in range(3)]
    options: dict[str, Any] = {"model": models["classify"], "shard_rows": 64}
    result = answer_files(BulkOptions(file=f"{bucket}/in/*.txt", output=f"{bucket}/out", **options))
    assert (result.rows, result.shards) == (300, 5)
    there = Folder(f"{bucket}/out")
    assert there.names() == ["manifest.json", *(f"part-0000{number}.jsonl" for number in range(5))]
    (tmp_path / "lines.txt").write_bytes(b"".join(texts[:300]))
    answer_files(BulkOptions(file=tmp_path / "lines.txt", output=str(tmp_path / "here"), **options))
    assert b"".join(there.read(name) or b"" for name in there.names()[1:]) == content(tmp_path / "here")
    import boto3

    boto3.client("s3").delete_object(Bucket="bucket", Key="out/part-00002.jsonl")
    assert answer_files(BulkOptions(file=f"{bucket}/in/*.txt", output=f"{bucket}/out", **options)) == result
    assert there.read("part-00002.jsonl") == (tmp_path / "here" / "part-00002.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"s3://nobody/x.*: there is no such bucket"):
        answer_files(BulkOptions(file=lines, output="s3://nobody/x", **options))
    with pytest.raises(DataError, match="there is no such file"):
        find(f"{bucket}/in/*.csv")


@pytest.mark.slow
def test_a_bucket_without_rights(bucket: str, models: Models, lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket/*"}],
    }
    boto3.client("s3").put_bucket_policy(Bucket="bucket", Policy=json.dumps(policy))
    with pytest.raises(DataError, match=r"s3://bucket/out.*: no permission there"):
        answer_files(BulkOptions(file=lines, output=f"{bucket}/out", model=models["classify"]))


@pytest.mark.slow
def test_ray_gives_what_one_process_does(bucket: str, models: Models, lines: Path, tmp_path: Path) -> None:
    """Shards byte for byte, also of workers that are killed, from and to a bucket; columns row for row."""
    pytest.importorskip("ray")
    model = models["classify"]
    answer_files(BulkOptions(file=lines, model=model, output=str(tmp_path / "here"), shard_rows=50))
    Folder(f"{bucket}/in").write("lines.txt", lines.read_bytes())
    said = script("on_ray.py", model, tmp_path, lines, f"{bucket}/out", f"{bucket}/in/*.txt")
    assert content(tmp_path / "plain") == content(tmp_path / "here")
    assert content(tmp_path / "killed") == content(tmp_path / "here")
    there = Folder(f"{bucket}/out")
    local = tmp_path / "part.parquet"
    rows = []
    for name in there.names()[1:]:
        local.write_bytes(there.read(name) or b"")
        rows += pq.read_table(local).to_pylist()
    expected = [json.loads(line) for line in content(tmp_path / "here").splitlines()]
    assert rows == expected
    parts = {facts.pop("part"): facts for facts in said}
    assert parts["kills"]["count"]
    assert "use a checkpoint that was fine-tuned for this task" in parts["error"]["text"]
    ordered = sorted(expected, key=lambda row: str(row["text"]))
    assert parts["actors"]["rows"] == parts["tasks"]["rows"] == ordered


@pytest.mark.slow
def test_spark_gives_what_one_process_does(models: Models, lines: Path) -> None:
    pytest.importorskip("pyspark")
    [facts] = script("on_spark.py", models["tag"], lines)
    texts = lines.read_text().splitlines()
    pipe = ColumnPipeline("token-classification", models["tag"])
    results = pipeline("token-classification", models["tag"], aggregation_strategy="first")(texts)
    expected = {text: pipe.form.values(text, result) for text, result in zip(texts, results, strict=True)}
    for rows in facts.values():
        assert {row.pop("text"): row for row in rows} == expected


def test_a_cluster_that_is_not_there() -> None:
    pytest.importorskip("ray")
    with pytest.raises(DataError, match=r"no Ray cluster can be reached at 127\.0\.0\.1:9: "):
        list(executors.ray_executor("127.0.0.1:9")(abs, [1]))
    with pytest.raises(DataError, match="HOST:PORT or auto, not 'somewhere'"):
        list(executors.ray_executor("somewhere")(abs, [1]))
