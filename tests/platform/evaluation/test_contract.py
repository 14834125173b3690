"""Every metric against the contract."""

from typing import ClassVar

import pytest

from onestep.platform.evaluation.agreement import ClassAgreement
from onestep.platform.evaluation.frechet import FrechetFeatures
from onestep.platform.evaluation.kernel import EnergyDistance, SquaredMmd
from onestep.platform.evaluation.manifold import DensityCoverage, PrecisionRecall
from onestep.platform.evaluation.memorisation import Memorisation
from onestep.platform.evaluation.metric import AbstractMetric
from onestep.platform.evaluation.modes import Modes
from onestep.platform.evaluation.neighbour import OneNearestNeighbour
from onestep.platform.evaluation.transport import SlicedWasserstein2, Wasserstein2
from onestep.tests.platform.evaluation.contract import MetricContract


class TestWasserstein2(MetricContract):
    at_the_floor: ClassVar = {"eval/w2": (0.2, 1.5)}
    worsens: ClassVar = {"eval/w2": 1}

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return Wasserstein2()


class TestSlicedWasserstein2(MetricContract):
    at_the_floor: ClassVar = {"eval/sliced_w2": (0.05, 0.9)}
    worsens: ClassVar = {"eval/sliced_w2": 1}

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return SlicedWasserstein2()


class TestEnergyDistance(MetricContract):
    at_the_floor: ClassVar = {"eval/energy_distance": (-0.04, 0.04)}
    worsens: ClassVar = {"eval/energy_distance": 1}

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return EnergyDistance()


class TestSquaredMmd(MetricContract):
    at_the_floor: ClassVar = {"eval/squared_mmd": (-0.005, 0.005)}
    worsens: ClassVar = {"eval/squared_mmd": 1}

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return SquaredMmd()


class TestPrecisionRecall(MetricContract):
    at_the_floor: ClassVar = {"eval/precision": (0.93, 1.0), "eval/recall": (0.93, 1.0)}
    worsens: ClassVar = {"eval/precision": -1, "eval/recall": -1}

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return PrecisionRecall()


class TestDensityCoverage(MetricContract):
    at_the_floor: ClassVar = {"eval/density": (0.9, 1.1), "eval/coverage": (0.92, 1.0)}
    worsens: ClassVar = {"eval/density": -1, "eval/coverage": -1}

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return DensityCoverage()


class TestFrechetFeatures(MetricContract):
    at_the_floor: ClassVar = {"eval/frechet_features": (0.0, 0.3)}
    worsens: ClassVar = {"eval/frechet_features": 1}

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return FrechetFeatures()


class TestOneNearestNeighbour(MetricContract):
    at_the_floor: ClassVar = {
        "eval/1nn_accuracy": (0.46, 0.54),
        "eval/1nn_deviation": (0.0, 0.05),
        "eval/1nn_samples": (0.44, 0.56),
        "eval/1nn_data": (0.44, 0.56),
    }
    worsens: ClassVar = dict.fromkeys(at_the_floor, 1)

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return OneNearestNeighbour()


class TestMemorisation(MetricContract):
    at_the_floor: ClassVar = {
        "eval/memorisation_ratio": (0.85, 1.2),
        "eval/memorisation_rank": (0.45, 0.55),
    }
    # Points far from all data are far from training data too.
    worsens: ClassVar = {"eval/memorisation_ratio": 1, "eval/memorisation_rank": -1}

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return Memorisation()


class TestModes(MetricContract):
    at_the_floor: ClassVar = {
        "eval/mode_mass_tv": (0.0, 0.07),
        "eval/mode_std_ratio_min": (0.9, 1.0),
        "eval/mode_std_ratio_max": (1.0, 1.1),
        "eval/outside_modes": (0.0, 0.004),
    }
    worsens: ClassVar = {"eval/outside_modes": 1}

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return Modes()


class TestClassAgreement(MetricContract):
    at_the_floor: ClassVar = {"eval/class_agreement": (0.99, 1.0)}
    worsens: ClassVar = {"eval/class_agreement": -1}

    @pytest.fixture
    def metric(self) -> AbstractMetric:
        return ClassAgreement()
