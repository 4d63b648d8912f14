"""Responses that are generated to be paired and labelled (a problem's section `pairs`)."""

import json
from typing import TYPE_CHECKING

from orchestration.inputs import prompt_records
from orchestration.stage import StageRun
from panacea_lib.errors import InputError
from panacea_lib.problem_labelling import GeneratedPairs
from panacea_lib.records import PromptRecord, ResponseRecord, response_id

if TYPE_CHECKING:
    from panacea_lib.policy import Policy

GENERATED = "generated"  # the source of these responses


def generated_responses(run: StageRun, config: GeneratedPairs) -> list[ResponseRecord]:
    """Answers to training and validation prompts, by the base model or by the pinned policy.

    InputError where the store does not hold that policy, or it was not trained on this base model.
    """
    from panacea_lib.labelling.generate import generate_answers

    asked = prompts_to_answer(run, config.prompts)
    answers = generate_answers(
        _open_policy(run, config),
        [record.text for record in asked],
        config,
        run.plan.seed,
        run.reporter.listener(GENERATED),
        run.problem.base_model.max_length,
    )
    return numbered_responses(asked, answers, GENERATED)


def prompts_to_answer(run: StageRun, count: int | None) -> list[PromptRecord]:
    """At most `count` prompts of the training and validation sides."""
    # Ids are hashes: their order is a draw that the same prompts always win.
    asked = (record for record in prompt_records(run) if record.split != "test")
    return sorted(asked, key=lambda record: record.prompt_id)[:count]


def numbered_responses(
    asked: list[PromptRecord], texts: list[list[str]], source: str
) -> list[ResponseRecord]:
    """The answers to each prompt, numbered, so that a text that was drawn twice counts twice."""
    return [
        ResponseRecord(
            response_id(record.prompt_id, f"{source} {i}", text), record.prompt_id, source, text
        )
        for record, drawn in zip(asked, texts, strict=True)
        for i, text in enumerate(drawn)
    ]


def _open_policy(run: StageRun, config: GeneratedPairs) -> "Policy":
    from panacea_lib.policy import open_policy

    base, quantization = run.artifact("base_model"), run.problem.base_model.quantization
    key, names = config.policy, run.problem.dimension_names
    if key is None:
        return open_policy("reference", None, base, quantization, names)
    where = f"{run.problem_file}, pairs.policy: {key}"
    if not run.store.is_complete(key):
        raise InputError(
            f'{where} is not in the artifact store {run.store.url}; `panacea sql "select key from '
            "runs where stage = 'panacea_policy'\"` lists what is"
        )
    folder = run.store.fetch(key)
    settings = folder / "panacea" / "adapter_config.json"
    if not settings.is_file():
        raise InputError(f"{where} is no Panacea policy; name the key of a panacea_policy")
    # It answers under its own dimensions, which the problem may have added to since.
    names = json.loads(settings.read_text(encoding="utf-8"))["dimensions"]
    try:
        return open_policy("panacea", folder, base, quantization, names)
    except ValueError as error:
        raise InputError(f"{where} does not fit this problem's base model: {error}") from error
