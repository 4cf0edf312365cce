"""What a catalogue has more than once: the joining of what `DuplicateService` tells page by page."""
