"""Feature spaces: a trained classifier kept on disk, or the coordinates themselves."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..atomic import encode_safetensors, sha256, write_bytes, write_json
from ..data.source import Dataset
from .classifier import Classifier, ClassifierRecipe, accuracy, train_classifier
from .population import Population

COORDINATES: Final = "coordinates"
"""Name of the feature space of sets without a classifier: the flattened data."""


@final
class ClassifierAltered(ValueError):
    """A kept classifier is not what was written; the message names the file."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureSpace:
    """Where feature metrics look, and the name that their numbers carry.

    Attributes:
        name: ``sha256:`` and the digest of the classifier's file, or ``coordinates``.
        classifier: The classifier, or None.
        accuracy: Share of held-out examples that it classifies well, or None.
    """

    name: str
    classifier: Classifier | None = None
    accuracy: float | None = None

    def populate(
        self,
        x: Float[Tensor, " n *d"],
        *,
        label: Int[Tensor, " n"] | None = None,
        rows: Int[Tensor, " n"] | None = None,
    ) -> Population:
        """Points with their features and predicted classes.

        Args:
            x: Images in [-1, 1], or coordinates.
            label: Class that was asked for, or that the data has.
            rows: Numbers of the training examples that the points are, or None.
        """
        flat = x.flatten(1)
        if self.classifier is None:
            return Population(x=flat, features=flat, label=label, rows=rows)
        features, predicted = self.classifier.read(x)
        return Population(x=flat, features=features, label=label, predicted=predicted, rows=rows)


def has_classifier(dataset: Dataset) -> bool:
    """Whether a set consists of labelled images.

    Args:
        dataset: The set.
    """
    return dataset.classes > 1 and len(dataset.shape) == 3


def feature_space(
    dataset: Dataset, *, home: Path, recipe: ClassifierRecipe | None = None
) -> FeatureSpace:
    """The feature space of a set, trained on its training split at the first call.

    Weights are kept under the digest of their own file, and a small JSON file says which weights
    answer which recipe on which data. Two processes that train at once cannot mix their files.

    Args:
        dataset: The set.
        home: Folder of the platform; the classifier lies in its ``classifiers`` folder.
        recipe: How the classifier is trained, by default ``ClassifierRecipe()``.

    Raises:
        ClassifierAltered: If a kept classifier does not match its checksum.
    """
    if not has_classifier(dataset):
        return FeatureSpace(name=COORDINATES)
    recipe = ClassifierRecipe() if recipe is None else recipe
    folder = home / "classifiers"
    card = folder / f"{recipe.digest(dataset)}.json"
    if not card.exists():
        _train(dataset, recipe, card)
    return _load(dataset, recipe, card)


def _train(dataset: Dataset, recipe: ClassifierRecipe, card: Path) -> None:
    net = train_classifier(dataset, recipe)
    payload = encode_safetensors(net.state_dict())
    weights = sha256(payload)
    write_bytes(card.parent / f"{weights}.safetensors", payload)
    write_json(
        card,
        {
            "weights": weights,
            "data": dataset.digest,
            "data_name": dataset.name,
            "recipe": asdict(recipe),
            "held_out_accuracy": accuracy(net, dataset.held_out),
            "torch": str(torch.__version__),
        },
    )


def _load(dataset: Dataset, recipe: ClassifierRecipe, card: Path) -> FeatureSpace:
    try:
        said = json.loads(card.read_text())
        weights, share = str(said["weights"]), float(said["held_out_accuracy"])
        payload = (card.parent / f"{weights}.safetensors").read_bytes()
    except (OSError, ValueError, KeyError) as error:
        raise ClassifierAltered(
            f"the classifier of {card} cannot be read ({error}); delete that file to train again"
        ) from error
    if sha256(payload) != weights:
        raise ClassifierAltered(
            f"{weights}.safetensors in {card.parent} does not match its checksum; "
            f"delete {card} to train again"
        )
    net = Classifier.of(dataset, recipe)
    net.load_state_dict(safetensors.torch.load(payload))
    return FeatureSpace(
        name=f"sha256:{weights}",
        classifier=net.eval().requires_grad_(False),
        accuracy=share,
    )
