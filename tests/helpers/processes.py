"""Processes of a test's own, and the commands of scripts, without importing PyTorch again and again.

That takes seconds. So these processes are forked by a server that does nothing but import, and what a script asks of
`pocketbert` is noted, and then done in the test's own process. How commands start is what `tests/cli` is about.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch._dynamo", "torch.distributed.run", "torch.distributed.fsdp", "pocketbert.recipes.transfer",
     "pocketbert.recipes.distill", "pocketbert.cli.pretrain"]
)  # fmt: skip
STEP = "step-*[0-9]"


def kill_when(ready: Callable[[], bool], function: Callable[..., object], *arguments: object) -> None:
    """Call a function in a process, and kill that as soon as `ready()`, which must be before its end."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    while process.is_alive() and not ready():
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def newest(states: Path) -> int:
    """The step of the newest state in a folder; 0 where there is none."""
    return max((int(path.name[5:]) for path in states.glob(STEP)), default=0)


def ask(script: Path, *arguments: object, folder: Path) -> tuple[list[list[str]], str]:
    """What a script asks of `pocketbert`, which only notes it, and what the script itself complains of."""
    shell, notes = folder / "bin" / "pocketbert", folder / "notes"
    shell.parent.mkdir()
    shell.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >> {notes}\necho >> {notes}\n")
    shell.chmod(0o755)
    environment = {**os.environ, "PATH": f"{shell.parent}:{os.environ['PATH']}"}
    command = [str(script), *map(str, arguments)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return [line.split("\0")[:-1] for line in notes.read_text().splitlines()], ran.stderr


@dataclass
class Together:
    """`torchrun`'s agent, which starts the processes that share a run, and starts them again when one dies."""

    agent: ForkServerProcess
    log: Path

    def workers(self) -> list[int]:
        """The processes that the agent started."""
        children = Path(f"/proc/{self.agent.pid}/task/{self.agent.pid}/children").read_text().split()
        return [int(child) for child in children]

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds, which must be before the end."""
        while not holds():
            assert self.agent.is_alive(), self.said("err")
            time.sleep(0.001)

    def ends(self) -> int:
        """Wait for the end; the exit status."""
        self.agent.join(300)
        status = self.agent.exitcode
        self.agent.kill()
        assert status is not None, self.said("err")
        return status

    def said(self, stream: str) -> str:
        """What came out, or ("err") was complained of."""
        return self.log.with_suffix(f".{stream}").read_text()


def together(log: Path, arguments: Sequence[str], count: int = 2) -> Together:
    """Start so many processes over gloo of `pocketbert` with these arguments."""
    agent = CONTEXT.Process(target=_agent, args=(log, list(arguments), count))
    agent.start()
    return Together(agent, log)


def _agent(log: Path, arguments: list[str], count: int) -> None:
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    for descriptor, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(log.with_suffix(f".{stream}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # a restart must not look for the addresses of the dead
    flags = [f"--nproc-per-node={count}", "--max-restarts=1", "--monitor-interval=0.05", "--start-method=fork"]
    flags += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", f"--rdzv-id={os.getpid()}"]  # as --standalone says
    config, _, _ = config_from_args(parse_args([*flags, "unused"]))
    elastic_launch(config, _shell)(arguments)


def _shell(arguments: list[str]) -> None:
    """`pocketbert` with these arguments, in this process."""
    from pocketbert.cli import main

    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
