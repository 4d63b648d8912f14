"""The documentation keeps its word: commands parse and run, code runs, what is named exists.

SQL blocks are run by tests/test_sql.py.
"""

import ast
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from conftest import HOME
from doc_pages import FENCE, LINK, PAGES, Command, blocks, commands, prose, shell_lines, spans
from small_models import small_base, small_pairs, write_pairs
from transformers import LlamaConfig, LlamaForCausalLM

from orchestration.chain import resolve_selection
from orchestration.cli import app
from orchestration.prefer import parse_preference
from panacea_lib.problem_files import find_problems, load_problem
from panacea_lib.workspace import PROJECT_ROOT, Workspace

OWN_FOLDERS = ("panacea_lib/", "orchestration/", "tests/", "docs/", "benchmarks/", "assets_data/")
COMMANDS: Any = typer.main.get_command(app)
LONG = re.compile(r"(?:panacea (?:materialize|dev)|make|PIP_\w+=\S+ make)\b")


def name_of(value: object) -> str:
    if isinstance(value, Path):
        return str(value.relative_to(PROJECT_ROOT))
    return value.text if isinstance(value, Command) else str(value).strip().splitlines()[0][:50]


def test_there_are_pages_and_commands_to_check():
    assert PROJECT_ROOT / "README.md" in PAGES and len(PAGES) >= 4
    shown = {command.words[0] for command in commands() if command.words}
    assert {"sql", "ask", "materialize", "new", "validate"} <= shown
    assert any(blocks(page, "python") for page in PAGES)


# ---- commands


def parsed(command: Command) -> Any | None:
    """The context of the subcommand; None for a bare mention without its arguments."""
    if not command.words or command.words == ["--help"]:
        return None
    name, *rest = command.words
    subcommand = COMMANDS.commands.get(name)
    assert subcommand is not None, f"there is no `panacea {name}`"
    if not command.whole and not rest:
        return None
    return subcommand.make_context(name, rest)


@pytest.mark.parametrize("command", commands(), ids=name_of)
def test_a_command_parses_and_names_what_exists(command):
    context = parsed(command)
    values = context.params if context else {}
    problem = (values.get("problem") or "").removeprefix("champion:")
    shipped = find_problems(Workspace.current())
    made = re.findall(r"panacea new (\S+)", command.page.read_text("utf-8"))
    if problem and not problem.isupper():
        assert problem in shipped or problem in made
    if values.get("select"):
        resolve_selection(values["select"])
    if values.get("prefer"):
        names = load_problem(shipped[problem]).dimension_names
        given = values["prefer"]
        texts = [given] if isinstance(given, str) else given
        assert all(parse_preference(text, names) for text in texts)


def scripts() -> list[tuple[Path, str]]:
    """Shell blocks that ask something of `panacea`, without what trains, installs or serves."""
    found = []
    for page in PAGES:
        for block in blocks(page, "", "sh", "bash", "shell", "console"):
            lines = [line for line in block.splitlines() if not LONG.match(line)]
            if any(line.startswith("panacea ") for line in lines):
                found.append((page, "\n".join(lines)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("page", "script"), scripts(), ids=name_of)
def test_a_shell_block_runs(page, script, chain, tmp_path):
    """By bash, in an empty folder, on the chain of `tiny`, which has the demo's dimensions.

    The template's data is the reader's to bring: it is put beside the problem's file.
    """
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in template_rows()))
    script = re.sub(
        r"^(panacea validate (\S+)/\S+)", r"cp rows \2/mine.jsonl\n\1", script, flags=re.M
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", as_tiny(script)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip()


def template_rows() -> list[dict[str, Any]]:
    """Rows of the shape that `panacea new` speaks of."""
    return [
        {
            "prompt": f"question {i}?",
            "response_a": f"yes {i}",
            "response_b": f"no {i}",
            "scores": {"helpfulness": [i % 3, 1], "harmlessness": [1, i % 2]},
        }
        for i in range(40)
    ]


def as_tiny(text: str) -> str:
    """With the problem `demo` replaced by `tiny`."""
    return re.sub(r"(?<![\w-])demo(?![\w-])", "tiny", text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page):
    makefile = (PROJECT_ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9_-]*):", makefile, re.MULTILINE))
    shown = [
        target
        for line in [*shell_lines(page), *spans(page)]
        for target in re.findall(r"(?:^|\s)make ([a-z][a-z0-9_-]*)", line)
    ]
    assert set(shown) <= targets
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    assert phony and set(phony[1].split()) <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_modules_that_are_run_exist(page):
    for line in [*shell_lines(page), *spans(page)]:
        for module in re.findall(r"python3? -m ([\w.]+)", line):
            assert importlib.util.find_spec(module), f"python -m {module}"
        for script in re.findall(r"python3? ([\w./-]+\.py)", line):
            assert (PROJECT_ROOT / script).is_file(), script


# ---- code


def python_blocks() -> list[tuple[Path, str]]:
    return [(page, block) for page in PAGES for block in blocks(page, "python")]


@pytest.mark.parametrize(("page", "block"), python_blocks(), ids=name_of)
def test_python_compiles_and_imports_what_it_names(page, block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), python_blocks(), ids=name_of)
def test_python_runs(page, block, chain, monkeypatch, capsys):
    """On the chain of `tiny`; a page may speak of a `base` model and a tokenised `batch`, and of a
    hub model and `pairs.parquet`, for which small ones stand in."""
    monkeypatch.chdir(HOME)
    write_pairs(HOME / "pairs.parquet", small_pairs(8))
    block = re.sub(r'"HuggingFaceTB/[^"]+"', repr(str(small_base())), block)
    block = block.replace('"steps": 400', '"steps": 2')
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=32, num_attention_heads=2, **sizes))
    batch = {"input_ids": torch.tensor([[1, 2, 3]])}
    exec(compile(as_tiny(block), str(page), "exec"), {"base": base, "batch": batch})
    assert "print(" not in block or capsys.readouterr().out.strip()


# ---- what is named


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+\s+(.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_modules_that_are_named_exist(page):
    for span in spans(page):
        path = span.split("::")[0].rstrip("/")
        if re.fullmatch(r"[\w./*-]+", span) and (span.startswith(OWN_FOLDERS) or path == ".ci/run"):
            assert list(PROJECT_ROOT.glob(path)), span
        if re.fullmatch(r"(?:panacea_lib|orchestration)(?:\.\w+)+", span):
            resolve(span)


def resolve(dotted: str) -> None:
    """Import as much of a dotted name as is a module; the rest must be attributes."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        if importlib.util.find_spec(parts[0]) and _is_module(".".join(parts[:length])):
            found = importlib.import_module(".".join(parts[:length]))
            for attribute in parts[length:]:
                found = getattr(found, attribute)
            return
    raise AssertionError(f"no module {dotted}")


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_environment_variables_that_are_named_are_read(page):
    sources = [*PROJECT_ROOT.glob("panacea_lib/**/*.py"), *PROJECT_ROOT.glob("orchestration/*.py")]
    code = "\n".join(source.read_text("utf-8") for source in sources)
    for variable in set(re.findall(r"\bPANACEA_[A-Z_]+\b", page.read_text("utf-8"))):
        assert variable in code, variable


def test_no_page_names_a_path_of_somebody_s_machine():
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:work|home|root|Users)/", page.read_text("utf-8")), page
    assert shutil.which("make"), "the pages' commands need it"
