"""A run from the command line: checks first, then the chain, then what came of it."""

from pathlib import Path

import typer

from orchestration.environment import be_quiet, enter_workspace, go_offline
from panacea_lib.data import PreferenceData, load_preference_data, load_world_files
from panacea_lib.labelling.fingerprint import label_fingerprint
from panacea_lib.plan import label_parts
from panacea_lib.problem import Problem
from panacea_lib.problem_data import HubData, WorldData, parts_of
from panacea_lib.problem_files import find_problems, is_local, load_problem_named
from panacea_lib.workspace import Workspace


def materialize_selected(
    problem: str, select: str | None, seed: int | None, max_steps: int | None, force: bool
) -> None:
    """Make the selected assets of a problem and print what came of it.

    InputError for bad input, before anything is written. typer.Exit: 1 where something failed, 2
    for bad input that only the run could find, 130 where it was interrupted.
    """
    workspace = Workspace.current()
    loaded = load_problem_named(workspace, problem)
    # Bad input is found before anything is written, even the workspace's folder.
    check_data(loaded, find_problems(workspace)[problem])
    be_quiet()
    from orchestration.chain import resolve_selection, run_chain
    from orchestration.printing import INTERRUPTED, print_run

    assets = resolve_selection(select)
    enter_workspace(workspace)
    go_offline(loaded)
    settings = {"seed": seed, "max_steps": max_steps, "force": force}
    finished = run_chain(problem, assets, settings)
    names = [asset.to_user_string() for asset in assets]
    print_run(workspace, problem, finished, names, seed, max_steps)
    if not finished.success:
        errors = {failure.error for failure in finished.failures}
        raise typer.Exit(2 if "InputError" in errors else 130 if INTERRUPTED in errors else 1)


def check_data(problem: Problem, file: Path) -> PreferenceData | None:
    """Read local data from end to end, and what sources of labels need, before work starts.

    None for the embedded world and where some of the data is on the hub, which is read when it is
    downloaded.
    """
    for dimension, source in label_parts(problem).values():
        label_fingerprint(problem, file, dimension, source)  # rubrics, models, answers of people
    data = problem.data
    if isinstance(data, WorldData):
        load_world_files(problem, file, [])  # for what is wrong with a row; whose prompts, later
        return None
    if any(isinstance(part, HubData) and not is_local(part.dataset) for part in parts_of(data)):
        return None
    return load_preference_data(problem, file)
