"""A problem's section on where its policies are trained; nothing that is made depends on it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from panacea_lib.problem_types import Positive, Strict


class Launch(Strict):
    """In which process, or processes, policies are trained."""

    training: Literal["inside", "subprocess"] = Field(
        default="inside",
        description="in the run's own process, or in one beside it, whose death the run survives "
        "and mends",
    )
    processes: Positive = Field(
        default=1,
        description="how many train together, by `accelerate launch`: one for each GPU; "
        "training.batch_size is the rows of all of them",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.processes > 1 and self.training != "subprocess":
            raise ValueError(
                f"processes: {self.processes} of them need `training: subprocess`, which starts "
                "them; write both, or delete processes"
            )
        return self
