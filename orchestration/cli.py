"""The command `panacea`: problems, runs, SQL and answers from a shell.

Exit codes: 0 done, 1 something failed, 2 bad input, 130 interrupted. Dagster and the model
libraries are imported by the commands that need them, after the workspace is set up.
"""

import json
import os
import sys
import traceback
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from orchestration.champion import app as champion
from orchestration.disk_full import disk_full_message
from orchestration.environment import (
    be_quiet,
    disable_telemetry,
    enter_workspace,
    go_offline,
    share_cores,
)
from orchestration.inbox import inbox
from orchestration.label import label
from orchestration.people import app as people
from orchestration.prune import prune_command
from orchestration.running import check_data, materialize_selected
from panacea_lib.artifact_store import DamagedArtifactError
from panacea_lib.champions import ALIAS, ChampionChangedError, champion_of
from panacea_lib.data.inbox import InboxBusyError
from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.problem_files import (
    load_problem,
    load_problem_named,
    problem_json_schema,
)
from panacea_lib.problem_template import new_problem
from panacea_lib.warehouse import (
    SchemaVersionError,
    Warehouse,
    WarehouseBusyError,
    run_query,
    to_csv,
    to_json,
)
from panacea_lib.workspace import Workspace

app = typer.Typer(
    help="One language model, every preference: align it, measure it, ask it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(champion, name="champion")
app.add_typer(people, name="people")
_FAILURES = (
    MissingUpstreamError,
    ChampionChangedError,
    WarehouseBusyError,
    SchemaVersionError,
    DamagedArtifactError,
    InboxBusyError,
)


def main() -> None:
    """Run the command line; errors that a person can mend are one clear message."""
    disable_telemetry()
    share_cores()
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except _FAILURES as error:
        typer.echo(str(error), err=True)
        sys.exit(1)
    except Exception as error:
        full = disk_full_message("".join(traceback.format_exception(error)))
        if full is None:
            raise
        typer.echo(full, err=True)
        sys.exit(1)


@app.command()
def problems() -> None:
    """List the problems: the shipped ones, and those in the folders of PANACEA_PROBLEMS."""
    from orchestration.printing import print_problems

    print_problems(Workspace.current())


@app.command()
def datasets() -> None:
    """List the known data sets: `data: {kind: known, name: NAME}` in a problem reads one."""
    from orchestration.printing import print_datasets

    print_datasets()


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="A problem's YAML file.")],
    data: Annotated[bool, typer.Option(help="Also read the data file it names.")] = True,
) -> None:
    """Check a problem file, and every row of the data file that it names."""
    problem = load_problem(file, Workspace.current())
    found = check_data(problem, file) if data else None
    typer.echo(f"{file}: {problem.name} is a valid problem")
    if found is None:
        return
    _print_counts(found.counts, "  ")
    for part, counts in found.part_counts.items():
        typer.echo(f"  of {part}:")
        _print_counts({name: count for name, count in counts.items() if count}, "    ")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The problem's name.")],
    out: Annotated[Path | None, typer.Option(help="Write here instead of to stdout.")] = None,
) -> None:
    """Print a commented problem file to start from."""
    text = new_problem(name)
    if out is None:
        typer.echo(text, nl=False)
        return
    if out.is_dir():
        out = out / f"{name}.yaml"
    if out.exists():
        raise InputError(f"{out} exists already; move it away, or name another file with --out")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; create it first")
    out.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {out}; edit it, then `panacea validate {out}`")


@app.command()
def materialize(
    problem: Annotated[str, typer.Argument(help="The problem's name (see `panacea problems`).")],
    select: Annotated[
        str | None, typer.Option(help="Assets with commas, or a selection in Dagster's syntax.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the problem's own.")] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="At most so many steps per policy, reward model.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Make again what is here already.")] = False,
) -> None:
    """Make everything of a problem, or the selected assets; what is here already is reused."""
    materialize_selected(problem, select, seed, max_steps, force)


app.command()(label)
app.command("prune")(prune_command)
app.command()(inbox)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help='SQL, e.g. "from leaderboard".')],
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per row.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
) -> None:
    """Ask the warehouse, read-only; docs/sql.md has ready queries."""
    if as_json and as_csv:
        raise InputError("give --json or --csv, not both")
    table = run_query(Warehouse(Workspace.current().warehouse), query)
    if as_json:
        typer.echo(to_json(table))
    elif as_csv:
        typer.echo(to_csv(table), nl=False)
    else:
        from orchestration.printing import print_table

        print_table(table)


