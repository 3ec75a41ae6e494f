import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from east.seeding import generator, torch_generator
from east.sparse import topology
from east.sparse.kinds import drop_rule
from east.sparse.topology import TOPOLOGIES, Rule, Topology, grow, keep
from east.sparse.view import Layer

RIGL = TOPOLOGIES["rigl"]


def keep_largest(weight, gradient, mask, count, draw):
    return keep(RIGL.drop, Layer("layer", weight, gradient, mask), count, draw)


def grow_by(rule, gradient, candidates, count, draw):
    return grow(rule.grow, Layer("layer", torch.zeros_like(gradient), gradient, ~candidates), candidates, count, draw)


def grow_by_gradient(gradient, candidates, count, draw):
    return grow_by(RIGL, gradient, candidates, count, draw)


def grow_at_random(gradient, candidates, count, draw):
    return grow_by(TOPOLOGIES["set"], gradient, candidates, count, draw)


def tensor(*values):
    return torch.tensor(values)


def drop_and_grow(weight, gradient, mask, fraction, draw=None, rule=RIGL):
    return topology.drop_and_grow(weight, gradient, mask, fraction, draw or generator(0, "exchange"), rule)


def resize(weight, gradient, mask, count, rule=RIGL):
    """A mask that has shrunk or grown to `count` weights, as where the density falls or rises."""
    layer, draw = Layer("layer", weight, gradient, mask), generator(0, "resize")
    kept = keep(rule.drop, layer, min(count, layer.active), draw)
    return kept | grow(rule.grow, layer, ~kept, count - layer.active, draw)


def on(mask):
    return mask.nonzero().squeeze(1).tolist()


def test_drops_the_smallest_active_weights_and_grows_the_largest_inactive_gradients():
    weight = tensor(0.5, -0.1, 0.9, 0.0, 0.0, 0.0, 0.0, 0.2)
    gradient = tensor(9.0, 0.0, 9.0, 0.1, -0.8, 0.3, 0.2, 0.0)
    mask = tensor(1, 1, 1, 0, 0, 0, 0, 1).bool()
    # half of 4: drops -0.1 and 0.2, grows |-0.8| and 0.3; active gradients of 9 do not compete
    assert on(drop_and_grow(weight, gradient, mask, 0.5)) == [0, 2, 4, 5]


def test_a_dropped_weight_may_grow_again_at_once():
    weight, gradient = tensor(1.0, 0.1, 0.0), tensor(0.0, 5.0, 1.0)
    mask = tensor(1, 1, 0).bool()
    assert on(drop_and_grow(weight, gradient, mask, 0.5)) == [0, 1]


def saliency(layer):
    return (layer.weight * layer.gradient).abs()


BY_SALIENCY = Rule.bound(drop_rule.describe(saliency, gradient="updates"))


def test_a_rule_of_another_kind_drops_and_grows_by_its_own_measure():
    rule = Topology(BY_SALIENCY, RIGL.grow, RIGL.initial)
    weight, gradient = tensor(0.1, 9.0, 1.0, 0.0), tensor(50.0, 0.1, 1.0, 0.0)
    mask = tensor(1, 1, 1, 0).bool()
    assert on(resize(weight, gradient, mask, 2, rule=rule)) == [0, 2]
    assert on(resize(weight, gradient, mask, 2)) == [1, 2]


@pytest.mark.parametrize(
    ("rule", "grows", "drops"),
    [
        (TOPOLOGIES["rigl"], True, False),
        (TOPOLOGIES["set"], False, False),
        (Topology(BY_SALIENCY, TOPOLOGIES["set"].grow, RIGL.initial), False, True),
    ],
)
def test_a_rule_says_when_it_looks_at_the_gradient(rule, grows, drops):
    assert rule.needs_gradient(grows=True, drops=False) == grows
    assert rule.needs_gradient(grows=False, drops=True) == drops
    assert not rule.needs_gradient(grows=False, drops=False)


def test_at_least_one_weight_is_exchanged_however_small_the_fraction():
    weight, gradient = tensor(1.0, 2.0, 3.0, 0.0), tensor(0.0, 0.0, 0.0, 1.0)
    assert on(drop_and_grow(weight, gradient, tensor(1, 1, 1, 0).bool(), 0.005)) == [1, 2, 3]


def test_an_active_zero_counts_like_any_other_weight():
    weight = tensor(0.0, 0.0, 0.0, 7.0, 0.0, 0.0)
    mask = tensor(1, 1, 1, 1, 0, 0).bool()
    kept = keep_largest(weight, weight, mask, 2, generator(0, "zeros"))
    assert kept[3]
    assert int(kept.sum()) == 2
    assert not (kept & ~mask).any()


def test_ties_are_broken_at_random_and_by_the_generator_alone():
    gradient, candidates = torch.zeros(1000), torch.ones(1000, dtype=torch.bool)
    first = grow_by_gradient(gradient, candidates, 50, generator(1, "tie"))
    assert torch.equal(first, grow_by_gradient(gradient, candidates, 50, generator(1, "tie")))
    assert not torch.equal(first, grow_by_gradient(gradient, candidates, 50, generator(2, "tie")))
    counts = sum(grow_by_gradient(gradient, candidates, 50, generator(s, "tie")).float() for s in range(200))
    # every position is drawn 10 times on average; no run of indices is preferred
    assert abs(counts[:500].sum() - 5000) < 300
    assert counts.max() < 30


def test_a_tie_at_the_threshold_takes_all_above_and_some_at_it():
    gradient = tensor(3.0, 1.0, 1.0, 1.0, 0.0)
    chosen = grow_by_gradient(gradient, torch.ones(5, dtype=torch.bool), 3, generator(0, "t"))
    assert chosen[0]
    assert int(chosen[1:4].sum()) == 2
    assert not chosen[4]


