"""A problem's section on its inbox: how new data files that are dropped into it are read."""

from collections.abc import Sequence

from panacea_lib.problem_columns import Columns, DemonstrationColumns, mapped_dimensions
from panacea_lib.problem_types import Strict


class Inbox(Strict):
    """New data files, dropped into var/inbox/PROBLEM/, join the problem's data (docs/inbox.md)."""

    columns: Columns


def check_inbox(
    inbox: Inbox, names: Sequence[str], demonstrated: Sequence[str], in_world: bool
) -> None:
    """ValueError unless files of that shape may join a problem of these dimensions.

    demonstrated: the dimensions that the data has demonstrations for; in_world: whether the data
    is the embedded world.
    """
    columns = inbox.columns
    if extra := sorted(set(mapped_dimensions(columns)) - set(names)):
        raise ValueError(
            f"inbox.columns: maps {extra}, which dimensions does not name; add them there or "
            "delete the mapping"
        )
    if in_world and columns.topic:
        raise ValueError(
            "inbox.columns.topic: the embedded world knows what its prompts are about; delete it"
        )
    shows = columns.dimension if isinstance(columns, DemonstrationColumns) else None
    if shows is not None and shows not in demonstrated:
        raise ValueError(
            f"inbox.columns: the data has no demonstrations of {shows}, which new ones would join; "
            "add a part with `layout: demonstrations` to data, or use another layout"
        )
