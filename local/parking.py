"""The parked events of a local system."""

from __future__ import annotations

from local import resources
from local.home import PREFIX, Home
from local.system import System
from magpie.ingest.parking import Parking


def parking(home: Home) -> Parking:
    """Raises FailedPrecondition if no system runs."""
    return Parking(resources.client("sqs", System(home).running().aws_url), PREFIX)
