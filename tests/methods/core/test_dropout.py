from copy import deepcopy

import pytest
import torch
from torch import Tensor

from onestep.methods.core.dropout import Dropout, dropout_masks, dropout_rows
from onestep.methods.core.rng import Rng

P = 0.25


def dropped(layer: Dropout, rng: Rng, n: int = 8) -> Tensor:
    with dropout_masks(rng, n):
        return layer(torch.ones(n, 500))


def test_a_share_p_is_dropped_and_the_mean_is_kept() -> None:
    n, width = 400, 500
    with dropout_masks(Rng.seeded(0), n):
        y = Dropout(P, ordinal=0)(torch.ones(n, width))
    standard_error = (P / (1 - P) / (n * width)) ** 0.5
    assert abs(y.mean().item() - 1.0) < 4 * standard_error
    assert torch.equal(y.unique(), torch.tensor([0.0, 1 / (1 - P)]))


def test_evaluation_mode_and_a_share_of_zero_change_nothing() -> None:
    x = torch.randn(3, 4)
    assert Dropout(P, ordinal=0).eval()(x) is x
    assert Dropout(0.0, ordinal=0)(x) is x


def test_training_without_masks_says_what_to_enter() -> None:
    with pytest.raises(RuntimeError, match=r"with dropout_masks\(rng, n\)"):
        Dropout(P, ordinal=0)(torch.ones(2, 3))


def test_masks_for_other_rows_are_refused() -> None:
    message = "masks for 4 rows, got 3"
    with dropout_masks(Rng.seeded(0), 4), pytest.raises(RuntimeError, match=message):
        Dropout(P, ordinal=0)(torch.ones(3, 5))


def test_two_evaluations_of_the_same_rows_share_their_mask() -> None:
    layer = Dropout(P, ordinal=0)
    x, rows = torch.ones(4, 500), torch.tensor([2, 0, 2])
    with dropout_masks(Rng.seeded(0), 4):
        y = layer(x)
        assert torch.equal(layer(x), y)
        assert torch.equal(deepcopy(layer)(x), y)
        with dropout_rows(rows):
            assert torch.equal(layer(x[rows]), y[rows])
        with dropout_rows(slice(1, 3)):
            assert torch.equal(layer(x[1:3]), y[1:3])
        assert torch.equal(layer(x), y)


def test_layers_and_steps_differ() -> None:
    first, second = Dropout(P, ordinal=0), Dropout(P, ordinal=1)
    y = dropped(first, Rng.seeded(0, step=0))
    assert torch.equal(dropped(first, Rng.seeded(0, step=0)), y)
    assert not torch.equal(dropped(second, Rng.seeded(0, step=0)), y)
    assert not torch.equal(dropped(first, Rng.seeded(0, step=1)), y)


def test_masks_do_not_depend_on_the_order_of_evaluation() -> None:
    first, second = Dropout(P, ordinal=0), Dropout(P, ordinal=1)
    x = torch.ones(4, 500)
    with dropout_masks(Rng.seeded(0), 4):
        one, other = first(x), second(x)
    with dropout_masks(Rng.seeded(0), 4):
        assert torch.equal(second(x), other)
        assert torch.equal(first(x), one)


def test_a_worker_with_some_shards_has_the_masks_of_its_rows() -> None:
    layer = Dropout(P, ordinal=0)
    whole = dropped(layer, Rng.seeded(0, shards=range(4)))
    part = dropped(layer, Rng.seeded(0, shards=(2, 3)), n=4)
    assert torch.equal(part, whole[4:])


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    dropped(Dropout(P, ordinal=0), Rng.seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_masks_of_an_outer_batch_come_back_after_an_inner_one() -> None:
    layer, x = Dropout(P, ordinal=0), torch.ones(4, 500)
    with dropout_masks(Rng.seeded(0), 4):
        y = layer(x)
        with dropout_rows(slice(0, 2)):
            inner = dropped(layer, Rng.seeded(1))
            assert len(inner) == 8
            assert torch.equal(layer(x[:2]), y[:2])


def test_a_share_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\), got 1.0"):
        Dropout(1.0, ordinal=0)


def test_the_derivative_uses_the_mask_of_the_value() -> None:
    layer, x = Dropout(P, ordinal=0), torch.ones(4, 500)
    with dropout_masks(Rng.seeded(0), 4):
        value, tangent = torch.func.jvp(layer, (x,), (x,))
    assert torch.equal(value, tangent)
