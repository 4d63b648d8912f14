"""The same learning-rate search for every method of a problem, as a Markdown page.

    .venv/bin/python benchmarks/learning_rates.py demo 3e-3 6e-3 1.5e-2 3e-2 \\
        --out benchmarks/learning_rates.md

Each rate is a problem of its own that extends the given one, so what does not depend on the rate is
made once. Products stay in the workspace (PANACEA_HOME): stopped, it goes on where it was.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import PROJECT_ROOT, Workspace

BOARD = """
select method, value_ratio, value_ratio_low, value_ratio_high, charged_hypervolume, kl
from leaderboard where problem = ? and method not in ('reference', 'optimum', 'best_of_16')
"""


def evaluate(problem: str, rate: float, folder: Path) -> dict[str, dict[str, float]]:
    """Method → its row of the leaderboard, all methods trained at `rate`."""
    name = f"{problem}-rate-{rate:g}".replace(".", "-")
    text = f"name: {name}\nextends: {problem}\ntraining:\n  learning_rate: {rate!r}\n"
    # Those that the problem gives to single baselines would hide the one that is tried.
    text += f"baselines:\n  learning_rates:\n    dpo: {rate!r}\n    rewarded_soups: {rate!r}\n"
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "orchestration.cli", "materialize", name]
    given = os.environ.get("PANACEA_PROBLEMS", "")
    folders = f"{folder}{os.pathsep}{given}" if given else str(folder)
    environment = {**os.environ, "PANACEA_PROBLEMS": folders}
    subprocess.run(
        command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.DEVNULL, check=True
    )
    rows = Warehouse(Workspace.current().warehouse).read(BOARD, [name]).to_pylist()
    return {row["method"]: row for row in rows}


def page(problem: str, boards: dict[float, dict[str, dict[str, float]]], command: str) -> str:
    """The Markdown page: a row per rate, a column per method."""
    methods = sorted(next(iter(boards.values())))
    lines = [
        "# Learning rates",
        "",
        f"`{command}`, {date.today()}.",
        "Value ratio with its 95 % interval over prompts, and mean KL to the reference in nats;",
        "one seed. A method that is far below 0 drifted away from the reference.",
        "",
        f"| learning rate | {' | '.join(methods)} |",
        "|---:|" + "---|" * len(methods),
    ]
    for rate, board in boards.items():
        cells = [_cell(board[method]) for method in methods]
        lines.append(f"| {rate:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, float]) -> str:
    interval = f"{row['value_ratio_low']:.3f} to {row['value_ratio_high']:.3f}"
    return f"{row['value_ratio']:.3f} ({interval}), KL {row['kl']:.2f}"


def main() -> None:
    """Search, and write the page."""
    parser = argparse.ArgumentParser(description="One learning-rate search for every method.")
    parser.add_argument("problem")
    parser.add_argument("rates", nargs="+", type=float)
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"), help="the page's file")
    given = parser.parse_args()
    command = f"python benchmarks/learning_rates.py {given.problem} "
    command += " ".join(f"{rate:g}" for rate in given.rates)
    with tempfile.TemporaryDirectory() as folder:
        boards = {rate: evaluate(given.problem, rate, Path(folder)) for rate in given.rates}
    given.out.write_text(page(given.problem, boards, command), encoding="utf-8")


if __name__ == "__main__":
    main()
