"""Where a problem's policies lie in the artifact store, and how they are opened."""

from typing import NamedTuple

from panacea_lib.champions import champion_of
from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.problem import Problem
from panacea_lib.problem_types import Quantization
from panacea_lib.warehouse import Warehouse

_CURRENT = "select key from facts.current where problem = ? and stage = ? and part = ?"


class StoredPolicy(NamedTuple):
    """Keys of a policy, None for the reference, and of its base model, and what opening needs.

    `front_key` is the evaluation that has its slider; None: the one that the problem shows today.
    """

    policy_key: str | None
    base_key: str
    quantization: Quantization
    dimensions: list[str]
    front_key: str | None


def newest_policy(warehouse: Warehouse, problem: Problem, method: str) -> StoredPolicy:
    """What the problem shows today; MissingUpstreamError where it has not been materialised."""
    base = _current_key(warehouse, problem.name, "base_model", "")
    stage = "panacea_policy" if method == "panacea" else "baseline_policies"
    key = None if method == "reference" else _current_key(warehouse, problem.name, stage, method)
    quantization = problem.base_model.quantization
    return StoredPolicy(key, base, quantization, problem.dimension_names, None)


def champion_policy(warehouse: Warehouse, problem: Problem, method: str) -> StoredPolicy:
    """The problem's champion, as it was when it was promoted.

    MissingUpstreamError where there is none; InputError for another method than panacea.
    """
    if method != "panacea":
        raise InputError(
            f"the champion of {problem.name} is a Panacea policy; ask {problem.name!r} itself for "
            f"{method!r}"
        )
    found = champion_of(warehouse, problem.name)
    where = (found.policy_key, found.base_key, found.quantization)
    return StoredPolicy(*where, found.dimensions, found.front_key)


def _current_key(warehouse: Warehouse, problem: str, stage: str, part: str) -> str:
    found = warehouse.read(_CURRENT, [problem, stage, part])["key"].to_pylist()
    if not found:
        raise MissingUpstreamError(
            f"{problem} has no {part or stage} yet; run `panacea materialize {problem}`"
        )
    return found[0]
