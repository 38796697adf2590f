"""Gene graphs: read from edge lists, stored, walked, rewired and simulated.

>>> graphs = read([Path("string91_fusion.tsv.gz"), Path("BIOGRID.tab3.txt")], genes=my_genes)
>>> graphs.genes, graphs.names  # N genes, one name per relation
>>> relation = graphs["string91_fusion"]  # or graphs.relations[0], or for relation in graphs
>>> relation.indptr, relation.indices, relation.weights  # CSR: row t lists the sources of gene t
>>> relation.both()  # every edge in both directions, once each; normalise rows of this
>>> relation.degree("both"), graphs.degree()  # (N,) neighbours in one relation, in all
>>> graphs.rewired(seed)  # the same degrees, random edges: a control for any claim
>>> graphs.save(Path("yeast.graphs")), GeneGraphs.open(Path("yeast.graphs"))  # mapped, no pickle
>>> graphs.onto(other_genes)  # the same edges over other genes, matched by all their names
>>> graphs.isolated()  # genes without edges
>>> for line in graphs.notes: console.say(line)  # what was detected, counted and left out
>>> graphs.counts["string91_fusion"].self_loops  # the same, as numbers

Gene sets with one value each, and the neighbourhoods of sets:

>>> table = read_gene_sets(Path("kuzmin.tsv"))  # genes, members (T, S), values, query strains
>>> members, missing = table.places(graphs.genes)  # -1 for genes without a place, and their names
>>> near = Neighbourhoods(graphs, Rules(hops=2, direction="in", over="relation"))
>>> masks = near.masks(members)  # (T, N / 64) bits
>>> near.pairs(masks[0]), near.csr(masks[0])  # genes and renumbered edges, relation by relation

Graphs of the size of a yeast's nine come from `vcell.graph.synthetic.yeast_like`.

`read` takes text and gzip: STRING links (one relation per channel if there are several), BioGRID
tab, SGD interactions, GEARS csv, numbered genes (``i j weight``, with `genes`), any table with two
columns of genes. A folder from `save` is read the same way. Edges are kept as stored: an undirected
pair that a file names once is stored once, and `both` makes two edges of it.
"""

from vcell.graph.build import read
from vcell.graph.edges import EdgeList, read_edges
from vcell.graph.gene_graphs import GeneGraphs, RelationCounts
from vcell.graph.gene_sets import GeneSetTable, read_gene_sets
from vcell.graph.khop import Neighbourhoods, Rules, SubGraph, k_hop_subgraph
from vcell.graph.relation import Direction, Relation

__all__ = [
    "Direction",
    "EdgeList",
    "GeneGraphs",
    "GeneSetTable",
    "Neighbourhoods",
    "Relation",
    "RelationCounts",
    "Rules",
    "SubGraph",
    "k_hop_subgraph",
    "read",
    "read_edges",
    "read_gene_sets",
]
