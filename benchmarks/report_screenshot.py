"""What a problem's report looks like at first sight, as the README may show it.

python -m benchmarks.report_screenshot demo docs/images/report.png
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from panacea_lib.workspace import Workspace

_LIMIT = 300_000  # bytes
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    """Photograph the report that the workspace holds, with the browser of this machine."""
    parser = argparse.ArgumentParser(description="Photograph a problem's report with chromium.")
    parser.add_argument("problem", nargs="?", default="demo")
    parser.add_argument("out", nargs="?", type=Path, default=Path("docs/images/report.png"))
    parser.add_argument("--width", type=int, default=1100, help="CSS pixels")
    parser.add_argument("--height", type=int, default=1250, help="CSS pixels from the top")
    parser.add_argument("--dark", action="store_true", help="as in a browser's dark theme")
    given = parser.parse_args()
    page = Workspace.current().reports / f"{given.problem}.html"
    chromium = shutil.which("chromium")
    if not page.exists():
        parser.error(f"there is no {page}: run `panacea materialize {given.problem}`")
    if chromium is None:
        parser.error("there is no chromium here: apt-get install chromium")
    taken = photograph(page, chromium, given.width, given.height, given.dark)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(packed(taken))


def photograph(page: Path, chromium: str, width: int, height: int, dark: bool = False) -> bytes:
    """The top of a page as a PNG of width × height pixels."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        shown = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        shown.goto(page.resolve().as_uri())
        taken = shown.screenshot()
        browser.close()
    return taken


def packed(png: bytes) -> bytes:
    """The same in at most 128 colours; ValueError where that is more than 300 KB."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, format="png", optimize=True)
    if out.tell() > _LIMIT:
        raise ValueError(f"a picture of {out.tell()} bytes; the limit is {_LIMIT}")
    return out.getvalue()


if __name__ == "__main__":
    main()
