from importlib.resources import files
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from omegaconf import OmegaConf

from onestep.methods.core.method import AbstractLearner
from onestep.platform.build import build
from onestep.platform.configuration import PLATFORM, compose, forget, search_in
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import assemble


def named(module: str, group: str) -> list[str]:
    folder = files(module) / group
    return sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def test_a_configuration_is_plain_values() -> None:
    values = compose("train")
    assert type(values) is dict
    assert type(values["training"]) is dict
    assert type(values["training"]["ema_half_lives"]) is list
    assert values["data"]["_target_"] == "onestep.platform.data.digits.Digits"


def test_overrides_choose_things_and_set_their_fields() -> None:
    values = compose("train", ["method=shortcut", "method.clip=3.5", "training.samples=4096"])
    assert values["method"]["_target_"] == "onestep.methods.shortcut.Shortcut"
    assert values["method"]["clip"] == 3.5
    assert values["training"]["samples"] == 4096


def test_composing_twice_gives_the_same() -> None:
    once = compose("train", ["net=mlp"])
    once["training"]["ema_half_lives"].append(1.0)  # it is the caller's own
    again = compose("train", ["net=mlp"])
    once["training"]["ema_half_lives"].pop()
    assert once == again
    assert compose("train", ["net=mlp"]) != compose("train", ["net=mlp_large"])


@pytest.mark.parametrize("method", named("onestep.methods.conf", "method"))
def test_every_method_assembles(method: str) -> None:
    overrides = [f"method={method}", "net=mlp", "data=moons"]
    needs = build(compose("train", overrides)["method"], AbstractLearner).needs
    overrides += [f"parents.{role}=somewhere" for role in needs.frozen]
    if needs.pairs:
        overrides.append("parents.pairs=somewhere")
    experiment = Experiment.from_dict(compose("train", overrides), tuple(overrides))
    assembly = assemble(experiment)
    assert assembly.name == method


def test_evaluations_that_no_sampler_spends_are_refused_before_training() -> None:
    overrides = ["method=edm", "net=mlp", "data=moons"]
    assemble(Experiment.from_dict(compose("train", overrides)))
    with pytest.raises(ValueError, match=r"evaluation\.nfes must be numbers .*, got 1$"):
        assemble(Experiment.from_dict(compose("train", [*overrides, "evaluation.nfes=[1]"])))


def test_data_whose_name_is_none_of_a_model_are_refused_before_training() -> None:
    overrides = ["data=image_folder", "data.folder='~/my photos'", "net=unet_tiny"]
    with pytest.raises(ValueError, match=r"last part of data\.folder .*, got 'my photos'"):
        assemble(Experiment.from_dict(compose("train", overrides)))


def test_a_path_that_nearly_reaches_the_data_can_be_evaluated_in_one_step() -> None:
    path = "method.path._target_=onestep.methods.core.path.VariancePreservingPath"
    overrides = ["method=flow_matching", path, "net=mlp", "data=moons", "evaluation.nfes=[1]"]
    assemble(Experiment.from_dict(compose("train", overrides)))


def test_an_unknown_key_is_told_with_the_keys_of_the_chosen_thing() -> None:
    with pytest.raises(ValueError, match=r"no key method\.clipp, allowed in method: .*clip"):
        compose("train", ["method=shortcut", "method.clipp=3"])
    with pytest.raises(ValueError, match=r"no key method\.clip, allowed in method: .*tangent"):
        compose("train", ["method=mean_flow", "method.clip=3"])


@pytest.mark.parametrize(("data", "key"), [("image_folder", "folder"), ("hugging_face", "path")])
def test_a_value_that_has_to_be_given_is_named(data: str, key: str) -> None:
    with pytest.raises(ValueError, match=rf"^data\.{key} has no value: give one, as data\.{key}="):
        compose("train", [f"data={data}"])


def test_of_two_unknown_keys_one_is_told() -> None:
    with pytest.raises(ValueError, match=r"no key training\.a, allowed in training: accumulate"):
        compose("train", ["training.a=1", "training.b=1"])


def test_a_key_below_a_plain_value_is_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        compose("train", ["seed.x=1"])


@pytest.mark.parametrize(
    "values",
    [
        ("training.samples=1000", "training.samples=2000"),
        ("evaluation.nfes=[1,2]", "optimizer.lr=1e-4"),
        ("method.times.law={mean:-1.0}", "method.times.law.std=2.0"),
        ("parents.teacher='digits@champion'", "parents.initial=null"),
        ("+net.guided=true", "training.samples=1000", "~method.coupling"),
        ("training.samples=1000", "training={samples:2000}"),
        ("parents.teacher=a", "parents={teacher:b}"),
        ("method.times.law.std=2.0", "method={times:{law:{std:3.0}}}"),
        ("method.times.law._target_=onestep.methods.core.time_law.LogitNormal", "seed=3"),
        ("coupling@method.coupling=minibatch_ot", "method.coupling.by_label=true"),
        ("method.coupling.by_label=true", "coupling@method.coupling=minibatch_ot"),
        ("training.samples=${seed}", "seed=3"),
        ("training.samples=7", "training=null"),
    ],
)
def test_values_that_are_set_later_are_those_that_hydra_sets(values: tuple[str, ...]) -> None:
    choices = ["method=mean_flow", "net=unet_digits", "data=digits"]
    with initialize_config_module(PLATFORM, version_base="1.3"):
        search = "hydra.searchpath=[pkg://onestep.methods.conf]"
        whole = hydra_compose("train", overrides=[search, *choices, *values])
    want = OmegaConf.to_container(whole, resolve=True, throw_on_missing=True)
    forget()
    for _ in range(2):  # the second time over what the first one has kept
        assert compose("train", [*choices, *values]) == want


