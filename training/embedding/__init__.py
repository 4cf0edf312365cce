"""Training the embedder: its batches, its losses, its command."""
