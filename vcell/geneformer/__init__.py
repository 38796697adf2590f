"""Geneformer: vocabularies, rank value encoding, checkpoints.

``vocabulary``  tokens of genes, and lookup of gene names
``tokens``      ranked tokens of the cells of a file, chunk by chunk
``checkpoint``  a folder with weights, or random weights of a real shape, as a `vcell.nn.bert.Bert`

The tables in this folder are Geneformer's dictionaries; see NOTICE.md.
"""
