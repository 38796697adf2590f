"""Pipelines: stages that run once, recognised by digests."""
