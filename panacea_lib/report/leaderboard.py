"""The leaderboard: what every method reached, and what that cost."""

from collections.abc import Sequence

from panacea_lib.report.markup import Row, explained, heading, number, table, text, with_interval

_QUALITY = {
    "value_ratio": "the share of the attainable improvement that the method gets: 0 is the "
    "reference policy, 1 the optimum; in brackets a 95 % bootstrap interval over prompts. "
    "This is the figure to compare",
    "charged_hypervolume": "how much of the reward space the front covers when drifting from the "
    "reference policy is paid for (β·KL off every reward); larger is better",
    "igd_plus": "mean distance, counting only shortfall, from the optimum's front to the "
    "method's, in KL-charged rewards; lower is better",
    "expected_utility": "mean over λ of the best λ·J that any of the method's points offers, "
    "where J are the KL-charged rewards; larger is better",
    "max_utility_loss": "at the worst λ, how much of that utility the method leaves against the "
    "optimum; lower is better",
    "steerability": "mean over dimensions of the Spearman correlation of λᵢ and rᵢ: 1 where more "
    "weight always means more reward",
    "charged_regret": "mean over λ of how much better another λ' of the same method would have "
    "served λ; 0 is an honest slider",
    "evenness": "(Σd)²/(K·Σd²) of the steps d between the mean rewards of neighbouring λ; 1 is "
    "even",
    "hypervolume": "the covered space without the price of drift, as papers report it; it pays "
    "for drift",
    "inner_product": "mean of λ·reward over the preference vectors; raw, larger is better",
    "sparsity": "mean squared gap between neighbours on the front; smaller is denser. "
    "A method with one point has none",
    "spacing": "how unevenly the points lie; 0 is even",
}
_COST = {
    "kl": "mean KL divergence from the reference policy, in nats: how far it drifted",
    "forwards_per_token": "passes through the model for one token of an answer",
    "adapters": "how many must be kept to serve every λ",
    "stored_parameters": "numbers in those adapters",
    "steps": "optimiser steps of training, all adapters together",
    "tokens": "tokens that training processed",
    "seconds": "training time",
    "n": "answers scored",
}
_METHODS = {
    "panacea": "one adapter that takes λ as an argument, trained by the problem's own method",
    "panacea_dpo": "the same adapter, trained with a DPO loss per dimension",
    "panacea_sft": "the same adapter, by supervised fine-tuning",
    "panacea_rloo": "the same adapter, online by RLOO",
    "rewarded_soups": "a LoRA per dimension, their weights averaged by λ",
    "mod": "the same LoRAs, their next-token distributions mixed by λ",
    "lora_per_preference": "a LoRA for each λ of a small set; the nearest answers",
    "oracle": "the same, each with all the steps and the problem's own method",
    "prompt_conditioned": "one LoRA that reads λ as digits before the prompt",
    "best_of_16": "the best of 16 answers of the reference policy by λ·proxy reward; not trained",
    "optimum": "the best policy that there can be for every λ; the ruler, not a method",
    "reference": "the base model",
}
_JUDGES = {
    "gold": "Answers are scored by gold: the embedded world's true scores, which no method saw.",
    "proxy": "Answers are scored by proxy: the learned reward models.",
}


def leaderboard_tables(rows: Sequence[Row]) -> str:
    """Rows of the view leaderboard as two tables, quality before cost, of the columns that they
    have; nothing where there are none."""
    if not rows:
        return ""
    judges = dict.fromkeys(row["judge"] for row in rows)
    judged = "".join(f"<p>{text(_JUDGES.get(judge, judge))}</p>\n" for judge in judges)
    methods = {text(row["method"]): _METHODS.get(row["method"], "") for row in rows}
    columns = {name: what for name, what in (_QUALITY | _COST).items() if _is_told(rows, name)}
    return (
        judged
        + "<h3>Quality</h3>\n"
        + _figures(rows, [name for name in columns if name in _QUALITY])
        + "<h3>Cost</h3>\n"
        + _figures(rows, [name for name in columns if name in _COST])
        + explained("What the columns mean", {heading(k): what for k, what in columns.items()})
        + explained("What the methods are", {k: what for k, what in methods.items() if what})
    )


def _is_told(rows: Sequence[Row], column: str) -> bool:
    return any(row.get(column) is not None for row in rows)


def _figures(rows: Sequence[Row], columns: Sequence[str]) -> str:
    return table(
        ["method", *(heading(name) for name in columns)],
        [[text(row["method"]), *(with_interval(row, name) for name in columns)] for row in rows],
    )


def headline(rows: Sequence[Row]) -> str:
    """What Panacea reached, in one sentence; nothing where it has no value ratio."""
    own = [r for r in rows if r["method"] == "panacea" and r.get("value_ratio") is not None]
    if not own:
        return ""
    row = own[0]
    ruler = "" if row["judge"] == "gold" else ", by an estimated ruler that reads high"
    return (
        f'<p class="headline"><b>{number(row["value_ratio"])}</b> of the attainable improvement '
        f"over the base model is what <code>panacea</code> gets, averaged over λ{ruler}"
        f"{_interval(row.get('value_ratio_low'), row.get('value_ratio_high'))}.</p>"
    )


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f" <small>(95 % interval over prompts: {number(low)} to {number(high)})</small>"
