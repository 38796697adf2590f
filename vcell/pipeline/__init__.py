"""Pipelines: stages that run once, and what is known of each by digest."""
