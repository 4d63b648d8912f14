"""Prompts of several turns as one text, and whole dialogues taken apart.

One form, whatever the data set's own: a lone message of the user's is its text as it is; several
turns are `Human: …`, `Assistant: …`, `System: …` with blank lines between them, in the manner of
Anthropic's dialogues.
"""

from typing import Any

from panacea_lib.data.cells import RowPlace, show, text

_SPEAKERS = {"user": "Human", "human": "Human", "assistant": "Assistant", "system": "System"}
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def prompt_text(value: Any, column: str, place: RowPlace, may_be_empty: bool) -> str:
    """A prompt that is text, or a list of messages [{role:, content:}] in the form above."""
    if isinstance(value, list):
        value = _render(_messages(value, column, place))
    return text(value, column, place, may_be_empty)


def last_turn(value: Any, column: str, place: RowPlace, may_be_empty: bool) -> str:
    """A response that is text, or the last of a list of messages."""
    if not isinstance(value, list):
        return text(value, column, place, may_be_empty)
    return text(_last_answer(value, column, place), column, place, may_be_empty)


def split_dialogue(
    value: Any, column: str, place: RowPlace, may_be_empty: bool
) -> tuple[str, str] | None:
    """A whole dialogue → everything before its last answer, and that answer.

    None where it ends with a turn of the user's. InputError where it is no dialogue.
    """
    if isinstance(value, list):
        answer = last_turn(value, column, place, may_be_empty)
        return prompt_text(value[:-1], column, place, may_be_empty), answer
    head, mark, answer = text(value, column, place).rpartition(_ASSISTANT)
    if not mark:
        raise place.error(
            column,
            "this is no dialogue (there is no line 'Assistant: …' after a blank one)",
            "write whole dialogues, or name the column of the prompts in data.columns.prompt",
        )
    if _HUMAN in answer:
        return None
    before = text(_plain(head), column, place, may_be_empty)
    return before, text(answer.strip(), column, place, may_be_empty)


def _plain(dialogue: str) -> str:
    """A dialogue's beginning in the form above: a lone turn of the user's without its name."""
    turns = "\n\n" + dialogue.strip()
    alone = turns.count(_HUMAN) == 1 and turns.startswith(_HUMAN) and _ASSISTANT not in turns
    return (turns.removeprefix(_HUMAN) if alone else turns).strip()


def _messages(value: list[Any], column: str, place: RowPlace) -> list[tuple[str, str]]:
    """(role, content) of each message."""
    found = []
    for message in value:
        known = message if isinstance(message, dict) else {}
        role, content = known.get("role"), known.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise place.error(
                column,
                f"{show(message)} is no message",
                "write a list of {role: user, content: text}, or text",
            )
        found.append((role, text(content, column, place, may_be_empty=True)))
    return found


def _render(messages: list[tuple[str, str]]) -> str:
    if [role for role, _ in messages] == ["user"]:
        return messages[0][1]
    return "\n\n".join(
        f"{_SPEAKERS.get(role, role.capitalize())}: {content.strip()}" for role, content in messages
    )


def _last_answer(value: list[Any], column: str, place: RowPlace) -> str:
    role, content = (_messages(value, column, place) or [("nobody", "")])[-1]
    if role != "assistant":
        raise place.error(
            column,
            f"the last message is {role}'s, not the assistant's",
            "end it with the response, or mend data.columns in the problem",
        )
    return content
