"""From an upload to the index: its events, those that were parked, those that were lost."""
