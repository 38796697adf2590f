"""Every back end computes what the formula says, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.nn.conftest import formula
from vcell.errors import UserError
from vcell.nn import attention, blocked
from vcell.nn.attention import attend, choose
from vcell.nn.patterns import Graph, Pattern, everybody, pattern_for

SAME = ("sdpa", "chunked")  # the same numbers by different ways
ALL = (*SAME, "sparse", "local", "linear")
LENGTHS = (1, 2, 3, 17, 129, 300)


def random_graph(n_nodes: int, degree: float = 4) -> Graph:
    rng = np.random.default_rng(n_nodes)
    return Graph.from_edges(n_nodes, rng.integers(0, max(n_nodes, 1), (int(n_nodes * degree), 2)))


def pattern_of(name: str, n_tokens: int) -> Pattern | None:
    if name == "sparse":
        return pattern_for(n_tokens, 2, graph=random_graph(max(n_tokens - 2, 0)), window=0)
    return pattern_for(n_tokens, 2, graph=None, window=3) if name == "local" else None


def inputs(
    n_tokens: int, dtype: torch.dtype = torch.float64, *, batch: int = 2, head_dim: int = 5
) -> list[Tensor]:
    """Queries, keys and values as the encoder cuts them out of one projection: not contiguous."""
    qkv = torch.randn(batch, n_tokens, 3, 3, head_dim, dtype=torch.float64).to(dtype)
    return [x.transpose(1, 2).requires_grad_() for x in qkv.unbind(2)]


def slopes(out: Tensor, weight: Tensor, wrt: list[Tensor]) -> list[Tensor]:
    return [g.double() for g in torch.autograd.grad((out.double() * weight).sum(), wrt)]


def check(name: str, qkv: list[Tensor], valid: Tensor | None, tolerance: float) -> None:
    pattern = pattern_of(name, qkv[0].shape[2])
    out = attend(*qkv, name=name, valid=valid, pattern=pattern)
    exact = formula(name, *qkv, valid, pattern)
    assert out.dtype == qkv[0].dtype
    assert out.isfinite().all()
    matters = torch.ones(1) if valid is None else valid[:, None, :, None]
    weight = torch.randn(exact.shape, dtype=torch.float64) * matters
    assert ((out - exact) * matters).abs().max() <= tolerance
    for got, want in zip(slopes(out, weight, qkv), slopes(exact, weight, qkv), strict=True):
        assert (got - want).abs().max() <= tolerance * max(1.0, float(want.abs().max()))


@pytest.mark.parametrize("n_tokens", LENGTHS)
@pytest.mark.parametrize("name", ALL)
def test_every_back_end_is_the_formula(name: str, n_tokens: int) -> None:
    check(name, inputs(n_tokens), None, 1e-12)


@pytest.mark.parametrize("name", ALL)
def test_nobody_attends_to_padding(name: str) -> None:
    """One sequence whole, one that ends early (blocks of keys are padding), one of nothing."""
    valid = torch.ones(3, 300, dtype=torch.bool)
    valid[1, 40:] = False
    valid[2] = False
    check(name, inputs(300, batch=3), valid, 1e-12)
    q, k, v = inputs(300, batch=3)
    before = attend(q, k, v, name=name, valid=valid, pattern=pattern_of(name, 300))
    with torch.no_grad():
        k[1, :, 40:], v[1, :, 40:] = 1e3, 1e3
    after = attend(q, k, v, name=name, valid=valid, pattern=pattern_of(name, 300))
    assert torch.equal(before[1, :, :40], after[1, :, :40])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)]
)
def test_lower_precision_is_close(name: str, dtype: torch.dtype, tolerance: float) -> None:
    check(name, inputs(140, dtype, head_dim=32), None, tolerance)


@pytest.mark.parametrize("scale", [30.0, 300.0])
@pytest.mark.parametrize("name", ["chunked", "sparse"])
def test_large_scores_do_not_overflow(name: str, scale: float) -> None:
    q, k, v = inputs(50)
    check(name, [(q * scale).detach().requires_grad_(), k, v], None, 1e-9)


def test_blocks_smaller_than_a_head_or_larger_than_all_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    qkv = inputs(300)
    valid = torch.rand(2, 300) > 0.2
    for budget in (1, 300 * 128 * 4 * 2, 1 << 40):
        monkeypatch.setitem(blocked._BUDGET, "cpu", budget)
        check("chunked", qkv, valid, 1e-12)
        check("sparse", qkv, valid, 1e-12)


def test_torch_knows_the_operator() -> None:
    """Shapes for the compiler, gradients, and no changed input."""
    p = pattern_for(9, 2, graph=random_graph(7), window=0)
    q, k, v = inputs(9)
    arguments = (q, k, v, torch.rand(2, 9) > 0.2, p.rows, p.keys, p.hits, p.starts)
    torch.library.opcheck(torch.ops.vcell.blocked_attention.default, arguments)
    assert torch.autograd.gradcheck(
        lambda *qkv: blocked.blocked_attention(*qkv, everybody(9)), (q, k, v)
    )


class TestPattern:
    """Blocks hold exactly the pairs of the graph, and global tokens."""

    @pytest.mark.parametrize("n_nodes", [0, 1, 2, 15, 16, 17, 200])
    def test_a_graphs_pairs_and_global_tokens(self, n_nodes: int) -> None:
        rng = np.random.default_rng(1)
        edges = rng.integers(0, max(n_nodes, 1), (3 * n_nodes, 2))
        pattern = pattern_for(n_nodes + 2, 2, graph=Graph.from_edges(n_nodes, edges), window=0)
        expected = torch.eye(n_nodes + 2, dtype=torch.bool)
        expected[:2], expected[:, :2] = True, True
        expected[2 + edges[:, 0], 2 + edges[:, 1]] = True
        expected[2 + edges[:, 1], 2 + edges[:, 0]] = True
        assert torch.equal(pattern.allowed(), expected)
        assert pattern.pairs == int(expected.sum()) <= pattern.scores
        some = torch.tensor([n_nodes + 1, 0])
        assert torch.equal(pattern.allowed(some), expected[some])

    def test_a_window(self) -> None:
        places = torch.arange(40)
        expected = (places[:, None] - places).abs() <= 5
        expected[:2], expected[:, :2] = True, True
        assert torch.equal(pattern_for(40, 2, graph=None, window=5).allowed(), expected)

    def test_fewer_tokens_take_the_first_nodes(self) -> None:
        graph = random_graph(50)
        whole = pattern_for(52, 2, graph=graph, window=0).allowed()
        assert torch.equal(pattern_for(30, 2, graph=graph, window=0).allowed(), whole[:30, :30])
        with pytest.raises(ValueError, match="51 genes, but the graph has only 50"):
            pattern_for(53, 2, graph=graph, window=0)

    def test_it_takes_memory_by_edges_and_computes_little_more(self) -> None:
        """Nodes of 40 clusters in random order, 8 partners each: 0.4 % of all pairs."""
        rng = np.random.default_rng(2)
        members = rng.permutation(4000).reshape(40, 100)
        nodes = np.repeat(members.ravel(), 8)
        edges = np.stack([nodes, rng.choice(members, (8 * 100), axis=1).ravel()], 1)
        graph = Graph.from_edges(4000, edges)
        pattern = pattern_for(4002, 2, graph=graph, window=0)
        held = sum(x.nbytes for x in (pattern.rows, pattern.keys, pattern.hits, pattern.starts))
        assert held < 16 * pattern.pairs
        assert pattern.scores < 0.05 * 4002**2

    def test_correlated_genes_become_partners(self) -> None:
        rng = np.random.default_rng(3)
        shared = rng.normal(size=(200, 10))
        values = np.repeat(shared, 3, axis=1) * np.tile([10, -10, 20], 10) + rng.normal(
            size=(200, 30)
        )
        values = np.concatenate([values, np.zeros((200, 1))], 1).astype(np.float32)
        graph = Graph.coexpressed(values, 2, block=7)
        for gene in range(30):
            mine = graph.indices[graph.indptr[gene] : graph.indptr[gene + 1]]
            assert mine.tolist() == list(range(gene // 3 * 3, gene // 3 * 3 + 3))
        assert graph.indices[graph.indptr[30] :].tolist() == [30]

    def test_wrong_edges(self) -> None:
        with pytest.raises(UserError, match=r"edge 1 joins \[2, 5\]; there are 5 genes"):
            Graph.from_edges(5, [(0, 1), (2, 5)])


class TestChoice:
    """What is taken, and the reason that is printed."""

    @pytest.mark.parametrize(
        ("device", "dtype", "n_tokens", "name", "reason"),
        [
            ("cpu", torch.float32, 5002, "sdpa", "fused CPU kernel"),
            ("cpu", torch.bfloat16, 502, "sdpa", "fused CPU kernel"),
            ("cuda", torch.float32, 5002, "sdpa", "memory-efficient"),
            ("cuda", torch.float64, 5002, "chunked", "slower, but fits"),
            ("cuda", torch.float64, 502, "sdpa", "only 502 tokens"),
        ],
    )
    def test_auto(
        self, device: str, dtype: torch.dtype, n_tokens: int, name: str, reason: str
    ) -> None:
        choice = choose("auto", device, dtype, n_tokens=n_tokens, head_dim=32)
        assert choice.name == name
        assert reason in str(choice)

    def test_flash_is_taken_where_it_runs_and_else_says_what_is_missing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def pick(wanted: str, dtype: torch.dtype = torch.bfloat16, head_dim: int = 32) -> str:
            return str(choose(wanted, "cuda", dtype, n_tokens=5002, head_dim=head_dim))

        monkeypatch.setattr(attention, "find_spec", lambda _: None)
        assert pick("auto").startswith("attention: sdpa (torch's flash kernel; flash-attn would")
        with pytest.raises(UserError, match=r"needs pip install 'vcell\[flash\]'"):
            pick("flash")
        monkeypatch.setattr(attention, "find_spec", lambda _: object())
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
        assert pick("auto").startswith("attention: flash (flash-attn is installed")
        assert pick("flash") == "attention: flash (as requested)"
        assert "sdpa" in pick("auto", head_dim=288)
        with pytest.raises(UserError, match="needs precision bf16 or fp16"):
            pick("flash", torch.float32)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
        with pytest.raises(UserError, match="needs an Ampere or later GPU"):
            pick("flash")

    def test_what_cannot_be(self) -> None:
        with pytest.raises(UserError, match="flash needs a CUDA device"):
            choose("flash", "cpu", torch.bfloat16, n_tokens=10, head_dim=32)
        with pytest.raises(UserError, match="no attention 'falsh'"):
            choose("falsh", "cpu", torch.bfloat16, n_tokens=10, head_dim=32)
        assert str(choose("linear", "cpu", torch.float32, n_tokens=9, head_dim=8)) == (
            "attention: linear (as requested)"
        )


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["flash", "sdpa", "chunked", "sparse", "local", "linear"])
def test_on_a_gpu(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    if name == "flash":
        pytest.importorskip("flash_attn")
    pattern = pattern_of(name, 300)
    valid = torch.rand(2, 300) > 0.2
    for there in (None, valid):
        qkv = [x.detach().cuda() for x in inputs(300, torch.bfloat16, head_dim=32)]
        out = attend(
            *qkv, name=name, valid=None if there is None else there.cuda(), pattern=pattern
        ).cpu()
        exact = formula(name, *(x.cpu() for x in qkv), there, pattern)
        matters = torch.ones(1) if there is None else there[:, None, :, None]
        assert ((out - exact) * matters).abs().max() < 0.05
