"""What a fresh process imports."""

import os
import subprocess
import sys


def python(code: str) -> str:
    """What `code` prints in a fresh interpreter, in which every warning is an error."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def imported(code: str) -> set[str]:
    """The modules that `code` imports in a fresh process."""
    script = f"import sys; before = set(sys.modules); {code}; sys.stderr.write('\\n'.join(set(sys.modules) - before))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return set(done.stderr.splitlines())


def packages(modules: set[str]) -> set[str]:
    """Those that neither Python nor this machine brings."""
    return {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
