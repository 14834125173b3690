"""Contract suites are plain modules; their assertions are rewritten like those of test modules."""

import pytest

pytest.register_assert_rewrite(
    "onestep.tests.methods.contract",
    "onestep.tests.methods.exactness",
    "onestep.tests.methods.core.contract",
)
