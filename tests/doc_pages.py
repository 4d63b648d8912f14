"""The documentation's pages, taken apart: blocks, spans of code, and the commands they show."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

from panacea_lib.workspace import PROJECT_ROOT

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "assets_data/**/*.md")
    for page in PROJECT_ROOT.glob(pattern)
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}.*\n+)+")
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Command:
    """`panacea …` as a page shows it; `whole` where it stands in a block, to be typed."""

    page: Path
    text: str
    whole: bool

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)[1:]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return INDENTED.sub("\n", FENCE.sub("", page.read_text("utf-8")))


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced blocks of these languages; the indented ones count as language ''."""
    text = page.read_text("utf-8")
    found = [body for language, body in FENCE.findall(text) if language in languages]
    if "" in languages:
        found += [textwrap.dedent(body) for body in INDENTED.findall(FENCE.sub("", text))]
    return found


def spans(page: Path) -> list[str]:
    return [" ".join(span.split()) for span in SPAN.findall(prose(page))]


def shell_lines(page: Path) -> list[str]:
    """Lines of shell blocks, continued ones joined, without comments and redirections."""
    lines = [
        line
        for block in blocks(page, "", "sh", "bash", "shell", "console")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [re.sub(r"\s+(#|>|\|).*$", "", line.strip().removeprefix("$ ")) for line in lines]


def commands() -> list[Command]:
    start = re.compile(r"^(?:\.venv/bin/)?panacea(?=\s|$)")
    found = []
    for page in PAGES:
        lines = [(line, True) for line in shell_lines(page)]
        lines += [(part.strip(), False) for span in spans(page) for part in span.split("&&")]
        found += [Command(page, line, whole) for line, whole in lines if start.match(line)]
    return list(dict.fromkeys(found))
