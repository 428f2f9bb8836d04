"""What can be measured on any method's model. A metric is a class in a file here and one line in the registry.

A metric is a frozen dataclass of its options with one function, `measure(moment) -> Measured`, called at initialisation
(epoch 0), after every epoch, and once on the test split at the end. It draws from generators of its own, so that
measuring more or less never changes what is trained.
"""

from collections.abc import Iterable

from trainables.metrics.attacks import Attacks
from trainables.metrics.class_activation import ClassActivation
from trainables.metrics.deformation import DeformationSensitivity, FilterSmoothness
from trainables.metrics.landscape import Landscape
from trainables.metrics.locality import Locality
from trainables.metrics.mask_overlap import MaskOverlap
from trainables.metrics.moment import Measured, Metric, Moment
from trainables.metrics.parameters import Parameters
from trainables.metrics.paths import PathCounts
from trainables.metrics.receptive_field import ReceptiveField
from trainables.metrics.saliency import Entropy, Faithfulness, LocalLipschitz, MaxSensitivity, SaliencyMaps
from trainables.metrics.shift import Shift

METRICS: dict[str, type[Metric]] = {
    "landscape": Landscape,
    "paths": PathCounts,
    "locality": Locality,
    "faithfulness": Faithfulness,
    "local_lipschitz": LocalLipschitz,
    "max_sensitivity": MaxSensitivity,
    "entropy": Entropy,
    "saliency_maps": SaliencyMaps,
    "attacks": Attacks,
    "erf": ReceptiveField,
    "cam": ClassActivation,
    "iou": MaskOverlap,
    "shift": Shift,
    "parameters": Parameters,
    "deformation_sensitivity": DeformationSensitivity,
    "filter_smoothness": FilterSmoothness,
}


def needs_masks(names: Iterable[str]) -> bool:
    """Whether one of these metrics needs masks of the test images."""
    return any(getattr(METRICS[name], "needs_masks", False) for name in names)


__all__ = ["METRICS", "Measured", "Metric", "Moment", "needs_masks"]
