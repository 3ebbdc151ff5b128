"""Several jobs in one start of torchrun, since importing torch takes longer than any of them: ``sharded FOLDER STAGE``.

FOLDER holds a folder a job, which are worked off in the order of their names.
"""

from __future__ import annotations

import sys
from pathlib import Path

from p2o_core.sharding.worker import speaker, work

if __name__ == "__main__":
    say = speaker()
    for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        work(folder, say)
