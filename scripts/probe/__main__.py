"""The command line: one section, into one file."""

import json
import sys
from pathlib import Path

from probe import commands, exports, networks, runs, service
from probe.recorder import Probe

SECTIONS = {**networks.SECTIONS, **commands.SECTIONS, **service.SECTIONS, **runs.SECTIONS, **exports.SECTIONS}


def main() -> None:
    """Run a section; `python -m probe` alone prints their names."""
    if len(sys.argv) == 1:
        print(*SECTIONS)
        return
    section, result = sys.argv[1:]
    probe = Probe()
    SECTIONS[section](probe)
    Path(result).write_text(json.dumps(probe.items))


if __name__ == "__main__":
    main()
