"""The networks, `transformer` and `shared-encoder`, and what trains them."""
