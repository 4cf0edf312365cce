"""From bytes to vectors: decode, preprocess, detect, suppress, embed."""
