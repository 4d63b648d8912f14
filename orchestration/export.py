"""`panacea export`: a problem's policy at one λ as a plain LoRA, its card, and how to load it."""

import tempfile
from pathlib import Path

from orchestration.evaluated import current_front
from panacea_lib.errors import InputError
from panacea_lib.problem_files import load_problem_named
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace


def check_out(out: Path) -> None:
    """InputError unless `out` is a new folder or an empty one: found out before work starts."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"--out: {out} exists and is not empty; name a new folder")


def export_policy(
    problem: str, method: str, preference: dict[str, float], out: Path, workspace: Workspace
) -> str:
    """Write the LoRA and its model card into `out`; returns two lines of Python that load it.

    InputError for a method that is no Panacea adapter; MissingUpstreamError where it was not made.
    """
    from orchestration.cards import card_text
    from panacea_lib.adapter import export_lora
    from panacea_lib.policy import PanaceaPolicy, load_policy

    policy = load_policy(problem, method, workspace)._policy
    if not isinstance(policy, PanaceaPolicy):
        raise InputError(f"--method: {method} is no Panacea adapter; export 'panacea'")
    base = policy.model.get_base_model().name_or_path
    # Where the base model was when the adapter was trained may be a folder of another machine.
    policy.model.peft_config["default"].base_model_name_or_path = base
    warehouse = Warehouse(workspace.warehouse)
    front, loaded = current_front(warehouse, problem), load_problem_named(workspace, problem)
    card = card_text(warehouse, loaded, method, base, front, preference)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as aside:
        lora = export_lora(policy.model, preference, Path(aside) / "lora")
        (lora / "README.md").write_text(card, encoding="utf-8")
        lora.replace(out)  # over an empty folder too
    return (
        f"base = AutoModelForCausalLM.from_pretrained({base!r})\n"
        f"model = PeftModel.from_pretrained(base, {str(out)!r})"
    )
