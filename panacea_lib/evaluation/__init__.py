"""What is measured, and against what: values, fronts and their figures (arrays and tables only).

`grid` fixes the preference vectors, `samples` holds what a policy answered, `ruler` says what could
have been had, `metrics` scores a front, and `front` puts them together. It knows no warehouse.
"""

from panacea_lib.evaluation.front import FrontTables, evaluate_fronts
from panacea_lib.evaluation.grid import preference_grid
from panacea_lib.evaluation.ruler import Ruler, estimated_ruler, exact_ruler
from panacea_lib.evaluation.samples import EVERY_POINT, PolicySamples, reference_samples

__all__ = [
    "EVERY_POINT",
    "FrontTables",
    "PolicySamples",
    "Ruler",
    "estimated_ruler",
    "evaluate_fronts",
    "exact_ruler",
    "preference_grid",
    "reference_samples",
]
