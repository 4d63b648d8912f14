"""Everything that Dagster loads: `dagster dev -m orchestration.definitions` (or `panacea dev`)."""

import dagster as dg

from orchestration.defs.dataset import assets as dataset
from orchestration.defs.dataset import checks as dataset_checks
from orchestration.defs.evaluation import assets as evaluation
from orchestration.defs.evaluation import checks as evaluation_checks
from orchestration.defs.policies import assets as policies
from orchestration.defs.policies import checks as policies_checks
from orchestration.defs.preferences import assets as preferences
from orchestration.defs.preferences import checks as preferences_checks
from orchestration.defs.rewards import assets as rewards
from orchestration.defs.rewards import checks as rewards_checks
from orchestration.following import FOLLOWING
from orchestration.new_data import new_data
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.schedules import retrain_schedules
from orchestration.upkeep import PRUNE_WEEKLY, prune_job

CHAIN = dg.define_asset_job(
    "chain",
    selection=dg.AssetSelection.all(),
    description="Everything of one problem, from its prompts to its report; what is there under "
    "its content key is reused.",
)

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([dataset, preferences, rewards, policies, evaluation]),
    asset_checks=dg.load_asset_checks_from_modules(
        [dataset_checks, preferences_checks, rewards_checks, policies_checks, evaluation_checks]
    ),
    jobs=[CHAIN, prune_job],
    schedules=[*retrain_schedules(CHAIN.name), PRUNE_WEEKLY],
    sensors=[FOLLOWING, new_data],
    resources={"workspace": WorkspaceResource(), "settings": RunSettings()},
    # One GPU or two cores: parallel steps would only slow each other down, and every process of
    # the multiprocess executor imports torch anew.
    executor=dg.in_process_executor,
)
