"""The picture of a problem's front, as the README shows it, from the workspace's warehouse.

.venv/bin/python benchmarks/front_picture.py demo docs/images/front.png
"""

import argparse
from pathlib import Path

from panacea_lib.report import front_picture
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

POINTS = """
select method, judge, point, position, dimension, weight, reward,
    low as reward_low, high as reward_high
from front_points
where problem = ? and method <> 'best_of_16' -- raw rewards flatter what drifts; the report has both
qualify judge = min(judge) over () -- gold, where there is one, else proxy
order by method, point, position
"""


def main() -> None:
    """Read the points of today and draw them."""
    parser = argparse.ArgumentParser(description="Draw the front that a problem shows today.")
    parser.add_argument("problem")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    points = Warehouse(Workspace.current().warehouse).read(POINTS, [given.problem])
    if not points.num_rows:
        parser.error(f"{given.problem} has no front: run `panacea materialize {given.problem}`")
    dimensions = list(dict.fromkeys(points["dimension"].to_pylist()))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(front_picture(points, dimensions, points["judge"][0].as_py()))


if __name__ == "__main__":
    main()
