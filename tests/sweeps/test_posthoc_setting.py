from onestep.methods.core.grid import ListGrid
from onestep.methods.core.sampler import Jumps, Renoise
from onestep.sweeps.posthoc_setting import Setting


def test_a_point_becomes_what_the_commands_take() -> None:
    values = {
        "ema.width": 0.08,
        "evaluation.guidance": 2.5,
        "sampler": "renoise",
        "sampler.grid.inner.1": 0.25,
        "sampler.grid.inner.2": 0.75,
    }
    setting = Setting.of(values)
    assert setting == Setting(
        width=0.08,
        train=("evaluation.guidance=2.5",),
        sampler=("sampler=renoise", "sampler.grid.inner=[0.25,0.75]"),
    )
    assert setting.named == Renoise(grid=ListGrid(inner=(0.25, 0.75)))
    assert str(setting) == (
        "ema.width=0.08 evaluation.guidance=2.5 sampler=renoise sampler.grid.inner=[0.25,0.75]"
    )


def test_a_setting_is_told_in_few_digits_and_kept_in_all() -> None:
    setting = Setting.of({"ema.width": 0.1 / 3, "sampler": "jumps", "sampler.grid.inner": 2 / 3})
    assert str(setting) == "ema.width=0.03333 sampler=jumps sampler.grid.inner=[0.6667]"
    assert setting.named == Jumps(grid=ListGrid(inner=(2 / 3,)))


def test_what_all_points_share_stands_before_what_is_their_own() -> None:
    setting = Setting.of({"sampler.grid.inner": 0.3}, ["sampler=jumps"])
    assert setting.named == Jumps(grid=ListGrid(inner=(0.3,)))
    assert Setting.of({"sampler": "renoise"}, ["sampler=jumps"]).named == Renoise(
        grid=ListGrid(inner=(0.4,))
    )


def test_a_sampler_that_is_null_is_that_of_the_domain() -> None:
    assert Setting.of({"sampler": None}) == Setting()
    assert (Setting().named, str(Setting())) == (None, "as trained")
