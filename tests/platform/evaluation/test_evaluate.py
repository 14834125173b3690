"""The whole evaluation: floors, trivial baselines, the curve over evaluations, provenance."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap, Velocity
from onestep.methods.oracle import GaussianMap
from onestep.platform.data.checkerboard import Checkerboard
from onestep.platform.data.digits import Digits
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.data.latent_space import LatentSpace
from onestep.platform.data.source import Dataset, Examples
from onestep.platform.evaluation.baseline import distinct_rows, gaussian_samples, resampled_rows
from onestep.platform.evaluation.benchmark import GAUSSIAN, TRAINING_DATA, Benchmark
from onestep.platform.evaluation.bootstrap import jackknife_interval, mean_interval
from onestep.platform.evaluation.classifier import ClassifierRecipe
from onestep.platform.evaluation.evaluate import evaluate_on
from onestep.platform.evaluation.features import ClassifierAltered, feature_space
from onestep.platform.evaluation.modes import Modes
from onestep.platform.evaluation.population import Population, Reference
from onestep.platform.evaluation.report import Report
from onestep.platform.evaluation.sampling import SamplesNotFinite, draw_samples, samplers_at
from onestep.platform.evaluation.score import score_together
from onestep.platform.evaluation.table import rows
from onestep.platform.threads import threads
from onestep.tests.platform.evaluation.contract import MIXTURE
from onestep.tests.platform.evaluation.contract import draw as drawn

ACCURACY_BAR = 0.62
"""The bar of a one-step model of the digits."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def digits(home: Path) -> Benchmark:
    return Benchmark.prepare(Digits().load(), home=home)


@pytest.fixture(scope="module")
def modes(home: Path) -> Benchmark:
    source = EightGaussians(samples=4000, held_out=800)
    return Benchmark.prepare(source.load(), home=home, samples=400, draws=4)


@pytest.fixture(scope="module")
def report(modes: Benchmark) -> Report:
    oracle = GaussianMap(mean=[0.0, 0.0], std=[1.0, 1.0])
    return evaluate_on(modes, oracle, model="oracle", nfes=(1, 4), ema="half_life_50000")


def test_the_classifier_of_the_digits_knows_them(digits: Benchmark) -> None:
    assert digits.space.accuracy is not None
    assert digits.space.accuracy >= 0.98


def test_a_gaussian_for_each_class_fails_the_bar_of_the_digits(digits: Benchmark) -> None:
    assert ACCURACY_BAR < 0.64 < digits.baselines[GAUSSIAN]["eval/1nn_accuracy"] < 0.72
    assert 0.19 < digits.baselines[GAUSSIAN]["eval/1nn_deviation"] < 0.22


def test_real_digits_pass_the_bar_of_the_digits(digits: Benchmark) -> None:
    assert 0.47 < digits.floors["eval/1nn_accuracy"] < 0.54
    assert digits.floors["eval/1nn_deviation"] < 0.05


def test_a_gaussian_for_each_class_passes_for_its_classes_all_the_same(digits: Benchmark) -> None:
    assert digits.baselines[GAUSSIAN]["eval/class_agreement"] > 0.97


def test_resampled_training_data_is_memorised_and_fresh_data_is_not(digits: Benchmark) -> None:
    assert digits.baselines[TRAINING_DATA]["eval/memorisation_ratio"] == 0.0
    assert 0.9 < digits.floors["eval/memorisation_ratio"] < 1.1


def test_gaussian_digits_are_farther_from_the_data_than_fresh_data(digits: Benchmark) -> None:
    gaussian = digits.baselines[GAUSSIAN]
    for name in ("eval/sliced_w2", "eval/w2", "eval/energy_distance", "eval/frechet_features"):
        assert gaussian[name] > digits.floors[name], name
    for name in ("eval/precision", "eval/density", "eval/coverage"):
        assert gaussian[name] < digits.floors[name], name


def test_one_gaussian_over_all_modes_fails_their_bars(modes: Benchmark) -> None:
    gaussian = modes.baselines[GAUSSIAN]
    assert gaussian["eval/mode_std_ratio_max"] > 1.35
    assert gaussian["eval/outside_modes"] > 0.06
    assert modes.floors["eval/outside_modes"] < 0.003


def test_numbers_that_are_asked_for_are_those_of_the_whole_report(
    modes: Benchmark, report: Report
) -> None:
    oracle = GaussianMap(mean=[0.0, 0.0], std=[1.0, 1.0])
    asked = {"eval/w2", "eval/recall", "eval/mode_mass_tv", "eval/semigroup_error"}
    found = evaluate_on(
        modes, oracle, model="oracle", nfes=(1, 4), ema="half_life_50000", names=asked
    )
    together = {"eval/precision", *Modes().names}
    wanted = [one for one in report.measurements if one.name in asked | together]
    assert list(found.measurements) == wanted
    assert asked < {one.name for one in wanted}
    assert found.provenance == report.provenance


