"""Quotas, phases and responses, on their own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from vcell_select_genes.arrange import ALL, Group, arrange, parse_quotas
from vcell_select_genes.responsive import Moments, rejected, t_test

from vcell.errors import UserError


def group(name, genes, quota):
    return Group(name, np.array(genes, np.int64), quota)


def test_each_phase_holds_each_groups_share():
    groups = [
        group("targets", [90, 91], ALL),
        group("tf", range(40, 60), 10),
        group("hvg", range(40), 20),
    ]
    chosen = arrange(groups, np.arange(100), 40, [10, 20])
    assert chosen.phases == (10, 20, 40)
    assert chosen.genes[:2].tolist() == [90, 91]
    for phase, size in enumerate(chosen.phases):
        inside = set(chosen.genes[chosen.phase <= phase].tolist())
        assert len(inside) == size
        assert len(inside & set(range(40, 60))) >= 10 * size // 40
    assert len(set(chosen.genes.tolist())) == 40


def test_a_gene_of_two_groups_counts_for_both():
    groups = [group("a", [1, 2, 3], 3), group("b", [3, 2, 4], 2)]
    chosen = arrange(groups, np.array([9, 8]), 4, [])
    assert chosen.genes.tolist() == [1, 2, 3, 9]


def test_more_targets_than_places_continue_in_the_next_phase():
    chosen = arrange([group("targets", range(8), ALL)], np.arange(20), 10, [4])
    assert chosen.genes.tolist() == list(range(10))
    assert chosen.phase.tolist() == [0] * 4 + [1] * 6


def test_too_few_genes_are_all_chosen():
    chosen = arrange([], np.arange(5), 20, [10])
    assert sorted(chosen.genes.tolist()) == list(range(5))


def test_quotas_are_numbers_percentages_or_all():
    quotas = parse_quotas(["tf=40", "hvg=10%", "mine=all"], ["tf", "hvg", "mine"], 500)
    assert quotas == {"tf": 40, "hvg": 50, "mine": ALL}
    for text in ("tf", "tf=-3", "tf=a%", "tf=1.5"):
        with pytest.raises(UserError):
            parse_quotas([text], ["tf"], 500)


def test_the_t_test_is_scipys_with_the_wider_error():
    rng = np.random.default_rng(0)
    a = rng.normal(0.3, [[1.0, 3.0, 0.1]], (40, 3))
    b = rng.normal(0.0, [[1.0, 0.5, 2.0]], (300, 3))
    t, p = t_test(*(Moments(x.mean(0), x.var(0, ddof=1), len(x)) for x in (a, b)))
    both = [stats.ttest_ind(a, b, equal_var=equal) for equal in (True, False)]
    wider = np.argmin([np.abs(test.statistic) for test in both], axis=0)
    for gene in range(3):
        test = both[wider[gene]]
        assert t[gene] == pytest.approx(test.statistic[gene])
        assert p[gene] == pytest.approx(test.pvalue[gene])


def test_genes_without_variance_are_not_tested():
    zero = np.zeros(2)
    t, p = t_test(Moments(zero, zero, 10), Moments(zero, zero, 10))
    assert t.tolist() == [0, 0]
    assert p.tolist() == [1, 1]


def test_a_gene_that_is_absent_by_chance_is_not_called():
    # 3 % of 5,000 controls have it, none of 60 perturbed cells: Welch alone says t = -12
    absent = Moments(np.array([0.0]), np.array([0.0]), 60)
    _, p = t_test(absent, Moments(np.array([0.045]), np.array([0.065]), 5000))
    assert p[0] > 0.05


def test_benjamini_hochberg_is_scipys():
    p = np.random.default_rng(1).beta(0.4, 1.0, 500)
    adjusted = stats.false_discovery_control(p)
    np.testing.assert_array_equal(rejected(p, 0.1), adjusted <= 0.1)
    assert not rejected(np.ones(5), 0.05).any()
