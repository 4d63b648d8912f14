"""One partition per problem: the UI, a schedule and a backfill all say "retrain problem X"."""

import warnings
from datetime import timedelta

import dagster as dg

from panacea_lib.problem_files import find_problems
from panacea_lib.workspace import Workspace

# Found when definitions are loaded: reload them after adding a problem's file.
PROBLEMS = dg.StaticPartitionsDefinition(sorted(find_problems(Workspace.current())))
# Checks per partition are a preview in Dagster 1.13; without them one problem's pass would hide
# another's failure. Said here, as every module of checks imports this one before it makes any.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

OWNERS = ["team:alignment"]  # of the assets; a problem's own owner stands in its file and report
# Of what a weekly schedule makes, with a day to make it in. Dagster looks at an asset's last run
# whatever the problem.
WEEKLY = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(days=8), fail_window=timedelta(days=15)
)