def test_a_part_of_sorted_images_is_matched_and_counted_as_what_it_is(home: Path) -> None:
    """Dark images come before bright ones, as the classes of a folder do."""
    rng = torch.Generator().manual_seed(0)
    levels = torch.randint(100, (2400, 1, 2, 2), generator=rng, dtype=torch.uint8)
    levels[1000:] += 150
    examples = Examples(x=levels[::2])
    dataset = Dataset(
        name="sorted",
        shape=(1, 2, 2),
        classes=0,
        label_names=(),
        train=Examples(x=levels[1::2]),
        held_out=examples,
        digest="0" * 64,
    )
    benchmark = Benchmark.prepare(dataset, home=home, samples=1200, draws=1)
    x = benchmark.reference.held_out.x.reshape(1200, 1, 2, 2)
    exact = benchmark.judge(x)["eval/w2"]
    assert (exact.value, exact.count) == (0.0, 1000)
    # The last 200 images lie beyond the part that comes first.
    moved = torch.cat([x[:1000], x[1000:] - 2.0])
    assert benchmark.judge(moved)["eval/w2"].value > 0.5
    assert benchmark.judge(moved)["eval/sliced_w2"].count == 1200


@pytest.mark.parametrize(
    ("latents", "w2"), [(None, 0.5036), (LatentSpace(shift=(0.0,), scale=(1.0,)), 0.6358)]
)
def test_a_gaussian_of_images_is_clipped_as_samples_are_and_one_of_latents_is_not(
    latents: LatentSpace | None, w2: float, home: Path
) -> None:
    """A pixel is -1 or 1. With z ~ N(0, 1): E (1 - min(|z|, 1))^2 = w2^2, or E (1 - |z|)^2."""
    pixels = Examples(x=(255 * (torch.arange(500) % 2)).to(torch.uint8).reshape(-1, 1, 1, 1))
    dataset = Dataset(
        name="coins",
        shape=(1, 1, 1),
        classes=0,
        label_names=(),
        train=pixels,
        held_out=pixels,
        digest="0" * 64,
        latents=latents,
    )
    benchmark = Benchmark.prepare(dataset, home=home, samples=500, draws=2)
    # Over 1000 samples the square has a standard error below sqrt(.26 / 1000), the root less.
    assert abs(benchmark.baselines[GAUSSIAN]["eval/w2"] - w2) < 4 * 0.0162


def test_one_gaussian_over_the_checkerboard_is_half_in_forbidden_squares(home: Path) -> None:
    source = Checkerboard(samples=2000, held_out=800)
    board = Benchmark.prepare(source.load(), home=home, samples=200, draws=2)
    assert board.baselines[GAUSSIAN]["eval/forbidden_share"] > 0.4
    assert board.floors["eval/forbidden_share"] == 0.0
    assert board.baselines[GAUSSIAN]["eval/w2"] > board.floors["eval/w2"]


def test_the_oracle_is_as_bad_as_the_gaussian_that_it_is(report: Report) -> None:
    found = report.find("eval/1nn_accuracy", nfe=1)
    assert abs(found.value - found.baselines[GAUSSIAN]) < 0.05
    assert found.floor is not None
    assert found.value > found.floor + 0.2


def test_jumps_of_an_exact_map_agree_at_all_numbers_of_evaluations(report: Report) -> None:
    one, four = (report.find("eval/sliced_w2", nfe=nfe).value for nfe in (1, 4))
    assert one == pytest.approx(four, abs=1e-5)


def test_every_number_travels_with_its_provenance(modes: Benchmark, report: Report) -> None:
    p = report.provenance
    assert (p.model, p.data, p.data_digest) == ("oracle", "eight_gaussians", modes.dataset.digest)
    assert (p.features, p.count, p.draws, p.ema) == ("coordinates", 400, 4, "half_life_50000")
    assert (p.classes, p.gaussian) == (modes.dataset.classes, "Gaussian")
    sampled = [m for m in report.measurements if m.nfe is not None]
    assert {m.sampler.split("(")[0] for m in sampled} == {"Jumps"}
    for m in sampled:
        assert m.floor is not None
        assert set(m.baselines) == {GAUSSIAN, TRAINING_DATA}
        assert m.interval[0] <= m.value <= m.interval[1]


def test_properties_of_the_map_stand_beside_its_curve(report: Report) -> None:
    assert report.find("eval/semigroup_error").value < 1e-6
    assert report.find("eval/straightness").value == pytest.approx(0.43, rel=0.2)