@pytest.mark.parametrize("value", ["training.samples=1,2", "training.samples=[1", "net.x.y=1"])
def test_a_value_that_hydra_refuses_is_refused_in_its_words(value: str) -> None:
    with pytest.raises(ValueError, match=r"sweep|samples|viable|key net") as told:
        compose("train", [value])
    with pytest.raises(ValueError, match=r"sweep|samples|viable|key net") as whole:
        compose("train", [value, "+training.other=1"])  # which Hydra alone composes
    assert str(told.value) == str(whole.value)


def own_folder(place: Path) -> Path:
    """A folder with an experiment of the user's own, whose name has what Hydra would split."""
    folder = place / "it's, mine"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 41\n")
    return folder


def test_files_of_the_users_own_are_found_beside_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_folder(tmp_path)
    words = ["experiment=mine", "method=mean_flow"]
    for named in (search_in([str(folder)]), search_in([f"file://{folder}"])):
        assert compose("train", [named, *words])["seed"] == 41
    monkeypatch.chdir(folder)
    assert compose("train", ["hydra.searchpath=[.]", *words, "training.batch_size=8"])["seed"] == 41
    with pytest.raises(ValueError, match=r"^there is no experiment/mine"):
        compose("train", words)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "[no/such]",
            r"^hydra.searchpath must name folders, got no/such: there is no /.*/no/such$",
        ),
        ("3", r"^hydra.searchpath must be a list of folders such as \[conf\], got "),
        ("[1]", r"^hydra.searchpath must be a list of folders"),
        ("[a", r"^hydra.searchpath must be a list of folders"),
    ],
)
def test_a_folder_that_there_is_not_is_refused(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compose("train", [f"hydra.searchpath={given}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: [1\n", r", line 2: expected ',' or '\]', .* sequence that begins in line 1$"),
        ("name: mine\n  seed: 3\n", r", line 2: mapping values are not allowed here$"),
        ("seed: 1\n\tname: mine\n", r", line 2: found character '\\t' that cannot start any tok"),
        ("seed: 1\nseed: 2\n", r", line 2: found duplicate key seed, .* begins in line 1$"),
        ("seed: !mine 3\n", r", line 1: could not determine a constructor for the tag '!mine'$"),
    ],
)
def test_a_file_that_is_no_yaml_is_refused_with_its_line(
    text: str, said: str, tmp_path: Path
) -> None:
    folder = own_folder(tmp_path)
    file = folder / "experiment" / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^cannot read {file} as YAML{said}"):
        compose("train", [search_in([str(folder)]), "experiment=wrong"])


def test_an_interpolation_that_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    folder = own_folder(tmp_path)
    (folder / "experiment" / "wrong.yaml").write_text("# @package _global_\nname: ${seed\n")
    with pytest.raises(ValueError, match=r"^no viable alternative at input '\$\{seed'$"):
        compose("train", [search_in([str(folder)]), "experiment=wrong"])


def test_a_sign_that_yaml_does_not_know_is_refused_in_words(tmp_path: Path) -> None:
    folder = own_folder(tmp_path)
    file = folder / "experiment" / "wrong.yaml"
    file.write_text("seed: \x00\n")
    with pytest.raises(
        ValueError, match=f'^cannot read a file as YAML: .*in "{file}", position 6$'
    ):
        compose("train", [search_in([str(folder)]), "experiment=wrong"])


def test_the_keys_of_a_users_own_experiment_are_named(tmp_path: Path) -> None:
    named = search_in([str(own_folder(tmp_path))])
    with pytest.raises(ValueError, match=r"^there is no key sed, allowed: .*seed"):
        compose("train", [named, "experiment=mine", "sed=3"])


def test_the_folders_are_named_in_which_a_file_was_looked_for(tmp_path: Path) -> None:
    folder = own_folder(tmp_path)
    said = f"^there is no experiment/other.*; .* experiment/other.yaml in {folder}, {tmp_path}$"
    with pytest.raises(ValueError, match=said):
        compose("train", [search_in([str(folder), str(tmp_path)]), "experiment=other"])
    with pytest.raises(ValueError, match=r"^there is no experiment/other[^;]*$"):
        compose("train", ["experiment=other"])


def test_the_nearest_name_is_asked_about() -> None:
    with pytest.raises(ValueError, match=r"^there is no method/men_flow: did you mean method=mean"):
        compose("train", ["method=men_flow"])
