"""One side of a row, in this process: ``python -m benchmarks.side ROW SIDE SETTINGS FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from benchmarks.measuring import Meter
from benchmarks.row import load_row


def main(row: str, side: str, settings: str, folder: str) -> None:
    given = json.loads(settings)
    meter = Meter(profile=bool(given.get("profile")))
    numbers = dict(load_row(row).sides[side](given, meter, Path(folder)))
    operators = {"operators": meter.operators} if meter.operators else {}
    (Path(folder) / "numbers.json").write_text(json.dumps({**meter.numbers(), **operators, **numbers}))
    sys.stdout.flush()
    os._exit(0)  # libraries' exit handlers (vLLM's, Prefect's) are no part of a measurement


if __name__ == "__main__":
    main(*sys.argv[1:])
