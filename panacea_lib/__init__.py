"""One language model, every preference: Panacea (arXiv 2402.02030) as a library.

The adapter's names are here too: `panacea_lib.set_preference(model, λ)`, `from panacea_lib import
PanaceaConfig`. The first use of one imports torch and makes the method known to PEFT (as `import
panacea_lib.adapter` does); `import panacea_lib` alone imports nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panacea_lib.adapter import (
        PanaceaConfig,
        PanaceaModel,
        as_preference,
        export_lora,
        load_adapter,
        set_preference,
        under_preference,
    )

__all__ = [
    "PanaceaConfig",
    "PanaceaModel",
    "as_preference",
    "export_lora",
    "load_adapter",
    "set_preference",
    "under_preference",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("panacea_lib.adapter"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
