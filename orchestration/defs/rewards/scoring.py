"""Every response scored on every dimension, by each trunk once."""

import numpy as np
import pyarrow as pa

from orchestration.defs.dataset.assets import REFERENCE
from orchestration.defs.rewards.training import dimensions_of
from orchestration.inputs import response_texts, reward_base
from orchestration.stage import Made, StageRun
from panacea_lib.rewards.scale import RewardScale


class ResponseScores:
    """Raw scores of all responses; a trunk that several dimensions share is asked once."""

    def __init__(self, run: StageRun) -> None:
        self._run = run
        self._known: dict[str, np.ndarray] = {}

    def rows(self, dimension: str) -> Made:
        """Rows of response_rewards of one dimension, and their scale."""
        responses = response_texts(self._run)
        raw = self._raw(dimension, responses)
        reference = np.array(responses["source"].to_pylist()) == REFERENCE
        asked = np.array(responses["prompt_id"].to_pylist())
        scale = RewardScale.fit(asked[reference].tolist(), raw[reference, None])
        table = pa.table(
            {
                "response_id": responses["response_id"],
                "dimension": pa.array([dimension] * responses.num_rows, pa.string()),
                "raw": raw,
                "reward": scale.apply(raw[:, None])[:, 0],
            }
        )
        return Made({"response_rewards": table}, {"scale": scale.to_dict()})

    def _raw(self, dimension: str, responses: pa.Table) -> np.ndarray:
        """Raw scores, shape (N,)."""
        from panacea_lib.rewards.score import score_responses

        run, part = self._run, self._run.plan.reward_model_of(dimension)
        if part not in self._known:
            loaded = run.problem.rewards.model or run.problem.base_model
            self._known[part] = score_responses(
                reward_base(run),
                loaded.quantization,
                run.artifact("reward_models", part),
                loaded.max_length,
                responses["prompt"].to_pylist(),
                responses["text"].to_pylist(),
                run.reporter.listener(dimension),
                run.working_dir(dimension),
            )
        return self._known[part][:, dimensions_of(run, part).index(dimension)]