def test_random_growth_ignores_the_gradient_and_draws_without_replacement():
    candidates = tensor(1, 0, 1, 1, 0, 1).bool()
    for seed in range(20):
        grown = grow_at_random(torch.arange(6.0), candidates, 3, generator(seed, "g"))
        assert int(grown.sum()) == 3
        assert not (grown & ~candidates).any()


@pytest.mark.parametrize(("count", "expected"), [(1, [2]), (2, [0, 2]), (3, [0, 2, 4]), (5, [0, 1, 2, 3, 4])])
def test_resize_prunes_by_magnitude_and_grows_by_gradient(count, expected):
    weight, gradient = tensor(0.5, 0.0, 0.9, 0.0, 0.0), tensor(0.0, 0.1, 0.0, 0.2, 0.3)
    assert on(resize(weight, gradient, tensor(1, 0, 1, 0, 0).bool(), count)) == expected


def slow_drop_and_grow(weight, gradient, mask, fraction):
    """One weight at a time, for values without ties."""
    active = [i for i, m in enumerate(mask) if m]
    drop = math.ceil(fraction * len(active))
    kept = sorted(active, key=lambda i: -abs(weight[i]))[: len(active) - drop]
    others = [i for i in range(len(mask)) if i not in kept]
    return sorted(kept + sorted(others, key=lambda i: -abs(gradient[i]))[:drop])


@settings(max_examples=60, deadline=None)
@given(size=st.integers(2, 40), share=st.floats(0.05, 1), fraction=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_equals_the_slow_way(size, share, fraction, seed):
    draw = torch_generator(seed, "property")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=draw)[: max(1, round(share * size))]] = True
    weight = torch.randn(size, generator=draw) * mask
    gradient = torch.randn(size, generator=draw)
    new = drop_and_grow(weight, gradient, mask, fraction)
    assert on(new) == slow_drop_and_grow(weight.tolist(), gradient.tolist(), mask.tolist(), fraction)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 60), fraction=st.floats(0, 1), seed=st.integers(0, 10**6), levels=st.integers(1, 3))
def test_counts_are_exact_whatever_the_ties(size, fraction, seed, levels):
    draw = torch_generator(seed, "ties")
    mask = torch.rand(size, generator=draw) < 0.5
    weight = torch.randint(0, levels, (size,), generator=draw).float() * mask
    gradient = torch.randint(0, levels, (size,), generator=draw).float()
    for rule in TOPOLOGIES.values():
        new = drop_and_grow(weight, gradient, mask, fraction, generator(seed, "exchange"), rule)
        assert int(new.sum()) == int(mask.sum())


def test_layout_in_memory_does_not_change_the_choice():
    draw = torch_generator(5, "layout")
    weight, gradient = torch.randn(8, 4, 3, 3, generator=draw), torch.randn(8, 4, 3, 3, generator=draw)
    mask = torch.rand(8, 4, 3, 3, generator=draw) < 0.2
    last = [t.to(memory_format=torch.channels_last) for t in (weight * mask, gradient, mask)]
    plain = drop_and_grow(weight * mask, gradient, mask, 0.3, generator(0, "x"))
    assert torch.equal(plain, drop_and_grow(*last, 0.3, generator(0, "x")))


NAN, INFINITY = math.nan, math.inf


def keep_by_weight(values, mask, count, generator):
    return keep_largest(values, torch.zeros_like(values), mask, count, generator)


@pytest.mark.parametrize("choose", [grow_by_gradient, keep_by_weight])
@pytest.mark.parametrize(
    ("count", "certain", "possible"),
    [(1, [1], []), (2, [1, 4], []), (3, [1, 4], [3, 5]), (4, [1, 3, 4, 5], []), (5, [1, 3, 4, 5], [0, 2])],
)
def test_what_is_no_number_ranks_below_zero_and_breaks_no_count(choose, count, certain, possible):
    values = tensor(NAN, -INFINITY, NAN, 0.0, 1.0, -0.0)
    for seed in range(8):
        chosen = on(choose(values, torch.ones(6, dtype=torch.bool), count, generator(seed, "nan")))
        assert len(chosen) == count
        assert set(certain) <= set(chosen) <= {*certain, *possible}


def test_infinity_is_larger_than_the_largest_number():
    values = tensor(torch.finfo(torch.float32).max, INFINITY, 0.0)
    assert {on(grow_by_gradient(values, torch.ones(3).bool(), 1, generator(seed, "inf")))[0] for seed in range(8)} == {
        1
    }


def test_both_zeros_are_equal_and_drawn_alike():
    signed = torch.zeros(1000).index_fill(0, torch.arange(0, 1000, 2), -0.0)
    candidates = torch.ones(1000, dtype=torch.bool)
    plain, other = (grow_by_gradient(zeros, candidates, 50, generator(1, "z")) for zeros in (torch.zeros(1000), signed))
    assert torch.equal(plain, other)
    assert {index % 2 for index in on(plain)} == {0, 1}


def test_exchanging_keeps_the_count_where_no_gradient_and_no_weight_is_a_number():
    mask = tensor(1, 1, 1, 0, 0, 0).bool()
    assert int(drop_and_grow(torch.full((6,), NAN), torch.full((6,), NAN), mask, 0.5, generator(0, "n")).sum()) == 3


def test_ties_are_pinned():
    """A committed draw: what grows among zeros is part of every run's numbers."""
    grown = grow_by_gradient(
        torch.zeros(2000), torch.ones(2000, dtype=torch.bool), 5, generator(17, "topology", "x", 4)
    )
    assert on(grown) == [201, 231, 543, 1115, 1549]
