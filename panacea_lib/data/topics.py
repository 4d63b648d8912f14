"""What prompts are about, where a column says so."""

from typing import TypeVar

from panacea_lib.data.cells import RowPlace
from panacea_lib.data.rows import PairRow, ResponseRow

Read = TypeVar("Read", PairRow, ResponseRow)


class PartTopics:
    """The topics of one data set's prompts: one each, however many rows a prompt has."""

    def __init__(self, column: str | None) -> None:
        self._column = column or ""
        self._first: dict[str, tuple[str, RowPlace]] = {}

    @property
    def known(self) -> dict[str, str]:
        """Text of a prompt → its topic, as far as the rows that were noted say."""
        return {prompt: topic for prompt, (topic, _) in self._first.items()}

    def note(self, row: Read) -> Read:
        """Keep what a row says of its prompt, and hand the row on; rows with an empty text do not
        count.

        InputError: another row of the prompt names another topic.
        """
        if row.topic is not None and not row.empty:
            topic, first = self._first.setdefault(row.prompt, (row.topic, row.place))
            if topic != row.topic:
                raise row.place.error(
                    self._column,
                    f"the topic is {row.topic!r}, yet {topic!r} in {first.unit} {first.number}, "
                    "which has the same prompt",
                    "give each prompt one topic, or drop data.columns.topic from the problem",
                )
        return row
