"""A folder per trained policy, ready to be handed on: its files, its card, its slider.

Artifacts are sealed when they are trained and cannot take a card later, so these are copies. They
are published by the stage report, whenever it runs: one that was deleted comes back.
"""

import json
import shutil
from pathlib import Path

from orchestration.stage import StageRun
from panacea_lib.disk import folder_aside
from panacea_lib.plan_content import policy_stage
from panacea_lib.problem_models import ScratchModel
from panacea_lib.stored_slider import slider_of

BASE = "base_model"  # no method is called so
# The store's own files, and the card that PEFT writes for people to fill in.
_STORE = ("product.json", "manifest.json", "COMPLETE")
_NOT_THE_MODEL = shutil.ignore_patterns(*_STORE, "README.md", "trainer")


def publish_models(run: StageRun) -> Path:
    """Publish every trained method of the problem, and its base model beside them; returns the
    folder, var/models/PROBLEM."""
    folder, base = run.workspace.models / run.problem.name, run.artifact("base_model")
    with folder_aside(folder / BASE) as aside:
        shutil.copytree(base, aside, ignore=_NOT_THE_MODEL, dirs_exist_ok=True)
    place = _base_place(run, base)
    for method in run.plan.methods:
        if method != "reference":
            _publish(run, method, place, folder / method)
    return folder


def _publish(run: StageRun, method: str, base_place: str, target: Path) -> None:
    from orchestration.cards import card_text

    source = run.artifact(policy_stage(method), method)
    if (source / "panacea").is_dir():  # one adapter: PEFT loads the folder itself
        source = source / "panacea"
    names = run.problem.dimension_names
    rows = run.rows("sliders", "pareto_front").sort_by("position").to_pylist()
    slider = slider_of([row for row in rows if row["method"] == method], names)
    with folder_aside(target) as aside:
        shutil.copytree(source, aside, ignore=_NOT_THE_MODEL, dirs_exist_ok=True)
        _name_base(aside, base_place)
        card = card_text(
            run.warehouse,
            run.problem,
            method,
            base_place,
            run.made("pareto_front"),
            has_slider=slider is not None,
        )
        (aside / "README.md").write_text(card, encoding="utf-8")
        if slider is not None:
            told = json.dumps(slider.as_json(names), indent=1, ensure_ascii=False)
            (aside / "slider.json").write_text(f"{told}\n", encoding="utf-8")


def _name_base(folder: Path, base_place: str) -> None:
    """The base model's place beside the adapters, not the path it had where they were trained."""
    for file in folder.rglob("adapter_config.json"):
        config = json.loads(file.read_text("utf-8")) | {"base_model_name_or_path": base_place}
        file.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _base_place(run: StageRun, base: Path) -> str:
    """What `from_pretrained` finds the base model under, from a method's folder."""
    if isinstance(run.problem.base_model, ScratchModel):
        return f"../{BASE}"
    from panacea_lib.models.base import model_source

    return model_source(base)[0]
