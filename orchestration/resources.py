"""What assets are given: where things lie, and what a person may set for one run."""

import dagster as dg
from pydantic import Field

from panacea_lib.workspace import Workspace


class WorkspaceResource(dg.ConfigurableResource):
    """The workspace of `PANACEA_HOME`."""

    @property
    def workspace(self) -> Workspace:
        """The folders."""
        return Workspace.current()


class RunSettings(dg.ConfigurableResource):
    """One run's settings, shown in the Launchpad under resources → settings."""

    seed: int | None = Field(
        default=None, ge=0, lt=2**31, description="Instead of the problem's own seed."
    )
    max_steps: int | None = Field(
        default=None, gt=0, description="At most so many optimiser steps per policy, reward model."
    )
    force: bool = Field(default=False, description="Make the products again even if they are here.")
