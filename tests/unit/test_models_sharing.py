import pytest
import torch

from east.errors import EastError
from east.models import build_model
from east.models.sharing import owned_weights, reuse_counts, stored_nonzeros, virtual_weights


def on_meta(*args, **kwargs):
    with torch.device("meta"):
        return build_model(*args, **kwargs)


def sharing_blocks(model) -> list[int]:
    return [sum(block.scope.source is not None for block in stage) for stage in model.stages]


@pytest.mark.parametrize(
    ("ratio", "per_stage"), [(2, [1, 2, 4, 1]), (3, [0, 1, 3, 0]), (5, [0, 0, 1, 0]), (6, [0, 0, 0, 0])]
)
def test_blocks_beyond_the_ratio_share(ratio, per_stage):
    assert sharing_blocks(on_meta("resnet34", 10, sharing_ratio=ratio)) == per_stage


@pytest.mark.parametrize(("name", "virtual"), [("resnet34", 10_100_736), ("resnet50", 9_539_584)])
def test_virtual_weights(name, virtual):
    model = on_meta(name, 100, sharing_ratio=2)
    assert virtual_weights(model) == virtual
    assert owned_weights(model) + virtual == owned_weights(on_meta(name, 100))
    assert virtual_weights(on_meta(name, 100)) == 0


def test_reuse_counts_name_the_last_owning_block_of_each_stage():
    counts = reuse_counts(on_meta("resnet34", 10, sharing_ratio=2))
    expected = {f"stages.{s}.1.conv{i}": n for s, n in enumerate((1, 2, 4, 1)) for i in (1, 2)}
    assert {name: count for name, count in counts.items() if count} == expected
    assert len(counts) == 21


def test_reuse_counts_of_dct_layers_name_their_sparse_part():
    counts = reuse_counts(on_meta("resnet34", 10, sharing_ratio=2, dct=True))
    assert counts["stages.2.1.conv2.sparse"] == 4


def test_sharing_raises_the_density_of_the_stored_weights_as_the_paper_says():
    model = on_meta("resnet34", 100, sharing_ratio=2)
    assert stored_nonzeros(model, 0.0005) / owned_weights(model) == pytest.approx(0.0009505061, rel=1e-4)


def test_sharing_stores_as_many_nonzeros_as_the_dense_network_has():
    assert stored_nonzeros(on_meta("resnet34", 100, sharing_ratio=2), 0.0005) == 10_656
    assert stored_nonzeros(on_meta("resnet34", 100), 0.0005) == 10_656
    assert stored_nonzeros(on_meta("resnet34", 10), 0.0001) == 2_127
    small = on_meta("resnet34", 10, width=1)
    assert stored_nonzeros(small, 1.0) == owned_weights(small)
    with pytest.raises(EastError, match=r"at most 0\.526"):
        stored_nonzeros(on_meta("resnet34", 100, sharing_ratio=2), 0.6)


def test_sharing_blocks_store_norms_and_scalars_only():
    model = build_model("resnet50", 10, sharing_ratio=2, width=4)
    block = model.stages[0][2]
    assert [name for name, _ in block.named_parameters() if "bn" not in name] == ["scale1", "scale2", "scale3"]
    scales = torch.stack([value.detach() for name, value in model.named_parameters() if "scale" in name])
    assert len(scales) == 24
    assert 0 <= float(scales.min()) < float(scales.max()) < 1


@pytest.mark.parametrize("dct", [False, True])
def test_gradients_of_all_uses_add_up_in_the_owner(dct):
    """A network with the reused weights written out, times their scalars, has the gradients that must add up."""
    torch.manual_seed(0)
    shared = build_model("resnet34", 10, sharing_ratio=2, width=4, dct=dct).double()
    for layer in (module for module in shared.modules() if isinstance(module, torch.nn.Conv2d)):
        torch.nn.init.normal_(layer.weight, std=0.1)
    written_out = build_model("resnet34", 10, width=4, dct=dct).double()
    state = shared.state_dict()
    part = ".sparse" if dct else ""
    scales = {}
    for name in written_out.state_dict():
        if name in state:
            continue
        stage, block, layer, *rest = name.removeprefix("stages.").split(".")
        key = f"stages.{stage}.{block}"
        if rest[-1] == "alpha":
            state[name] = state[f"{key}.{layer.replace('conv', 'alpha')}"]
            continue
        state[name] = state[f"stages.{stage}.1.{layer}{part}.{rest[-1]}"]
        if rest[-1] == "weight":
            scales[name] = state[f"{key}.{layer.replace('conv', 'scale')}"]
            state[name] = state[name] * scales[name]
    written_out.load_state_dict({name: state[name] for name in written_out.state_dict()})

    x, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(10, (4,))
    outputs = [model(x) for model in (shared, written_out)]
    torch.testing.assert_close(outputs[0], outputs[1])
    for output in outputs:
        torch.nn.functional.cross_entropy(output, labels).backward()

    copies = dict(written_out.named_parameters())
    for conv in ("conv1", "conv2"):
        owner = f"stages.2.1.{conv}{part}.weight"
        expected = copies[owner].grad
        for block in (2, 3, 4, 5):
            name = f"stages.2.{block}.{conv}{part}.weight"
            expected = expected + scales[name] * copies[name].grad
        torch.testing.assert_close(shared.get_parameter(owner).grad, expected)
