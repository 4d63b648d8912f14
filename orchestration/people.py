"""`panacea people`: pairs out to people, their answers in, and how far they agree."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import typer

from orchestration.pair_texts import current_pairs, labelled_pairs
from orchestration.prefer import check_dimension
from panacea_lib.errors import InputError
from panacea_lib.problem import Problem
from panacea_lib.problem_files import find_problems, load_problem_named
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

if TYPE_CHECKING:
    from panacea_lib.labelling.people_files import AnsweredBatch

app = typer.Typer(
    help="Ask people: export pairs, import their answers, see how far they agree.",
    no_args_is_help=True,
)
_ProblemName = Annotated[str, typer.Argument(help="A problem that has pairs.")]


@app.command("export")
def export_pairs(
    problem: _ProblemName,
    dimension: Annotated[str, typer.Option(help="What is asked: one of the dimensions.")],
    out: Annotated[Path, typer.Option(help="A new file, .csv or .parquet.")],
    count: Annotated[int, typer.Option(min=1, help="At most so many pairs.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other pairs.")] = 0,
    overlap: Annotated[
        bool,
        typer.Option(
            help="Only pairs that somebody has answered already, so that agreement is known."
        ),
    ] = False,
) -> None:
    """Write pairs to be answered in any spreadsheet; those that have no label yet come first."""
    from panacea_lib.labelling.people import all_answers, answered_by, choose_pairs
    from panacea_lib.labelling.people_files import export_batch

    workspace = Workspace.current()
    loaded = load_problem_named(workspace, problem)
    check_dimension("--dimension", dimension, loaded.dimension_names)
    warehouse = Warehouse(workspace.warehouse)
    pairs = current_pairs(warehouse, problem)
    ids = pairs["pair_id"].to_pylist()
    people = answered_by(all_answers(_folders(workspace, loaded)[dimension]), dimension)
    if overlap:
        ids = [pair for pair in ids if pair in people]
        last = {pair for pair, who in people.items() if len(who) > 1}
        if not ids:
            raise InputError(
                f"--overlap: nobody has answered any pair on {dimension} yet; export a batch "
                "without it and import the answers first"
            )
    else:
        last = {*people, *labelled_pairs(warehouse, problem, dimension)}
    chosen = choose_pairs(ids, count, seed, last)
    position = {pair: i for i, pair in enumerate(pairs["pair_id"].to_pylist())}
    rows = export_batch(pairs.take([position[pair] for pair in chosen]), [dimension], out)
    known = sum(pair in last for pair in chosen)
    what = "answered by two people or more" if overlap else "that have a label or an answer"
    typer.echo(
        f"wrote {out}: {_many(rows, 'pair')}, {known:,} of them {what}\n"
        "fill in preferred (a, b, tie, or P(a preferred) from 0 to 1), annotator (a name) and, if "
        f"you like, comment; then `panacea people import {problem} FILE`"
    )


@app.command("import")
def import_answers(
    problem: _ProblemName,
    file: Annotated[Path, typer.Argument(help="The batch that came back, .csv or .parquet.")],
) -> None:
    """Check the answers and keep them; the same file a second time changes nothing."""
    from panacea_lib.labelling.people import file_answers, new_answers
    from panacea_lib.labelling.people_files import read_answers

    workspace = Workspace.current()
    loaded = load_problem_named(workspace, problem)
    pairs = current_pairs(Warehouse(workspace.warehouse), problem)
    batch = read_answers(file, pairs, loaded.dimension_names)
    if not batch.answers:
        raise InputError(f"{file}: no row is answered; fill in preferred and annotator")
    folders = _folders(workspace, loaded)
    parts = {
        folder: [answer for answer in batch.answers if folders[answer.dimension] == folder]
        for folder in {folders[answer.dimension] for answer in batch.answers}
    }
    for folder, answers in parts.items():
        new_answers(folder, answers)  # refuse what any folder refuses before one is written to
    filed = [file_answers(folder, answers) for folder, answers in parts.items()]
    for part in filed:
        if part.path is not None:
            typer.echo(f"filed {_many(part.new, 'answer')} in {part.path}")
    new, known = sum(part.new for part in filed), sum(part.known for part in filed)
    if not new:
        typer.echo("nothing is new: every answer had been filed before")
    typer.echo(
        f"  already there: {known:,}; unanswered rows: {batch.unanswered:,}; repeated rows: "
        f"{batch.repeated:,}"
    )
    if new:
        typer.echo(_next_step(loaded, batch))


@app.command()
def status(problem: _ProblemName) -> None:
    """Per dimension: how much people have answered, and how far they agree.

    answered, by two: pairs that one person or more, two or more have answered; alpha:
    Krippendorff's; outdated: answers on pairs that the problem no longer has; source: whether
    `labels` of the problem names people.
    """
    from orchestration.printing import print_table
    from panacea_lib.labelling.people import all_answers, answered_by

    workspace = Workspace.current()
    loaded = load_problem_named(workspace, problem)
    warehouse = Warehouse(workspace.warehouse)
    pairs = current_pairs(warehouse, problem)
    current = set(pairs["pair_id"].to_pylist())
    rows: list[dict[str, Any]] = []
    for dimension, folder in _folders(workspace, loaded).items():
        people = answered_by(all_answers(folder), dimension)
        kept = [who for pair, who in people.items() if pair in current]
        rows.append(
            {
                "dimension": dimension,
                "pairs": len(current),
                "labelled": len(labelled_pairs(warehouse, problem, dimension) & current),
                "people": len(set().union(*kept)),
                "answers": sum(map(len, kept)),
                "answered": len(kept),
                "by two": sum(len(who) > 1 for who in kept),
                "alpha": _alpha(folder, dimension, pairs),
                "outdated": sum(map(len, people.values())) - sum(map(len, kept)),
                "source": "yes" if _asks_people(loaded, dimension) else "no",
            }
        )
    print_table(pa.Table.from_pylist(rows))


def _alpha(folder: Path, dimension: str, pairs: pa.Table) -> float | None:
    from panacea_lib.labelling.agreement import agreement
    from panacea_lib.labelling.people import people_annotations

    records = agreement([people_annotations(folder, dimension, pairs)])
    return records[0].value if records else None


def _folders(workspace: Workspace, problem: Problem) -> dict[str, Path]:
    """dimension → where its answers are kept."""
    from panacea_lib.labelling.people import answers_folder

    file = find_problems(workspace)[problem.name]
    return {
        dimension: answers_folder(problem, file, workspace, dimension)
        for dimension in problem.dimension_names
    }


def _asks_people(problem: Problem, dimension: str) -> bool:
    return any(source.kind == "people" for source in problem.label_sources(dimension))


def _next_step(problem: Problem, batch: "AnsweredBatch") -> str:
    """What makes labels of the answers."""
    answered = {answer.dimension for answer in batch.answers}
    unheard = [name for name in problem.dimension_names if name in answered]
    unheard = [name for name in unheard if not _asks_people(problem, name)]
    step = f"`panacea label {problem.name}`"
    if unheard:
        return (
            f"nothing hears them yet: put `- kind: people` under labels.{unheard[0]} of the "
            f"problem, then {step}"
        )
    return f"they count from the next {step}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")
