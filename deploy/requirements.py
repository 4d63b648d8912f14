"""Print what the image needs of pyproject.toml, so that it is installed in a layer of its own."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *extras["ui"], *extras["deploy"], sep="\n")
