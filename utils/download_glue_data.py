"""Download GLUE, check every file, and lay it out as `--glue` reads it: a folder a task, MRPC included.

    python utils/download_glue_data.py --data_dir glue --tasks CoLA,MRPC

What is there and right is left alone; a download that broke off goes on where it stopped. Without a network, or where
the addresses have moved, put the files into `downloads/` of the folder yourself: they are checked and used like any.
MRPC comes as the SentEval project publishes it, already tokenised, and is divided by GLUE's list of ids. The addresses
and hashes are those of GLUE's own loaders; every task has its own licence. The extra `train` brings what draws bars.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from pocketbert.checkpoints.files import atomic_write
from pocketbert.data.glue import GLUE, GlueTask, read_glue
from pocketbert.errors import DataError, PocketBertError

PUBLISHED = "https://dl.fbaipublicfiles.com/"
_CHUNK = 1 << 16


class Source(NamedTuple):
    """A published file."""

    address: str
    sha256: str

    @property
    def name(self) -> str:
        """Its name."""
        return self.address.rpartition("/")[2]


class Data(NamedTuple):
    """The files of a task, and how many rows its training, development and test sets have."""

    sources: tuple[Source, ...]
    rows: tuple[int, ...]


DATA = {
    "CoLA": Data(
        (Source("glue/data/CoLA.zip", "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff"),),
        (8551, 1043, 1063),
    ),
    "SST-2": Data(
        (Source("glue/data/SST-2.zip", "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa"),),
        (67349, 872, 1821),
    ),
    "MRPC": Data(
        (
            Source(
                "senteval/senteval_data/msr_paraphrase_train.txt",
                "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
            ),
            Source(
                "senteval/senteval_data/msr_paraphrase_test.txt",
                "a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
            ),
            Source("glue/data/mrpc_dev_ids.tsv", "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7"),
        ),
        (3668, 408, 1725),
    ),
    "STS-B": Data(
        (Source("glue/data/STS-B.zip", "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85"),),
        (5749, 1500, 1379),
    ),
    "QQP": Data(
        (Source("glue/data/QQP-clean.zip", "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0"),),
        (363846, 40430, 390965),
    ),
    "MNLI": Data(
        (Source("glue/data/MNLI.zip", "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633"),),
        (392702, 9815, 9832, 9796, 9847),
    ),
    "QNLI": Data(
        (Source("glue/data/QNLIv2.zip", "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5"),),
        (104743, 5463, 5463),
    ),
    "RTE": Data(
        (Source("glue/data/RTE.zip", "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee"),),
        (2490, 277, 3000),
    ),
    "WNLI": Data(
        (Source("glue/data/WNLI.zip", "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46"),),
        (635, 71, 146),
    ),
    "AX": Data(
        (Source("glue/data/AX.tsv", "0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd"),),
        (1104,),
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the script: 0 if every task is complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=Path("glue"), help="the folder for all tasks")
    parser.add_argument("--tasks", default="all", help=f"all, or some of {','.join(DATA)}")
    parser.add_argument("--path_to_mrpc", type=Path, help="a folder with Microsoft's own files, to be used for MRPC")
    options = parser.parse_args(arguments)
    tasks = list(DATA) if options.tasks == "all" else options.tasks.split(",")
    if unknown := [name for name in tasks if name not in DATA]:
        parser.error(f"--tasks {','.join(unknown)}: these are {','.join(DATA)}")
    failed = 0
    for name in tasks:
        try:
            print(f"{name}: {prepare(name, options.data_dir, options.path_to_mrpc)}")
        except (PocketBertError, OSError, KeyError, zipfile.BadZipFile) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


def prepare(name: str, folder: Path, path_to_mrpc: Path | None = None) -> str:
    """Make the folder of a task, unless it is there and complete; returns how many rows it has, for people."""
    task = next(task for task in GLUE.values() if task.folder == name)
    if not (folder / name).exists() or counted(task, folder) != DATA[name].rows:
        own = [path_to_mrpc / source.name if path_to_mrpc else None for source in DATA[name].sources]
        downloaded = [
            path if path and path.exists() and name == "MRPC" else fetch(source, folder / "downloads" / source.name)
            for path, source in zip(own, DATA[name].sources, strict=True)
        ]
        lay_out(task, folder, downloaded)
    rows = counted(task, folder)
    if rows != DATA[name].rows:
        raise DataError(
            f"{folder / name} has {', '.join(map(str, rows)) or 'no'} rows, the published files "
            f"{', '.join(map(str, DATA[name].rows))}: remove the folder, and run this again"
        )
    return f"complete, {', '.join(f'{count:,}' for count in rows)} rows in {folder / name}"


def counted(task: GlueTask, folder: Path) -> tuple[int, ...]:
    """How many rows the sets of a task have; none where a file cannot be read."""
    splits = ("test",) if task.train is None else ("train", "dev", "test")
    try:
        key = next(key for key, one in GLUE.items() if one is task)
        return tuple(len(table) for split in splits for table in read_glue(folder, key, split).values())
    except DataError:
        return ()


def lay_out(task: GlueTask, folder: Path, downloaded: list[Path]) -> None:
    """Unpack what was downloaded into the folder of the task."""
    place = folder / task.folder
    place.mkdir(parents=True, exist_ok=True)
    if task.folder == "MRPC":
        raw = folder / "downloads" / "MRPC"
        raw.mkdir(parents=True, exist_ok=True)
        for path in downloaded:
            shutil.copyfile(path, raw / path.name)
        for split in ("train", "dev", "test"):
            [table] = read_glue(raw, "mrpc", split).values()
            lines = table.path.read_text(encoding="utf-8-sig").split("\n")
            chosen = [lines[one.line - 1].rstrip("\r").split("\t") for one in table.examples]
            first = "index" if split == "test" else "Quality"  # the labels of the test set are not for us
            rows = ([str(i), *row[1:]] if split == "test" else row for i, row in enumerate(chosen))
            _write(place / f"{split}.tsv", [[first, "#1 ID", "#2 ID", "#1 String", "#2 String"], *rows])
    elif task.folder == "AX":
        shutil.copyfile(downloaded[0], place / "diagnostic.tsv")
    else:
        with zipfile.ZipFile(downloaded[0]) as archive:
            for name in (task.train, *(file for _, file in task.dev), *task.test):
                with archive.open(f"{task.folder}/{name}") as source, atomic_write(place / str(name)) as target:
                    shutil.copyfileobj(source, target)


def _write(path: Path, rows: Iterable[list[str]]) -> None:
    with atomic_write(path, "w") as file:
        file.writelines("\t".join(row) + "\n" for row in rows)


def fetch(source: Source, path: Path) -> Path:
    """Download a file to `path`, or go on with it; what is there already is checked."""
    address = f"{PUBLISHED}{source.address}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        try:
            _download(address, part)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise DataError(
                f"{address} cannot be read ({reason}); run this again to go on, or bring the file from elsewhere to "
                f"{path}"
            ) from error
        part.replace(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        path.unlink()
        raise DataError(
            f"{path} was not the published file: its SHA-256 was {found}, not {source.sha256}; it is removed, run this "
            "again"
        )
    return path


def _download(address: str, part: Path) -> None:
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={there}-"} if there else {})
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416 and there:  # there is nothing after what is there
            return
        raise
    with answer, Progress(*columns, TimeRemainingColumn(), transient=True) as bar:
        goes_on = answer.status == 206
        length = int(answer.headers.get("Content-Length") or 0)
        task = bar.add_task(part.stem, total=(there if goes_on else 0) + length or None)
        bar.update(task, completed=there if goes_on else 0)
        with part.open("ab" if goes_on else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.advance(task, len(chunk))
    if length and part.stat().st_size < (there if goes_on else 0) + length:
        raise ConnectionError("the connection broke off")


if __name__ == "__main__":
    sys.exit(main())
