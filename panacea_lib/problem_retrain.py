"""A problem's section on its retraining by schedule; of what a run makes, it decides nothing."""

from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

from pydantic import Field, model_validator

from panacea_lib.cron import check_cron
from panacea_lib.problem_types import Strict


class Retrain(Strict):
    """When the whole chain of the problem runs by itself."""

    cron: str = Field(
        default="0 3 * * 1",
        description="minute, hour, day of month, month, weekday; default: Mondays at 3:00",
    )
    timezone: str = Field(default="UTC", description="of the IANA database, e.g. Europe/Berlin")
    enabled: bool = Field(
        default=False,
        description="whether the schedule runs without being started in the UI, which can stop it",
    )
    seed: Literal["same", "fresh"] = Field(
        default="same",
        description="same: unchanged inputs recompute nothing; fresh: another seed at every tick, "
        "so that everything is made anew",
    )
    max_hours: Annotated[float, Field(ge=0.1, le=24 * 365)] = Field(
        default=24,
        description="a scheduled run that takes longer is ended, and no run that is older keeps "
        "the next one from starting",
    )

    @model_validator(mode="after")
    def _check_time(self) -> Self:
        try:
            check_cron(self.cron)
        except ValueError as error:
            raise ValueError(f"cron: {error}") from None
        if self.timezone != "UTC" and self.timezone not in available_timezones():
            raise ValueError(
                f"timezone: no time zone is named {self.timezone!r}; write one of the IANA "
                "database, e.g. Europe/Berlin, or UTC"
            )
        return self
