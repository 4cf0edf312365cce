"""Training on another machine: the container's entry point, and the commands that send runs to AWS Batch."""
