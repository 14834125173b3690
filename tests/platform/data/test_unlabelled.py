"""Data without their labels are the same examples, and another set."""

import torch

from onestep.platform.build import build
from onestep.platform.configuration import compose
from onestep.platform.data.captioned_digits import CaptionedDigits
from onestep.platform.data.digits import Digits
from onestep.platform.data.source import AbstractSource
from onestep.platform.data.unlabelled import Unlabelled


def test_the_examples_are_the_same_and_untold() -> None:
    whole, bare = Digits().load(), Unlabelled(of=Digits()).load()
    assert torch.equal(bare.train.x, whole.train.x)
    assert torch.equal(bare.held_out.x, whole.held_out.x)
    assert bare.train.white == whole.train.white
    assert bare.train.condition() is None
    assert (bare.name, bare.shape, bare.classes) == ("digits_unlabelled", whole.shape, 0)
    assert bare.digest != whole.digest


def test_captions_are_left_out_too() -> None:
    bare = Unlabelled(of=CaptionedDigits()).load()
    assert bare.vocabulary == ()
    assert bare.train.condition() is None


def test_a_configuration_names_the_other_set() -> None:
    source = build(compose("train", ["data=unlabelled"])["data"], AbstractSource)
    assert source == Unlabelled(of=Digits())
    other = build(
        compose("train", ["data=unlabelled", "data@data.of=mnist"])["data"], AbstractSource
    )
    assert other.name == "mnist_unlabelled"
