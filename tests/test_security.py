"""Nothing that data, models or checkpoints hold is run; docs/security.md."""

import ast
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TESTS, panacea
from pydantic import ValidationError
from small_models import small_config, small_pairs, write_pairs

from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.errors import MissingUpstreamError
from panacea_lib.problem import Problem
from panacea_lib.problem_files import load_problem
from panacea_lib.training import train
from panacea_lib.workspace import PROJECT_ROOT

MODULES = sorted(
    [*PROJECT_ROOT.glob("panacea_lib/**/*.py"), *PROJECT_ROOT.glob("orchestration/**/*.py")]
)


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_no_module_can_run_what_it_reads(module):
    tree = ast.parse(module.read_text("utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }
    assert not imported & {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        named = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert called(call) not in {"eval", "exec", "os.system", "torch.load", "yaml.load"}
        assert named.get("shell", "False") == "False"
        assert named.get("trust_remote_code", "False") == "False"
        assert named.get("allow_pickle", "False") == "False"


@pytest.fixture(scope="module")
def model_folder(chain, tmp_path_factory) -> Path:
    """The scratch model of `tiny`, as a pretrained model on a disk."""
    store = ArtifactStore(str(Path(os.environ["PANACEA_HOME"]) / "var" / "artifacts"))
    found = next(key for key in store.stored_keys() if (store.fetch(key) / "config.json").exists())
    folder = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(store.fetch(found), folder)
    return folder


def refusal(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the command says of a problem that names the model, having made nothing of it."""
    problems = tmp_path / "problems"
    problems.mkdir()
    loaded = load_problem(TESTS / "problems" / "tiny.yaml")
    values = loaded.model_dump(mode="json", exclude_unset=True)
    values |= {"name": "strange", "base_model": {"kind": "pretrained", "model": str(model)}}
    (problems / "strange.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("PANACEA_PROBLEMS", str(problems))
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path / "home"))
    finished = panacea("materialize", "strange", "--select", "prompts,base_model")
    assert finished.code == 2, finished.err
    assert "Traceback" not in finished.err
    return " ".join(finished.err.split())


def test_a_model_in_a_pickle_is_refused_unread(model_folder, tmp_path, monkeypatch):
    model, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(model_folder, model)
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark)))
    told = refusal(tmp_path, model, monkeypatch)
    assert "base_model.model" in told and "pickles are never read" in told
    assert not mark.exists()


def test_a_model_s_own_code_is_not_run(model_folder, tmp_path, monkeypatch):
    model, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(model_folder, model)
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "unheard-of", "auto_map": {"AutoConfig": "own.Config"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    told = refusal(tmp_path, model, monkeypatch)
    assert "own code is never run" in told
    assert not mark.exists()


def test_a_checkpoint_runs_nothing(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet", small_pairs(16))
    wanted = small_config(pairs, checkpoint_every=2)
    out, mark = tmp_path / "out", tmp_path / "mark"
    train(wanted, out)
    newest = max(
        (out / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1])
    )
    names = ["optimizer.pt", "scheduler.pt", "rng_state.pth"]
    assert set(names) <= {path.name for path in newest.iterdir()}
    state = json.loads((newest / "trainer_state.json").read_text())
    state["global_step"] -= 1  # so that there is a step to go on with
    (newest / "trainer_state.json").write_text(json.dumps(state))
    for name in names:
        whole = (newest / name).read_bytes()
        torch.save({"state": Payload(mark)}, newest / name)
        try:
            train(wanted, out)
        except Exception as error:  # whatever torch says of it
            assert "weights_only" in str(error) or "Unsupported" in str(error), error
        assert not mark.exists(), name
        (newest / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["../up", "a/b", "a\\b", "", ".", "a'; drop table x; --", "ä"])
def test_names_that_could_be_paths_or_sql_are_refused(name):
    values = load_problem(TESTS / "problems" / "tiny.yaml").model_dump(mode="json")
    with pytest.raises(ValidationError):
        Problem.model_validate(values | {"name": name})
    first, *others = values["dimensions"]
    with pytest.raises(ValidationError):
        Problem.model_validate(values | {"dimensions": [first | {"name": name}, *others]})
    with pytest.raises(ValueError, match="hexadecimal"):
        ArtifactStore("memory://x").fetch(name)


def test_credentials_in_the_store_s_url_are_not_told():
    store = ArtifactStore("memory://user:secret@host/x")
    with pytest.raises(MissingUpstreamError) as error:
        store.fetch("0" * 32)
    assert "secret" not in str(error.value) and "memory://host/x" in str(error.value)


def test_values_go_into_sql_as_parameters():
    """The only text that is put into SQL is a name of our own schema or of an escaped path."""
    allowed = {"table", "names", "quoted", "alias", "mode", "columns", "order_by", "_LOG_PAGES"}
    allowed |= {"_SCHEMA_VERSION"}
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            is_query = isinstance(node, ast.Call) and re.search(
                r"\.(execute|sql|read)$", called(node)
            )
            if not is_query or not node.args or not isinstance(node.args[0], ast.JoinedStr):
                continue
            put_in = {
                ast.unparse(part.value)
                for part in node.args[0].values
                if isinstance(part, ast.FormattedValue)
            }
            assert put_in <= allowed, f"{module}:{node.lineno}: {put_in - allowed}"
