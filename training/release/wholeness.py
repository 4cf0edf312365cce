"""Is a bundle whole: does it load, do its models match their cards, does every part belong to the others?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from magpie.errors import FailedPrecondition, MagpieError
from magpie.index.hash_model import HashModel
from magpie.ranking import bundled_configs
from magpie.ranking.calibration import HIT_SPACE, Calibration
from magpie.ranking.hubness import Hubness
from magpie.vision.bundle import Bundle
from training.release.goldens import detector_faults, embedder_faults


def whole_bundle(folder: Path) -> Bundle:
    """The bundle, all of it checked. Raises FailedPrecondition with everything that is wrong."""
    bundle = Bundle.load(folder)
    checks: list[Callable[[Bundle], list[str]]] = [
        lambda b: detector_faults(b.detector_card, b.folder),
        lambda b: embedder_faults(b.embedder_card, b.folder),
        _hash_faults,
        _calibration_faults,
        _hubness_faults,
        _customer_faults,
    ]
    faults = []
    for check in checks:
        try:
            faults += check(bundle)
        except MagpieError as error:
            faults.append(str(error))
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise FailedPrecondition(f"bundle {folder} is not whole:\n{lines}")
    return bundle


def customers_of(folder: Path) -> list[str]:
    """The customers whose ranking config lies in a bundle."""
    return sorted(
        path.parent.name for path in folder.glob(f"{bundled_configs.FOLDER}/*/{bundled_configs.FILE}")
    )


def _hash_faults(bundle: Bundle) -> list[str]:
    if bundle.hash is None:
        return []
    model = HashModel.load(bundle.folder, bundle.hash, bundle.embedder_card.sha256)
    spaces = bundle.embedder_card.spaces
    return [
        f"{bundle.hash}: encodes {coder.card.dimension} dimensions of space {space}, the embedder gives "
        f"{spaces.get(space, 'none')}"
        for space, coder in model.coders.items()
        if spaces.get(space) != coder.card.dimension
    ]


def _calibration_faults(bundle: Bundle) -> list[str]:
    if bundle.calibration is None:
        return []
    calibration = Calibration.load(bundle.folder, bundle.calibration, bundle.embedder_card.sha256)
    unknown = set(calibration.spaces) - set(bundle.embedder_card.spaces)
    return [f"{bundle.calibration}: the embedder has no space {space}" for space in sorted(unknown)]


def _hubness_faults(bundle: Bundle) -> list[str]:
    if bundle.hubness is None:
        return []
    hubness = Hubness.load(bundle.folder, bundle.hubness, bundle.embedder_card.sha256)
    given, needed = hubness.references.shape[1], bundle.embedder_card.spaces.get(HIT_SPACE)
    if given == needed:
        return []
    return [f"{bundle.hubness}: references of {given} dimensions, {HIT_SPACE} has {needed or 'none'}"]


def _customer_faults(bundle: Bundle) -> list[str]:
    faults = []
    for customer in customers_of(bundle.folder):
        try:
            path = bundled_configs.path_of(bundle.folder, customer)
            calibrated = bundle.calibration is not None
            bundled_configs.read(path, bundle.embedder_card.spaces, calibrated=calibrated)
        except MagpieError as error:
            faults.append(str(error))
    return faults
