"""A prediction scored against real cells, from files or AnnData: what `vcell evaluate` reports.

- `score`: one call, one result; `contexts`: the same, context by context, before averaging.
- `pairs`, `view`: the two sides aligned by name, their values detected and logged.
- `rules2025`, `full`, `rules2026`: the scores of one context; `cache`: stored anchors.
"""
