"""What `panacea` prints: tables of problems, of rows, and of a finished run."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestration.disk_full import DISK_FULL
from orchestration.summary import comparison_rows, front_rows, leaderboard_rows
from panacea_lib.champions import champion_events, champion_in
from panacea_lib.errors import InputError
from panacea_lib.plan import Plan
from panacea_lib.problem_files import find_problems, load_problem
from panacea_lib.problem_known import known_datasets
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

if TYPE_CHECKING:
    from orchestration.chain import Finished
    from orchestration.label import Planned

INTERRUPTED = "DagsterExecutionInterruptedError"
_SAY_ALL = (  # errors whose message is all there is to say
    DISK_FULL,
    "InputError",
    "LeaseHeldError",
    "MissingUpstreamError",
    "NotEnoughMemoryError",
    "TrainingKilledError",
    "TrainingStoppedError",
)
_WIDTH = 120  # where there is no terminal to ask
_UNBOUNDED = 10_000  # wider than any table
_COLUMNS_EACH = 3  # dimensions that have columns of their own
_CLIPPED = 160  # characters of a prompt or an answer


def _console(stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, width=_WIDTH, highlight=False)


def print_problems(workspace: Workspace) -> None:
    """A row per problem file; of a bad one its mistake."""
    made = _made(workspace)
    table = Table("problem", "dimensions", "data", "base model", "evaluated", "description")
    for name, path in find_problems(workspace).items():
        try:
            problem = load_problem(path, workspace)
        except InputError as error:  # the others are still worth listing
            table.add_row(name, "", "", "", "", f"[red]{escape(str(error))}[/red]")
            continue
        base = getattr(problem.base_model, "model", "from scratch")
        table.add_row(
            name,
            ", ".join(problem.dimension_names),
            problem.data.kind,
            f"{base} {problem.base_model.quantization}".removesuffix(" none"),
            made.get(name, "–"),
            escape(problem.description),
        )
    _console().print(table)


def print_datasets() -> None:
    """A row per known data set."""
    table = Table("data set", "dimensions", "licence")
    table.add_column("link", overflow="fold")
    for known in known_datasets().values():
        table.add_row(known.name, ", ".join(known.dimensions), known.license, known.link)
    _console().print(table)


def _made(workspace: Workspace) -> dict[str, str]:
    """problem → when the front that it shows was made."""
    warehouse = Warehouse(workspace.warehouse)
    if not warehouse.snapshot.exists():
        return {}
    rows = warehouse.read("select problem, created_at from runs where stage = 'pareto_front'")
    return {row["problem"]: f"{row['created_at']:%Y-%m-%d %H:%M}" for row in rows.to_pylist()}


def print_table(rows: pa.Table) -> None:
    """Any query's answer, to be read; --json and --csv are for programs.

    A few rows that are too wide are laid out sideways, a column per row.
    """
    console = _console()
    cells = [
        [escape(_cell(value)) for value in column.to_pylist(maps_as_pydicts="strict")]
        for column in rows.columns
    ]
    table = Table()
    for name, kind in zip(rows.column_names, rows.schema.types, strict=True):
        number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        table.add_column(escape(name), justify="right" if number else "left", overflow="fold")
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    too_wide = (
        console.measure(table, options=console.options.update(width=_UNBOUNDED)).maximum
        > console.width
    )
    if too_wide and 2 * rows.num_rows < rows.num_columns:
        table = Table(show_header=False)
        for name, column in zip(rows.column_names, cells, strict=True):
            table.add_row(f"[bold]{escape(name)}[/bold]", *column)
    console.print(table)
    _console(stderr=True).print(f"{rows.num_rows} rows", style="dim")


def print_run(
    workspace: Workspace,
    problem: str,
    finished: "Finished",
    assets: list[str],
    seed: int | None,
    max_steps: int | None,
) -> None:
    """What failed and why, or the front, the leaderboard and where everything lies."""
    errors = _console(stderr=True)
    for warning in finished.warnings:
        errors.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    for failure in finished.failures:
        if failure.error == INTERRUPTED:
            errors.print(
                f"[red]{failure.step} was interrupted;[/red] the same command goes on there"
            )
            continue
        if failure.error not in _SAY_ALL:
            errors.print(escape(failure.trace), soft_wrap=True)
        errors.print(f"[red]{failure.step} failed:[/red] {escape(failure.message)}", soft_wrap=True)
    for check in finished.failed_checks:
        errors.print(f"[red]check failed:[/red] {escape(check)}", soft_wrap=True)
    if not finished.success:
        if INTERRUPTED not in {failure.error for failure in finished.failures}:
            errors.print(f"Run {finished.run_id} failed; `panacea dev` shows it with its logs.")
        return
    if "pareto_front" in assets:
        _print_evaluation(workspace, problem, seed, max_steps)
    out = _console()
    if "champion" in assets:
        out.print(_champion_line(Warehouse(workspace.warehouse), problem), soft_wrap=True)
    if "report" in assets:
        out.print(f"report:    {workspace.reports / problem}.html", soft_wrap=True)
    out.print(f"database:  {Warehouse(workspace.warehouse).snapshot}", soft_wrap=True)


def _champion_line(warehouse: Warehouse, problem: str) -> str:
    """Who is champion and, where it was a refusal, the last decision."""
    events = champion_events(warehouse, problem)
    champion, last = champion_in(events), events[-1]
    told = "champion:  none yet"
    if champion is not None:
        how = champion.action.replace("_", " ")
        told = f"champion:  {champion.policy_key[:8]}, {how} {champion.decided_at:%Y-%m-%d %H:%M}"
    if last.action == "refused":
        told += f"; refused {last.policy_key[:8]}: {escape(last.reason)}"
    return told


def _print_evaluation(
    workspace: Workspace, problem: str, seed: int | None, max_steps: int | None
) -> None:
    path = find_problems(workspace)[problem]
    plan = Plan.of(load_problem(path, workspace), path, seed, max_steps)
    warehouse = Warehouse(workspace.warehouse)
    front_key = plan.key("pareto_front")
    points = front_rows(warehouse, problem, front_key, plan.key("generations", "panacea"))
    out = _console()
    out.print(front_table(problem, points))
    out.print(_leaderboard_table(leaderboard_rows(warehouse, problem, front_key)))
    out.print(_verdict(comparison_rows(warehouse, problem, front_key)))


def front_table(problem: str, points: list[dict[str, Any]]) -> Table:
    """λ, mean rewards, KL and one answer per row.

    Up to three dimensions have columns of their own. More share one, and of their long grid only
    the vertices and the centre are shown, which come first.
    """
    names = list(points[0]["preference"])
    narrow = len(names) <= _COLUMNS_EACH
    shown = points if narrow else points[: len(names) + 1]
    caption = f"the answers are to: {escape(_clip(points[0]['prompt']))}"
    if len(shown) < len(points):
        caption += f"\n{len(points) - len(shown)} more preferences: panacea sql "
        caption += escape(f"\"from pareto_front where problem = '{problem}'\"")
    title = f"The front of {problem}: mean reward ({points[0]['judge']}) for every preference"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    if narrow:
        for name in [*(f"λ {name}" for name in names), *names]:
            table.add_column(name, justify="right")
    else:
        for name in ("dimension", "λ", "mean reward"):
            table.add_column(name, justify="left" if name == "dimension" else "right")
    table.add_column("KL", justify="right")
    table.add_column("one answer", overflow="fold", min_width=24)
    for point in shown:
        weights = [f"{point['preference'][name]:.2f}" for name in names]
        rewards = [f"{point['rewards'][name]:+.2f}" for name in names]
        kl = f"{round(point['kl'], 2) + 0.0:.2f}"  # an estimate may be -0.001: no "-0.00"
        cells = [*weights, *rewards] if narrow else map("\n".join, (names, weights, rewards))
        table.add_row(*cells, kl, escape(_clip(point["response"] or "")), end_section=not narrow)
    return table


def _clip(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _CLIPPED else f"{text[: _CLIPPED - 1]}…"


def _leaderboard_table(rows: list[dict[str, Any]]) -> Table:
    exact = rows[0]["judge"] == "gold"
    optimum = "the exact optimum" if exact else "an estimated optimum"
    table = Table(
        title=f"Value ratio: the share of {optimum} that each method gets", title_justify="left"
    )
    table.add_column("method")
    for name in ("value ratio", "95 %", "charged hypervolume", "KL", "forwards per token", "n"):
        table.add_column(name, justify="right")
    for row in rows:
        low, high = row["value_ratio_low"], row["value_ratio_high"]
        forwards = row["forwards_per_token"]
        table.add_row(
            row["method"],
            _figure(row["value_ratio"]),
            "" if low is None or low == high else f"{low:.3f} – {high:.3f}",
            _figure(row["charged_hypervolume"]),
            _figure(row["kl"]),
            "–" if forwards is None else f"{forwards}",
            f"{row['n']:,}",
        )
    return table


def _verdict(comparisons: list[dict[str, Any]]) -> str:
    """What may be said of Panacea beside its rivals: differences under the same prompts."""
    said: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": []}
    for row in comparisons:
        if (row["method"], row["metric"]) != ("panacea", "value_ratio"):
            continue
        how = "" if row["low"] is None else f", {row['low']:+.3f} to {row['high']:+.3f}"
        said[row["verdict"]].append(f"{row['other']} ({_signed(row['difference'])}{how})")
    words = {
        "better": "panacea beats",
        "worse": "panacea is beaten by",
        "no difference shown": "no difference shown to",
    }
    return "\n".join(f"{words[v]} {', '.join(names)}" for v, names in said.items() if names)


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(member)}" for name, member in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return str(value)


def print_planned_labels(planned: "list[Planned]") -> None:
    """What `panacea label` would ask: a row per dimension and source, then the sum."""
    table = Table("labels", "pairs", "requests", "answered before", "tokens in", "out, at most")
    table.add_column("price, at most")
    asked = cost = 0
    for row in planned:
        found = row.estimate
        if found is None:
            table.add_row(row.part, "made already" if row.made else "costs nothing")
            continue
        asked += found.requests - found.cached
        cost += found.cost or 0
        table.add_row(
            row.part,
            f"{found.pairs:,}",
            f"{found.requests:,}",
            f"{found.cached:,}",
            f"{found.input_tokens:,}",
            f"{found.output_tokens:,}",
            "–" if found.cost is None else f"{found.cost:,.2f}",
        )
    _console().print(table)
    priced = f", at most {cost:,.2f} by the problem's prices" if cost else ""
    print(f"{asked:,} requests would be sent{priced}; nothing was asked")
