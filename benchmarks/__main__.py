"""``python -m benchmarks S1 S4``: run rows; without any, all of them. The table stands at the end."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from benchmarks.row import ROWS, Disagreement, run_row
from benchmarks.table import markdown, read_results, table


def main(
    rows: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(ROWS)}; none for all.")] = None,
    small: Annotated[bool, typer.Option(help="Small sizes, once; writes no result.")] = False,
    repetitions: Annotated[int | None, typer.Option(help="Of every side; the row's own by default.")] = None,
    show: Annotated[bool, typer.Option(help="Only print the table of what is there.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The table of what is there for the docs.")] = False,
) -> None:
    console, status = Console(width=150), 0
    unknown = [name for name in rows or () if name not in ROWS]
    if unknown:
        console.print(f"no row {', '.join(unknown)}. Mend: {', '.join(ROWS)}.")
        raise SystemExit(2)
    results = {} if small else read_results()
    if as_markdown:
        print(markdown(results))
        return
    for name in [] if show else rows or ROWS:
        try:
            results[name] = run_row(name, small=small, repetitions=repetitions, console=console)
        except (Disagreement, RuntimeError) as error:
            console.print(f"{name}: {error}", style="red", markup=False)
            status = 1
    console.print(table(results))
    raise SystemExit(status)


if __name__ == "__main__":
    typer.run(main)
