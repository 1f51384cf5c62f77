"""The main jobs on held-out scenes and clips: the plugin line, honest reports, a search. Run by `make demo`."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where demo is
from demo.run import main  # noqa: E402

if __name__ == '__main__':
    try:
        main()
    except subprocess.CalledProcessError as error:
        # The tool has said what is wrong.
        sys.exit(error.returncode)
