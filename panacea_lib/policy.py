"""Policies: whatever answers a prompt, given a preference vector λ."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from panacea_lib.adapter import as_preference, load_adapter
from panacea_lib.errors import MissingUpstreamError
from panacea_lib.generation import (
    Drawn,
    TokenRows,
    draw_rows,
    fitting_prompts,
    sequence_logprobs,
)
from panacea_lib.models.base import load_base_model
from panacea_lib.models.chat import Tokenizer, decode_responses
from panacea_lib.problem_types import Quantization
from panacea_lib.stored_slider import check_position, stored_slider

if TYPE_CHECKING:
    from panacea_lib.evaluation.slider import Slider


@dataclass
class Policy:
    """A model that answers for λ; the reference policy, which heeds none, is one too.

    `batches_mix_preferences` says whether the rows of one batch may have different λ,
    `forwards_per_token` what an answer costs in forwards of one row, and `adapters` how many of
    them are stored.
    """

    model: Any
    tokenizer: Tokenizer
    dimensions: list[str]
    batches_mix_preferences: bool = True
    forwards_per_token: int = 1
    adapters: int = 0

    def under(self, preferences: Tensor) -> AbstractContextManager[None]:
        """Within the block, row i of every batch is answered for preferences[i], shape (B, m)."""
        return nullcontext()

    def as_reference(self) -> AbstractContextManager[None]:
        """Within the block, `model` is the reference policy."""
        return nullcontext()

    def prompt_ids(
        self, prompts: list[str], max_new_tokens: int, max_length: int | None = None
    ) -> TokenRows:
        """The prompts that `generate` answers, as `panacea_lib.generation.fitting_prompts`."""
        return fitting_prompts(self.tokenizer, prompts, max_new_tokens, max_length)

    def draw(
        self, prompts: list[str], max_new_tokens: int, seed: int, max_length: int | None = None
    ) -> Drawn:
        """One sampled response per prompt, as one batch, within `under`.

        As `panacea_lib.generation.draw_rows`; its log probabilities are what `logprobs` says of the
        same rows, to rounding, for no forward more.
        """
        return draw_rows(self.model, self.tokenizer, prompts, max_new_tokens, seed, max_length)

    def generate(
        self, prompts: list[str], max_new_tokens: int, seed: int, max_length: int | None = None
    ) -> TokenRows:
        """The rows of `draw`."""
        return self.draw(prompts, max_new_tokens, seed, max_length).rows

    def logprobs(self, prompt_ids: TokenRows, responses: TokenRows) -> Tensor:
        """log π(response | prompt) in nats, shape (B,), float64, within `under`: the probability
        with which `draw` draws it.

        The reference policy's is `sequence_logprobs` of `model` within `as_reference`.
        """
        return sequence_logprobs(self.model, self.tokenizer, prompt_ids, responses)


@dataclass
class PanaceaPolicy(Policy):
    """One adapter, every preference."""

    adapters: int = 1

    def under(self, preferences: Tensor) -> AbstractContextManager[None]:
        """As `Policy.under`."""
        return self.model.preference(preferences)

    def as_reference(self) -> AbstractContextManager[None]:
        """As `Policy.as_reference`."""
        return self.model.disable_adapter()


@dataclass
class SoupPolicy(Policy):
    """Rewarded soups (arXiv 2306.04488): m LoRAs whose factors are interpolated by λ.

    Interpolating the factors, as the authors' code does, and not the products B·A.
    """

    batches_mix_preferences: bool = False
    ingredients: tuple[dict[str, Tensor], ...] = ()  # one state dict per dimension

    @contextmanager
    def under(self, preferences: Tensor) -> Iterator[None]:
        """As `Policy.under`; ValueError unless all rows have one λ."""
        from peft import set_peft_model_state_dict

        weights = preferences[0]
        if not bool((preferences == weights).all()):
            raise ValueError("rewarded soups answer one preference vector per batch")
        soup = {
            name: sum(w * part[name] for w, part in zip(weights, self.ingredients, strict=True))
            for name in self.ingredients[0]
        }
        set_peft_model_state_dict(self.model, soup)
        yield

    def as_reference(self) -> AbstractContextManager[None]:
        """As `Policy.as_reference`."""
        return self.model.disable_adapter()


def open_policy(
    method: str,
    folder: Path | None,
    base_folder: Path,
    quantization: Quantization,
    dimensions: list[str],
) -> Policy:
    """The policy that `train_policy` left in `folder`; method 'reference' needs none.

    What its adapters look like there is told where each kind is opened; all methods that train the
    adapter of this package are opened alike.
    """
    from panacea_lib.baseline_policies import (
        open_mixture,
        open_nearest,
        open_prompt_conditioned,
    )

    model, tokenizer = load_base_model(base_folder, quantization)
    if method == "reference":
        return Policy(model, tokenizer, dimensions)
    if folder is None:
        raise ValueError(f"{method}: no folder to load the policy from")
    kinds = {
        "rewarded_soups": _open_soup,
        "mod": open_mixture,
        "lora_per_preference": open_nearest,
        "oracle": open_nearest,
        "prompt_conditioned": open_prompt_conditioned,
    }
    if method in kinds:
        return kinds[method](model, tokenizer, folder, dimensions)
    return PanaceaPolicy(load_adapter(model, folder / "panacea"), tokenizer, dimensions)


def _open_soup(model: Any, tokenizer: Tokenizer, folder: Path, dimensions: list[str]) -> Policy:
    from peft import PeftModel
    from peft.utils import SAFETENSORS_WEIGHTS_NAME
    from safetensors.torch import load_file

    model = PeftModel.from_pretrained(model, str(folder / dimensions[0])).eval()
    parts = tuple(load_file(folder / name / SAFETENSORS_WEIGHTS_NAME) for name in dimensions)
    return SoupPolicy(model, tokenizer, dimensions, adapters=len(parts), ingredients=parts)


class LoadedPolicy:
    """A trained policy of a problem, ready to be asked."""

    def __init__(
        self,
        policy: Policy,
        max_new_tokens: int,
        max_length: int | None = None,
        read_slider: "Callable[[], Slider] | None" = None,
    ) -> None:
        """`read_slider` is called when a slider is asked for; without it there is none."""
        self._policy = policy
        self._max_new_tokens = max_new_tokens
        self._max_length = max_length
        self._read_slider = read_slider

    @property
    def dimensions(self) -> list[str]:
        """The names that a preference may weigh."""
        return self._policy.dimensions

    def slider(self, t: float) -> dict[str, float]:
        """λ at position t of the calibrated slider, for `ask`: from 0, all weight on the second
        dimension, to 1, all on the first, in equal steps along the measured front.

        InputError for a t outside [0, 1], and where there are not two dimensions;
        MissingUpstreamError where the policy was not evaluated.
        """
        names = self.dimensions
        check_position(names, t)
        if self._read_slider is None:
            raise MissingUpstreamError(
                "this policy was not opened by load_policy: it has no slider"
            )
        return dict(zip(names, self._read_slider().preference(t).tolist(), strict=True))

    def ask(self, prompt: str, preference: dict[str, float], seed: int = 0) -> str:
        """One sampled answer for one λ by dimension name; ValueError for a bad λ."""
        return self.ask_many([prompt], [preference], seed)[0]

    def ask_many(
        self, prompts: list[str], preferences: list[dict[str, float]], seed: int = 0
    ) -> list[str]:
        """One answer per prompt, each for its own λ; ValueError where their numbers differ."""
        if len(prompts) != len(preferences):
            raise ValueError(f"{len(prompts)} prompts, but {len(preferences)} preferences")
        policy = self._policy
        rows = torch.stack([as_preference(p, policy.dimensions) for p in preferences])
        batches = (
            [list(range(len(rows)))]
            if policy.batches_mix_preferences
            else [[i] for i in range(len(rows))]
        )
        answers = [""] * len(rows)
        for batch in batches:
            with policy.under(rows[batch]):
                asked = [prompts[i] for i in batch]
                tokens = policy.generate(asked, self._max_new_tokens, seed, self._max_length)
            for i, text in zip(batch, decode_responses(policy.tokenizer, tokens), strict=True):
                answers[i] = text
        return answers


def load_policy(problem: str, method: str = "panacea", workspace: Any = None) -> LoadedPolicy:
    """The newest trained policy of a problem, from the artifact store; of `champion:PROBLEM` its
    champion, on its own base model, whatever was trained since.

    MissingUpstreamError where the problem has not been materialised, or has no champion; InputError
    for a champion by another method than panacea.
    """
    from panacea_lib.artifact_store import ArtifactStore
    from panacea_lib.champions import ALIAS
    from panacea_lib.problem_files import load_problem_named
    from panacea_lib.stored_policy import champion_policy, newest_policy
    from panacea_lib.warehouse import Warehouse
    from panacea_lib.workspace import Workspace

    workspace = workspace or Workspace.current()
    name = problem.removeprefix(ALIAS)
    loaded = load_problem_named(workspace, name)
    warehouse, store = Warehouse(workspace.warehouse), ArtifactStore(workspace.artifacts)
    find = newest_policy if name == problem else champion_policy
    stored = find(warehouse, loaded, method)
    folder = None if stored.policy_key is None else store.fetch(stored.policy_key)
    base = store.fetch(stored.base_key)
    return LoadedPolicy(
        open_policy(method, folder, base, stored.quantization, stored.dimensions),
        loaded.evaluation.max_new_tokens,
        loaded.base_model.max_length,
        lambda: stored_slider(warehouse, name, method, stored.dimensions, stored.front_key),
    )
