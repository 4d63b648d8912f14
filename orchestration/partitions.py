"""One partition per problem: the UI, a schedule and a backfill all say "retrain problem X"."""

import dagster as dg

from panacea_lib.problem_files import find_problems
from panacea_lib.workspace import Workspace

# Found when definitions are loaded: reload them after adding a problem's file.
PROBLEMS = dg.StaticPartitionsDefinition(sorted(find_problems(Workspace.current())))

OWNERS = ["team:alignment"]  # of the assets; a problem's own owner stands in its file and report
