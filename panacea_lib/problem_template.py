"""The text that `panacea new NAME` prints: a valid problem, commented, to be edited."""

from panacea_lib.problem_files import check_name
from panacea_lib.workspace import PROJECT_ROOT

_TEMPLATE = """\
# yaml-language-server: $schema=@SCHEMA@
# A problem: base model + data + dimensions + methods. Save this as @NAME@.yaml in a folder that
# PANACEA_PROBLEMS names, then `panacea validate @NAME@.yaml`. Every key that is not here has a
# default; docs/problem.schema.json lists them all, and unknown keys are refused.
name: @NAME@ # the file's name without .yaml
description: What this problem is for.
# extends: demo          # take over another problem's keys; mappings merge, lists are replaced
seed: 0
beta: 0.5 # the KL price: lower lets the policy move further from the base model

dimensions: # 2 to 10; the order is the order of the preference vector's entries
  - name: helpfulness
    description: does what was asked
  - name: harmlessness
    description: does no harm

data:
  kind: file # file | hub | known | several | world (the embedded world, which needs no data)
  # license: cc-by-4.0   # as the Hugging Face hub spells it; model cards state it
  path: @NAME@.jsonl # .jsonl, .jsonl.gz, .csv or .parquet; relative to this file; ${VARIABLES} work
  # kind: hub            # instead of kind and path: a data set on the Hugging Face hub
  # dataset: owner/name
  # revision: main       # better a commit
  # hub_split: train
  # kind: known          # or one whose columns are known (`panacea datasets`); then no columns
  # name: pku-saferlhf
  # kind: several        # or parts: [{kind: file, ...}, {kind: known, ...}], each with its columns
  columns:
    layout: pairs # or chosen | responses | demonstrations: see assets_data/README.md
    prompt: prompt
    response_a: response_a
    response_b: response_b
    # id: pair_id        # optional; then one id must not stand on two different pairs
    # annotator: who     # optional; the column of who labelled the pair
    labels: # per dimension, in one of four forms; null means unknown
      helpfulness: scores.helpfulness # a column that holds [score of a, score of b]
      # helpfulness: {a: helpful_a, b: helpful_b} # two columns of scores
      # helpfulness: {preferred: more_helpful} # P(a is better) from 0 to 1, or a | b | tie
      # helpfulness: {strength: how_much, scale: 3, positive: b} # -3 to 3, 0 is a tie
      harmlessness: scores.harmlessness
  split: # shares of the prompts; a prompt is never on two sides
    validation: 0.1
    test: 0.1
  # limit: 1000          # read only the first rows

# inbox: # new files of these columns, dropped into var/inbox/@NAME@/, join the data (docs/inbox.md)
#   columns: {layout: pairs, labels: {helpfulness: scores.helpfulness}}

base_model:
  kind: scratch # a tiny model trained from scratch on the data's own text: no download, no GPU
  tokenizer: bpe
  vocab_size: 2048
  max_length: 256
  # kind: pretrained     # instead: a hub model, or a directory (/..., ./..., ~/..., ${VARIABLE})
  # model: HuggingFaceTB/SmolLM2-135M-Instruct
  # quantization: nf4    # none | nf4 | int8

training:
  method: reward_distillation # or dpo, rloo, sft
  steps: 400
  batch_size: 64

# launch:                # where policies are trained; nothing that is made depends on it
#   training: subprocess # in a process beside the run, which survives its death; default: inside
#   processes: 2         # by `accelerate launch`, one for each GPU; batch_size is for all of them

# retrain:               # a schedule; every problem has one, which the UI can start and stop
#   cron: 0 3 * * 1      # minute, hour, day of the month, month, day of the week: Mondays at 3:00
#   timezone: UTC
#   enabled: true        # it runs without being started in the UI
"""


def new_problem(name: str) -> str:
    """The template for a problem of that name; InputError if it is no problem name."""
    check_name(name, "panacea new")
    schema = PROJECT_ROOT / "docs" / "problem.schema.json"
    return _TEMPLATE.replace("@NAME@", name).replace("@SCHEMA@", str(schema))