@app.command()
def ask(
    problem: Annotated[
        str, typer.Argument(help="A problem that has been materialised, or champion:PROBLEM.")
    ],
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    prefer: Annotated[
        list[str] | None,
        typer.Option(
            help="A preference vector, e.g. harmlessness=.8,helpfulness=.2; dimensions that are "
            "not named share the rest. Give it again to compare. Default: all alike."
        ),
    ] = None,
    slider: Annotated[
        list[float] | None,
        typer.Option(
            help="Instead of --prefer, for two dimensions: a position from 0 (all weight on the "
            "second) to 1 (all on the first), in equal steps along the measured front."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="A method of the leaderboard.")] = "panacea",
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another answer.")] = 0,
) -> None:
    """Ask the trained policy, once per preference vector."""
    from orchestration.prefer import parse_preference
    from panacea_lib.stored_slider import check_position

    workspace = Workspace.current()
    name = problem.removeprefix(ALIAS)
    loaded = load_problem_named(workspace, name)
    names = loaded.dimension_names
    if name != problem:  # the champion answers for the dimensions that it was trained on
        names = champion_of(Warehouse(workspace.warehouse), name).dimensions
    if prefer and slider:
        raise InputError("give --prefer or --slider, not both")
    for position in slider or []:
        check_position(names, position)
    even = {name: 1 / len(names) for name in names}
    preferences = [parse_preference(text, names) for text in prefer or []] or [even]
    if not prompt.strip():
        raise InputError("the prompt is empty; write what to ask")
    go_offline(loaded)
    be_quiet()
    from panacea_lib.policy import load_policy

    policy = load_policy(problem, method, workspace)
    if slider:
        preferences = [policy.slider(position) for position in slider]
    for preference in preferences:
        weights = ", ".join(f"{name} {weight:.2g}" for name, weight in preference.items())
        typer.echo(f"[{weights}]\n{policy.ask(prompt, preference, seed=seed)}")


@app.command()
def export(
    problem: Annotated[str, typer.Argument(help="A problem that has been materialised.")],
    prefer: Annotated[
        str,
        typer.Option(
            help="The preference vector, e.g. harmlessness=.8,helpfulness=.2; dimensions that are "
            "not named share the rest."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the LoRA.")],
    method: Annotated[str, typer.Option(help="Which Panacea adapter.")] = "panacea",
) -> None:
    """Freeze the trained policy at one preference vector into a plain LoRA."""
    from orchestration.export import check_out, export_policy
    from orchestration.prefer import parse_preference

    workspace = Workspace.current()
    loaded = load_problem_named(workspace, problem)
    preference = parse_preference(prefer, loaded.dimension_names)
    check_out(out)
    go_offline(loaded)
    be_quiet()
    lines = export_policy(problem, method, preference, out, workspace)
    typer.echo(f"wrote {out}: a LoRA for PEFT and the servers that read its files\n{lines}")


@app.command()
def report(
    problem: Annotated[str, typer.Argument(help="A problem that has been materialised.")],
    show: Annotated[bool, typer.Option("--open", help="Also open it in the browser.")] = False,
) -> None:
    """Print where a problem's report lies."""
    workspace = Workspace.current()
    load_problem_named(workspace, problem)  # a name that is no problem's is bad input
    page = workspace.reports / f"{problem}.html"
    if not page.exists():
        raise MissingUpstreamError(
            f"{problem} has no report yet: run `panacea materialize {problem}`"
        )
    typer.echo(page)
    if show and not webbrowser.open(page.as_uri()):
        typer.echo("no browser was found here; open the file yourself", err=True)
        raise typer.Exit(1)


@app.command()
def choose(
    problem: Annotated[str, typer.Argument(help="A problem that has been evaluated.")],
    at_least: Annotated[
        list[str],
        typer.Option(
            help="A floor under a mean reward, e.g. harmlessness=0.5 (0: the base model's mean, 1: "
            "its spread). Give it again for another dimension."
        ),
    ],
    most: Annotated[
        str, typer.Option(help="The dimension to have the most of; it may have a floor too.")
    ],
    method: Annotated[str, typer.Option(help="A method of the leaderboard.")] = "panacea",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
) -> None:
    """Which λ to ask for: of the evaluated ones that hold the floors, the one with the most."""
    from orchestration.choose import choice_json, choice_lines, choose_preference
    from orchestration.prefer import check_dimension, parse_floors

    workspace = Workspace.current()
    loaded = load_problem_named(workspace, problem)
    floors = parse_floors(at_least, loaded.dimension_names)
    check_dimension("--most", most, loaded.dimension_names)
    warehouse = Warehouse(workspace.warehouse)
    choice, judge = choose_preference(warehouse, loaded, method, floors, most)
    if as_json:
        told = choice_json(choice, method, judge)
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(choice_lines(choice, method, judge))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def dev(context: typer.Context) -> None:
    """Open the Dagster UI on this workspace; further options go to `dagster dev` (--port 3000)."""
    enter_workspace(Workspace.current())
    # Dagster prefers another command, which wants a project laid out its own way.
    quiet = ["-W", "ignore:Function `dev_command`"]
    command = [*quiet, "-m", "dagster", "dev", "-m", "orchestration.definitions", *context.args]
    os.execv(sys.executable, [sys.executable, *command])


@app.command()
def schema() -> None:
    """Print the JSON schema of problem files, for editors."""
    typer.echo(json.dumps(problem_json_schema(), indent=2, ensure_ascii=False))


def _print_counts(counts: dict[str, int], indent: str) -> None:
    for name, count in counts.items():
        typer.echo(f"{indent}{name.replace('_', ' ')}: {count:,}")


if __name__ == "__main__":
    main()
