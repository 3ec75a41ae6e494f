"""The trained network of a run, from the run's folder or its id, verified by the digests of its summary."""

from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from east.config import RunSpec, make_plan, read_config
from east.data.class_names import class_names
from east.errors import EastError
from east.models.dyrelu import retire_dyrelu
from east.plugins import load_needed
from east.sparse.layers import MaskedLayer, masked_layers
from east.trained.images import ImageFacts, image_facts
from east.training.assembly import built_model
from east.training.describe import network_shape
from east.training.folder import WEIGHTS, read_weights
from east.training.records import SUMMARY, RunSummary, read_summary


class TrainedNetwork(nn.Module):
    """A trained network in evaluation mode, with what it was trained as.

    It gives logits (N, classes) of normalized images (N, C, H, W); `images.normalized` makes these of pixels.

    Attributes:
        network: the network itself, whose state dict is that of the run's `weights.safetensors`.
        run: what was trained.
        summary: what came of it.
        classes: names of the classes, in the order of logits; numbers where the data set has no names.
        images: how images are shown to it; None where its data set is not prepared.
    """

    def __init__(self, network: nn.Module, run: RunSpec, summary: RunSummary, images: ImageFacts | None) -> None:
        super().__init__()
        self.network = network
        self.run, self.summary, self.images = run, summary, images
        self.eval()

    @property
    def masks(self) -> dict[str, Tensor]:
        """Name of each masked layer -> where its weights are on, bool, in the shape of the weight."""
        return {name: layer.mask for name, layer in masked_layers(self.network).items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return class_names(self.run.dataset.reader, self.num_classes) if self.images is None else self.images.classes

    @property
    def num_classes(self) -> int:
        """How many logits an image has."""
        return len(_last_layer(self.network).weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalized images (N, C, H, W)."""
        logits: Tensor = self.network(images)
        return logits


def load_network(
    run: str | Path, *configfiles: str | Path, results: str | Path | None = None, data_dir: str | Path = "data"
) -> TrainedNetwork:
    """The trained network of a run, in evaluation mode, on the CPU.

    Args:
        run: the folder of a run, or its id in the plan of config.yaml with these overlays.
        configfiles: overlays of config.yaml, for an id.
        results: folder of the results, for an id; `results/<name>` of the configuration if None.
        data_dir: where data sets are prepared: names of classes and the normalization are read there.

    Raises:
        EastError: there is no such run, it has not ended, is of other settings than the plan's, or is damaged; its
            weights are not there, or what is prepared is of other images.
    """
    folder, fingerprint = find_run(run, *configfiles, results=results)
    if not (folder / SUMMARY).exists():
        raise EastError(f"{folder} holds no run that has ended: there is no {SUMMARY} in it.")
    summary = read_summary(folder / SUMMARY)
    if fingerprint not in (None, summary.fingerprint):
        raise EastError(f"{folder} is of other settings than the plan's. Name it by its folder, or train it again.")
    spec = _spec_of(folder, summary)
    content = read_weights(folder, summary.files.get(WEIGHTS, ""))
    if content is None:
        raise EastError(
            f"{folder / WEIGHTS} is not there, so the network is lost. Delete {folder}, and train it again."
        )
    # Of plugins nothing is executed but what the network itself is made by.
    described = spec.model.model_dump_json()
    needed = {digest: use for digest, use in spec.plugins.items() if digest in described}
    load_needed(needed, (folder, Path(), Path("config")))
    try:
        network = _network(spec, load_tensors(content))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise EastError(f"{folder / WEIGHTS} is not of a network that this version builds: {reason}") from None
    facts = image_facts(spec.dataset, summary.dataset_digest, Path(data_dir))
    return TrainedNetwork(network, spec, summary, facts)


def find_run(run: str | Path, *configfiles: str | Path, results: str | Path | None = None) -> tuple[Path, str | None]:
    """The folder of a run, and what its fingerprint must be; None where the folder itself was named.

    Arguments as for `load_network`.

    Raises:
        EastError: it is neither a folder nor the id of a planned run.
    """
    if Path(run).is_dir():
        return Path(run), None
    plan = make_plan(read_config(*configfiles))
    try:
        planned = plan.run(str(run))
    except EastError as error:
        raise EastError(f"there is no folder {run}, and {error}") from None
    folder = Path(results) if results is not None else Path("results") / plan.config.name
    return folder / "runs" / planned.id, planned.fingerprint


def _spec_of(folder: Path, summary: RunSummary) -> RunSpec:
    """The run that a summary is of."""
    try:
        spec = RunSpec.model_validate(summary.run)
    except ValidationError:
        raise EastError(f"{folder / SUMMARY} is of a run that this version cannot describe.") from None
    if spec.fingerprint != summary.fingerprint:
        raise EastError(f"{folder / SUMMARY} contradicts itself: its fingerprint is not that of its run.")
    return spec


def _network(spec: RunSpec, tensors: dict[str, Tensor]) -> nn.Module:
    """The network of a run with these values."""
    network = built_model(spec, len(_last_layer(network_shape(spec)).weight))
    if not network.state_dict().keys() <= tensors.keys():
        retire_dyrelu(network)  # as in the end of training
    network.load_state_dict(tensors)
    return network


def _last_layer(network: nn.Module) -> MaskedLayer:
    """The layer that gives the logits."""
    return [*masked_layers(network).values()][-1]
