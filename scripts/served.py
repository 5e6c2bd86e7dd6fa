"""A service of one's own for a script to try: the installed package, in a process that is gone afterwards."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def service(*arguments: str, prepare: Callable[[], None] | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a service on a free port, and its process; without models given, the bundled one.

    `prepare` is called in the new process before the service, as by `subprocess.Popen`.
    """
    command = [sys.executable, "-m", "pocketbert.cli", "serve", "--port", "0", "--no-log", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=prepare)
    assert process.stderr is not None
    written = []
    try:
        for line in process.stderr:  # notes may come before the address
            if found := re.search(r"http://\S+", line):
                break
            written.append(line)
        else:
            raise SystemExit(f"the service did not start:\n{''.join(written)}")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would stop the service
        yield found[0], process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
