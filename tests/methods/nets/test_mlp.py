import pytest

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.nets.mlp import MLP
from onestep.tests.methods.nets.contract import NetContract


class TestMLP(NetContract):
    shape = (2,)

    def build(self, *, classes: int = 0, guided: bool = False) -> FlowMap:
        return MLP(
            shape=self.shape, domain=Domain(t_lo=0.1), classes=classes, guided=guided, width=32
        )


def test_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="takes no tokens, got vocabulary 7"):
        MLP(shape=(2,), domain=Domain(), vocabulary=7)


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 128, 0 and 64"):
        MLP(shape=(2,), domain=Domain(), depth=0)


def test_a_derivative_too_slow_to_see_time_is_refused() -> None:
    with pytest.raises(ValueError, match="max_cycles must be at least"):
        MLP(shape=(2,), domain=Domain(), max_cycles=0.1)
