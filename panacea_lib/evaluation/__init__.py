"""What is measured, and against what: values, fronts and their figures (arrays and tables only).

`grid` fixes the preference vectors, `samples` holds what a policy answered, `ruler` says what could
have been had and `best_of_n` what costs no training. `metrics` scores the shape of a front and
`steering` how λ moves along it; `figures` gathers both for one policy, with `bootstrap`ped
intervals, and `front` makes the tables of all of them. It knows no warehouse.
"""

from panacea_lib.evaluation.best_of_n import BEST_OF, best_of_n
from panacea_lib.evaluation.front import FrontTables, evaluate_fronts
from panacea_lib.evaluation.grid import preference_grid
from panacea_lib.evaluation.ruler import Ruler, estimated_ruler, exact_ruler
from panacea_lib.evaluation.samples import (
    EVERY_POINT,
    PolicySamples,
    PromptMeans,
    prompt_means,
    reference_samples,
)

__all__ = [
    "BEST_OF",
    "EVERY_POINT",
    "FrontTables",
    "PolicySamples",
    "PromptMeans",
    "Ruler",
    "best_of_n",
    "estimated_ruler",
    "evaluate_fronts",
    "exact_ruler",
    "preference_grid",
    "prompt_means",
    "reference_samples",
]