def test_an_exact_map_is_the_floor_of_what_composes_but_not_of_what_is_straight(
    report: Report,
) -> None:
    """The exact flow of independent pairs is curved."""
    assert report.find("eval/semigroup_error").floor == 0.0
    assert report.find("eval/straightness").floor is None
    floors = {row.metric: row.floor for row in rows([report])}
    assert floors["eval/semigroup_error"] == 0.0


def test_a_report_survives_json(report: Report) -> None:
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"provenance": {}, "measurements": []}'])
def test_text_that_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no evaluation report"):
        Report.from_json(text)


def test_flat_metrics_name_their_evaluations(report: Report) -> None:
    flat = report.metrics()
    assert flat["eval/w2/nfe_4"] == report.find("eval/w2", nfe=4).value
    assert "eval/straightness" in flat


def test_a_metric_that_a_report_lacks_is_refused(report: Report) -> None:
    with pytest.raises(ValueError, match="has no eval/fid at 1"):
        report.find("eval/fid", nfe=1)


def test_equal_seeds_give_equal_reports(modes: Benchmark, report: Report) -> None:
    oracle = GaussianMap(mean=[0.0, 0.0], std=[1.0, 1.0])
    again = evaluate_on(modes, oracle, model="oracle", nfes=(1, 4), ema="half_life_50000")
    assert again == report


def test_each_domain_gets_the_sampler_that_it_allows() -> None:
    def names(domain: Domain) -> list[tuple[int, str]]:
        return [(nfe, type(s).__name__) for nfe, s in samplers_at(domain, (1, 2, 8))]

    assert names(Domain()) == [(n, "Jumps") for n in (1, 2, 8)]
    assert names(Domain(kind=DomainKind.FROM_NOISE)) == [(1, "Jumps")]
    assert names(Domain(kind=DomainKind.DIAGONAL)) == [(1, "Euler"), (2, "Euler"), (8, "Heun")]
    velocity = Domain(kind=DomainKind.DIAGONAL)
    assert all(s.evaluations(velocity) == nfe for nfe, s in samplers_at(velocity, (1, 8)))


@pytest.mark.parametrize("nfes", [(), (0,), (2, -1)])
def test_numbers_of_evaluations_out_of_range_are_refused(nfes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        samplers_at(Domain(), nfes)


def test_a_generator_without_steps_is_refused_at_more_than_one() -> None:
    with pytest.raises(ValueError, match="must be of 1 up to 16, got 2, 4"):
        samplers_at(Domain(kind=DomainKind.FROM_NOISE), (2, 4))


class Labelled(FlowMap):
    """Jumps to the number of its label, or to infinity where asked to."""

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        del s, t
        assert condition is not None
        assert condition.label is not None
        return condition.label.to(x.dtype)[:, None] - x


def test_samples_are_asked_for_with_their_labels() -> None:
    labels = torch.arange(1200) % 7
    sampler = samplers_at(Domain(), (1,))[0][1]
    told = Condition(label=labels)
    x = draw_samples(Labelled(domain=Domain()), sampler, n=1200, shape=(2,), seed=0, condition=told)
    assert torch.allclose(x, labels[:, None].float().expand(-1, 2), atol=1e-5)


def test_samples_that_are_not_finite_are_refused() -> None:
    oracle = GaussianMap(mean=[float("inf"), 0.0], std=[1.0, 1.0])
    sampler = samplers_at(Domain(), (1,))[0][1]
    with pytest.raises(SamplesNotFinite, match="8 of 8 samples"):
        draw_samples(oracle, sampler, n=8, shape=(2,), seed=0)


def test_a_velocity_is_measured_under_its_solver(modes: Benchmark) -> None:
    euler = Velocity(GaussianMap(mean=[0.0, 0.0], std=[1.0, 1.0]))
    report = evaluate_on(modes, euler, nfes=(1,))
    # One Euler step from any noise ends in the mean of the data.
    assert report.find("eval/1nn_accuracy", nfe=1).value > 0.95
    assert "eval/semigroup_error" not in report.metrics()


def test_the_wrong_number_of_samples_is_refused(modes: Benchmark) -> None:
    with pytest.raises(ValueError, match="4 draws of 400 samples are needed, got 3"):
        modes.judge(torch.zeros(3, 2))


def test_a_gaussian_baseline_has_the_moments_of_its_class() -> None:
    rng = torch.Generator().manual_seed(0)
    label = torch.arange(600) % 2
    x = torch.randn(600, 2, generator=rng) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]])
    x[label == 1] += 10.0
    asked = torch.ones(20_000, dtype=torch.long)
    drawn = gaussian_samples(x, label, n=20_000, labels=asked, rng=rng)
    data = x[label == 1]
    # Standard errors: std / sqrt(20000) = .007 of the mean, about 1 % of the variances.
    assert torch.allclose(drawn.mean(0), data.mean(0), atol=4 * 0.008)
    assert torch.allclose(drawn.T.cov(), data.T.cov(), atol=4 * 0.013)


