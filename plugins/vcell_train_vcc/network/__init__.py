"""The networks `transformer` and `shared-encoder`, and their training."""
