"""Geneformer: vocabularies, rank value encoding, checkpoints.

``vocabulary``  which gene has which token, and how names of genes lead to tokens
``tokens``      cells of a file as ranked tokens, chunk by chunk
``checkpoint``  a folder with weights, or random weights of a real shape, as a `vcell.nn.bert.Bert`

The tables beside this file are Geneformer's own dictionaries; see NOTICE.md.
"""