def test_rows_have_the_classes_that_are_asked_for() -> None:
    rng = torch.Generator().manual_seed(0)
    train = torch.arange(100) % 5
    asked = torch.arange(40) % 4
    for draw in (resampled_rows, distinct_rows):
        assert torch.equal(train[draw(100, train, n=40, labels=asked, rng=rng)], asked)
    rows = distinct_rows(100, train, n=40, labels=asked, rng=rng)
    assert len(rows.unique()) == 40
    with pytest.raises(ValueError, match="none of class 9"):
        resampled_rows(100, train, n=1, labels=torch.tensor([9]), rng=rng)


def coverage(values: Float[Tensor, "n draws"]) -> float:
    """Share of rows whose interval holds the mean 0."""
    intervals = [mean_interval(row, seed=0) for row in values]
    return sum(low <= 0.0 <= high for low, high in intervals) / len(intervals)


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    """2000 times 8 draws, the default: 4 standard errors are 0.02."""
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(2000, 8, generator=rng, dtype=torch.float64)
    assert 0.93 <= coverage(values) <= 0.97


def test_intervals_of_very_few_values_are_at_most_their_range() -> None:
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(2000, 3, generator=rng, dtype=torch.float64)
    low, high = mean_interval(values[0], seed=0)
    assert (low, high) == pytest.approx((values[0].min().item(), values[0].max().item()))
    # The mean is covered by the chance 1 - 2^-2.
    assert coverage(values) == pytest.approx(0.75, abs=4.0 * (0.75 * 0.25 / 2000) ** 0.5)


def test_the_jackknife_of_a_mean_is_the_interval_of_student() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    without = (values.sum() - values) / 3
    low, high = jackknife_interval(4.0, without)
    assert (high + low) / 2 == pytest.approx(4.0)
    # 3.182446 is the quantile 0.975 with 3 degrees of freedom.
    assert (high - low) / 2 == pytest.approx(3.182446 * values.std().item() / 2)


def test_the_jackknife_covers_the_mean_as_often_as_it_says() -> None:
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(2000, 8, generator=rng, dtype=torch.float64)
    hits = 0
    for row in values:
        low, high = jackknife_interval(row.mean().item(), (row.sum() - row) / 7)
        hits += low <= 0.0 <= high
    assert 0.93 <= hits / 2000 <= 0.97


def test_the_interval_of_a_share_is_one_of_shares() -> None:
    """Three draws far from every mode and one with a point in a mode, so that Student reaches 1."""
    draws = [drawn(seed, shift=100.0) for seed in range(4)]
    draws[3] = Population.of(torch.cat([draws[3].x[1:], MIXTURE.means[:1]]))
    reference = Reference(held_out=drawn(4), train=drawn(5), mixture=MIXTURE)
    outside = score_together([Modes()], draws, reference)["eval/outside_modes"]
    assert 0.0 <= outside.interval[0] < outside.value < outside.interval[1] == 1.0


SMALL = ClassifierRecipe(width=4, features=8, samples=256)


def test_a_classifier_is_trained_once_and_named_by_its_file(tmp_path: Path) -> None:
    dataset = Digits().load()
    first = feature_space(dataset, home=tmp_path, recipe=SMALL)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "classifiers").iterdir()}
    again = feature_space(dataset, home=tmp_path, recipe=SMALL)
    assert again.name == first.name
    assert {path: path.stat().st_mtime_ns for path in files} == files
    weights = next(path for path in files if path.suffix == ".safetensors")
    assert first.name == f"sha256:{weights.stem}"
    other = feature_space(dataset, home=tmp_path, recipe=replace(SMALL, seed=1))
    assert other.name != first.name


def test_a_classifier_does_not_depend_on_the_threads_of_the_process(tmp_path: Path) -> None:
    names = []
    for count in (1, 2):
        with threads(count):
            space = feature_space(Digits().load(), home=tmp_path / str(count), recipe=SMALL)
            assert torch.get_num_threads() == count
            names.append(space.name)
    assert names[0] == names[1]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_an_altered_classifier_is_refused(tmp_path: Path, suffix: str) -> None:
    dataset = Digits().load()
    feature_space(dataset, home=tmp_path, recipe=SMALL)
    victim = next(p for p in (tmp_path / "classifiers").iterdir() if p.suffix == suffix)
    victim.write_bytes(victim.read_bytes()[:-7])
    with pytest.raises(ClassifierAltered, match="to train again"):
        feature_space(dataset, home=tmp_path, recipe=SMALL)


def test_sets_without_labelled_images_are_seen_in_their_coordinates(tmp_path: Path) -> None:
    dataset = EightGaussians(samples=16, held_out=16).load()
    assert feature_space(dataset, home=tmp_path).name == "coordinates"
    assert not list(tmp_path.iterdir())
