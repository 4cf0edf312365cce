"""From one bundle to the next while searches go on: two indexes, a gate, a switch, a way back."""
