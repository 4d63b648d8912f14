"""The lines of Python on a model card: they run in the card's folder, as they stand."""

import json
from typing import Any

from panacea_lib.problem import Problem
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_models import PretrainedModel

_ADAPTER = """\
{header}from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer{quantization_import}

# In this folder. Once on a hub: the ids of the base model and of this one.
base, adapter = {base}, "."
tokenizer = AutoTokenizer.from_pretrained(base{revision})
model = AutoModelForCausalLM.from_pretrained(base{revision}{quantization})
model = PeftModel.from_pretrained(model, adapter)

chat = [{{"role": "user", "content": {prompt}}}]
asked = tokenizer.apply_chat_template(
    chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(
    **asked,{preference}
    max_new_tokens={length},
    do_sample=True,  # at temperature 1, as it was measured
    top_k=0,
)
print(tokenizer.decode(answer[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))
"""
_POLICY = """\
from pathlib import Path

from panacea_lib.policy import LoadedPolicy, open_policy

folder, base = Path("."), Path("../base_model")  # this folder, and the base model's beside it
policy = open_policy({method}, folder, base, {quantization}, {dimensions})
print(LoadedPolicy(policy, {length}).ask({prompt}, {preference}))
"""
_QUANTIZATIONS = {
    "nf4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4"',
    "int8": "load_in_8bit=True",
}


def adapter_code(problem: Problem, base_place: str, needs_preference: bool) -> str:
    """Load one adapter with PEFT and ask it; `needs_preference` where it is a Panacea adapter.

    base_place: what `from_pretrained` finds the base model under.
    """
    base = problem.base_model
    quantized = _QUANTIZATIONS.get(base.quantization)
    revision = ""
    if isinstance(base, PretrainedModel) and base_place == base.model:
        revision = f", revision={_literal(base.revision)}"
    header = "import panacea_lib.adapter  # makes the method known to PEFT\n"
    return _ADAPTER.format(
        header=header if needs_preference else "",
        base=_literal(base_place),
        revision=revision,
        quantization_import=", BitsAndBytesConfig" if quantized else "",
        quantization=f", quantization_config=BitsAndBytesConfig({quantized})" if quantized else "",
        prompt=_prompt(problem),
        preference=f"\n    preference={_preference(problem)}," if needs_preference else "",
        length=problem.evaluation.max_new_tokens,
    )


def policy_code(problem: Problem, method: str) -> str:
    """Open a policy of several LoRAs, or of one that reads λ, and ask it."""
    return _POLICY.format(
        method=_literal(method),
        quantization=_literal(problem.base_model.quantization),
        dimensions=_literal(problem.dimension_names),
        length=problem.evaluation.max_new_tokens,
        prompt=_prompt(problem),
        preference=_preference(problem),
    )


def _prompt(problem: Problem) -> str:
    in_world = isinstance(problem.data, WorldData)
    return _literal("how do i bake bread today" if in_world else "How do I bake bread?")


def _preference(problem: Problem) -> str:
    """An example: those that are not named weigh nothing."""
    first, second, *_ = problem.dimension_names
    return _literal({first: 0.2, second: 0.8})


def _literal(value: Any) -> str:
    """Text, lists and numbers are written in JSON as in Python, with double quotes."""
    return json.dumps(value, ensure_ascii=False)
