"""Requests that schemathesis makes of an OpenAPI schema: what it allows, and what it forbids."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode


def ask_by_schema(schema: Any, *, examples: int, ask: Callable[[Any], None]) -> None:
    """Makes requests of every operation, by the schema and against it, the same every time.

    Args:
        schema: A schema of schemathesis.
        examples: Requests for each operation and mode.
        ask: Sends a case, and looks at the answer.
    """
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:

            @settings(
                max_examples=examples,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def asked(case: Any) -> None:
                ask(case)

            try:
                asked()
            except Unsatisfiable:  # nothing can be wrong where nothing is asked
                continue
