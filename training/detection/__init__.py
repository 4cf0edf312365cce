"""The product detector: anchors, matching, losses, the teacher, its data and its measure."""
