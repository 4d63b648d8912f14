"""The one mechanism: find or make, keep whole or not at all, go on where a run died."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from orchestration.progress import shown_on
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.stage import Made, Outcome, StageRun
from panacea_lib.errors import MissingUpstreamError
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

ROWS = {"prompts": pa.table({"prompt_id": ["a"], "split": ["test"], "text": ["how?"]})}
CURVE = {
    "training_curves": pa.table(
        {"method": ["m"], "step": [1], "dimension": [""], "metric": ["loss"], "value": [0.5]}
    )
}
Work = Callable[[StageRun], Outcome]


@pytest.fixture
def perform(tmp_path, monkeypatch):
    """Do something as a stage of `tiny` in a real Dagster run; gives outcome and log."""
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path))

    def call(stage: str, work: Work, **settings: object) -> tuple[Outcome, list[str]]:
        outcomes: list[Outcome] = []

        @dg.asset(name=stage, partitions_def=dg.StaticPartitionsDefinition(["tiny"]))
        def probe(
            context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
        ) -> dg.MaterializeResult:
            run = StageRun(context, stage, workspace, settings)
            outcomes.append(work(run))
            return run.result(outcomes)

        resources = {"workspace": WorkspaceResource(), "settings": RunSettings(**settings)}
        with dg.instance_for_test() as instance:
            done = dg.materialize(
                [probe], partition_key="tiny", resources=resources, instance=instance
            )
            records = instance.all_logs(done.run_id)
        return outcomes[0], [record.user_message for record in records]

    return call


def make_model(seen: list[list[str]] | None = None, fail: bool = False) -> Work:
    """Writes a weight; leaves a checkpoint, and notes which were there; may die after that."""

    def build(folder: Path, checkpoints: Path) -> Made:
        if seen is not None:
            left = (path.name for path in checkpoints.iterdir())
            seen.append(sorted(name for name in left if not name.startswith("emptied-")))
        (checkpoints / "step-1").touch()
        (folder / "weights.safetensors").write_bytes(b"0")
        if fail:
            raise RuntimeError("the power went out")
        return Made(CURVE, {"steps": 1})

    return lambda run: run.make_artifact("", build)


def test_rows_are_made_once_and_then_found(perform):
    made: list[int] = []

    def work(run: StageRun) -> Outcome:
        return run.make_rows("", lambda: made.append(1) or Made(ROWS))

    assert perform("prompts", work)[0].action == "built"
    assert perform("prompts", work)[0].action == "reused"
    assert len(made) == 1
    assert perform("prompts", work, force=True)[0].action == "built"
    assert perform("prompts", work, seed=5)[0].action == "built", "another seed, another key"
    assert len(made) == 3


def test_why_something_is_made_is_told_and_kept(perform):
    def work(run: StageRun) -> Outcome:
        return run.make_rows("", lambda: Made(ROWS))

    def reason(**settings: object) -> str:
        outcome, log = perform("prompts", work, **settings)
        assert outcome.reason == "not made before" or any(outcome.reason in line for line in log)
        return outcome.reason

    assert reason() == "not made before"
    assert reason().endswith("is here already")
    assert reason(force=True) == "by force"
    assert reason(seed=5) == "seed: 0 → 5"
    warehouse = Warehouse(Workspace.current().warehouse)
    assert warehouse.read("select reason from runs")["reason"].to_pylist() == ["seed: 0 → 5"]
    with warehouse.writer("a test") as connection:
        connection.execute("delete from facts.prompts")
    assert reason(seed=5) == "rows or files of the same key were missing"
    with warehouse.writer("a test") as connection:
        connection.execute("delete from facts.origins")  # as a version made it that kept none
    assert "did not say" in reason(seed=6)


def test_a_build_that_dies_keeps_nothing_but_its_checkpoints(perform):
    seen: list[list[str]] = []
    with pytest.raises(RuntimeError, match="power"):
        perform("base_model", make_model(seen, fail=True))
    workspace = Workspace.current()
    assert not workspace.warehouse.exists()
    outcome, _ = perform("base_model", make_model(seen))
    assert outcome.action == "built"
    assert seen == [[], ["step-1"]], "the second attempt goes on from the first one's checkpoint"
    stored = sorted(p.name for p in (Path(workspace.artifacts) / outcome.key).iterdir())
    assert stored == ["COMPLETE", "manifest.json", "product.json", "weights.safetensors"]
    assert not (Path(workspace.artifacts) / ".work" / outcome.key).exists()


def test_force_starts_from_nothing(perform):
    seen: list[list[str]] = []
    with pytest.raises(RuntimeError, match="power"):
        perform("base_model", make_model(fail=True))
    assert perform("base_model", make_model(seen), force=True)[0].action == "built"
    assert seen == [[]]


def test_rows_that_were_lost_come_from_the_artifact(perform):
    """As after a run that died between keeping the artifact and saving the rows."""
    perform("base_model", make_model())
    warehouse = Warehouse(Workspace.current().warehouse)
    before = warehouse.read("select * from facts.training_curves").to_pylist()
    with warehouse.writer("a test") as connection:
        connection.execute("delete from facts.products")
        connection.execute("delete from facts.training_curves")
    seen: list[list[str]] = []
    assert perform("base_model", make_model(seen))[0].action == "restored"
    assert seen == [], "nothing was built"
    assert warehouse.read("select * from facts.training_curves").to_pylist() == before
    details = warehouse.read("select details from facts.products")["details"][0].as_py()
    assert details == '{"steps": 1}'


def test_what_is_missing_is_named_with_its_remedy(perform):
    def work(run: StageRun) -> Outcome:
        run.rows("prompts", "prompts")
        raise AssertionError("there are none")

    with pytest.raises(MissingUpstreamError, match=r"panacea materialize tiny --select prompts"):
        perform("pairs", work)


def test_progress_is_logged_by_tenths_without_a_display(perform):
    def build(run: StageRun) -> Made:
        listen = run.reporter.listener("")
        for step in range(1, 201):
            listen(step, 200, {"loss": 1.0})
        return Made(ROWS)

    _, messages = perform("prompts", lambda run: run.make_rows("", lambda: build(run)))
    told = [message for message in messages if message.startswith("prompts: ")]
    assert len(told) == 12, "eleven tenths and the end"
    assert told[5] == "prompts: 100 of 200 loss 1.000"


class Noting:
    """A display that remembers."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, what: str) -> None:
        self.told.append(f"begin {what}")

    def step(self, what: str, step: int, total: int, metrics: dict[str, float]) -> None:
        self.told.append(f"{what} {step}/{total}")

    def end(self, what: str, summary: str) -> None:
        self.told.append(f"end {what}")


def test_progress_goes_to_a_display_where_there_is_one(perform):
    def build(run: StageRun) -> Made:
        run.reporter.listener("")(1, 2, {})
        return Made(ROWS)

    display = Noting()
    with shown_on(display):
        perform("prompts", lambda run: run.make_rows("", lambda: build(run)))
    assert display.told == ["begin prompts", "prompts 1/2", "end prompts"]
