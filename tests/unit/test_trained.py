"""Trained networks: as they were trained, verified, written for other programs, and shown images."""

import csv
import json
import shutil
import sys

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from east import load_network
from east.config import RunSpec
from east.data.class_names import NAMES, class_names
from east.data.images import load_images
from east.errors import EastError
from east.models.dyrelu import dyrelu_units, retire_dyrelu
from east.sparse.layers import masked_layers
from east.trained import export
from east.trained.export import FORMS, NEEDED_FOR_ONNX, dense_again, exported
from east.trained.images import ImageFacts, image_files
from east.trained.predict import Prediction, engine_for, predict, predictions_csv
from east.training.assembly import initial_model
from east.training.records import read_summary
from tests.unit.fake_runs import PLAN, TEST_CONFIG, seal, write_planned_run
from tests.unit.in_process import east

SEEN = 40
"""Test images that are classified."""


@pytest.fixture
def folder(whole, tmp_path):
    """The folder of a finished run, which a test may damage."""
    return shutil.copytree(whole / "sparse", tmp_path / "run")


@pytest.fixture(scope="module")
def network(whole, data_dir):
    return load_network(whole / "sparse", data_dir=data_dir)


@pytest.fixture(scope="module")
def digits(data_dir):
    return load_images("digits", data_dir)


@pytest.fixture(scope="module")
def pictures(digits, tmp_path_factory):
    """The first test images as files, some in a folder of their own."""
    place = tmp_path_factory.mktemp("pictures")
    (place / "more").mkdir()
    (place / ".hidden").mkdir()
    (place / "notes.txt").touch()
    (place / ".hidden" / "0.png").touch()
    for number, image in enumerate(digits.test_images[:SEEN]):
        below = place / "more" if number % 2 else place
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(below / f"{number:03}.png")
    return place


# Loading


def test_a_network_is_what_its_run_says_of_it(network, whole):
    summary = read_summary(whole / "sparse" / "summary.json")
    assert not network.training
    assert sum(int(mask.sum()) for mask in network.masks.values()) == summary.nonzeros
    for layer in masked_layers(network.network).values():
        assert not layer.weight[~layer.mask].any()
    assert (network.classes, network.num_classes) == (tuple("0123456789"), 10)
    assert network.run.fingerprint == summary.fingerprint


@pytest.mark.parametrize("engine", ["auto", "dense"])
def test_a_network_is_as_accurate_as_when_it_was_trained(network, digits, engine):
    with torch.inference_mode():
        logits = engine_for(network, engine)(network.images.normalized(digits.test_images))
        assert torch.allclose(network(network.images.normalized(digits.test_images)), logits, atol=1e-4)
    accuracy = 100 * (logits.argmax(1) == digits.test_labels).double().mean().item()
    assert accuracy == pytest.approx(network.summary.final_test_accuracy, abs=1e-9 if engine == "auto" else 0.5)


def test_what_no_prepared_data_say_is_left_out(whole, tmp_path):
    network = load_network(whole / "sparse", data_dir=tmp_path)
    assert network.images is None
    assert network.classes == tuple("0123456789")
    with pytest.raises(EastError, match="`east prepare digits`"):
        next(predict(network, [tmp_path], engine_for(network)))


def test_a_run_is_found_by_its_id_if_it_is_that_of_the_plan(folder, tmp_path, data_dir):
    run = PLAN["table2/static/seed1"]
    place = tmp_path / "results" / "runs" / run.id
    place.parent.mkdir(parents=True)
    folder.rename(place)
    with pytest.raises(EastError, match="other settings than the plan's"):
        load_network(run.id, TEST_CONFIG, results=tmp_path / "results", data_dir=data_dir)
    with pytest.raises(EastError, match=r"there is no folder .* is not a run of this plan"):
        load_network("table2/none/seed1", TEST_CONFIG)
    with pytest.raises(EastError, match="no run that has ended"):
        load_network(tmp_path)
    shutil.rmtree(place)
    write_planned_run(tmp_path / "results" / "runs", run)
    with pytest.raises(EastError, match=r"weights\.safetensors is not there"):
        load_network(run.id, TEST_CONFIG, results=tmp_path / "results")


def test_what_is_damaged_is_refused(folder, data_dir):
    weights = folder / "weights.safetensors"
    tensors = load_file(weights)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(EastError, match=r"weights\.safetensors is damaged"):
        load_network(folder, data_dir=data_dir)
    save_file({"conv1.weight": tensors["conv1.weight"]}, weights)
    seal(folder / "summary.json")
    with pytest.raises(EastError, match="not of a network that this version builds"):
        load_network(folder, data_dir=data_dir)
    save_file(tensors, weights)
    seal(folder / "summary.json", dataset_digest="another")
    with pytest.raises(EastError, match="other images than those that the network was trained on"):
        load_network(folder, data_dir=data_dir)
    seal(folder / "summary.json", fingerprint="another")
    with pytest.raises(EastError, match="contradicts itself"):
        load_network(folder, data_dir=data_dir)
    seal(folder / "summary.json", run={"seed": 1})
    with pytest.raises(EastError, match="cannot describe"):
        load_network(folder, data_dir=data_dir)


@pytest.mark.parametrize("retired", [True, False])
def test_a_dyrelu_is_there_unless_it_has_become_a_relu(folder, short_spec, tmp_path, retired):
    spec = RunSpec.model_validate(
        short_spec.model_dump()
        | {"model": short_spec.model.model_dump() | {"activation": "dyrelu"}, "phasing": {"start": 1.0, "end": 2.0}}
    )
    model = initial_model(spec, 10)
    if retired:
        retire_dyrelu(model)
    save_file(model.state_dict(), folder / "weights.safetensors")
    seal(folder / "summary.json", run=spec.model_dump(mode="json"), fingerprint=spec.fingerprint)
    network = load_network(folder, data_dir=tmp_path).network
    assert bool(dyrelu_units(network)) == (not retired)
    for name, tensor in model.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_classes_without_names_have_numbers_of_one_length():
    assert class_names("digit_pairs", 100)[7] == "07"
    assert class_names("cifar10", 10)[6] == "frog"
    assert class_names("cifar10", 3) == ("0", "1", "2")
    assert {name: len(set(names)) for name, names in NAMES.items()} == {
        "cifar10": 10,
        "cifar100": 100,
        "fashion_mnist": 10,
    }
    assert all(list(NAMES[name]) == sorted(NAMES[name]) for name in ("cifar10", "cifar100"))


# Writing


def test_every_form_of_a_state_dict_holds_the_same_weights(network, whole, tmp_path):
    of_run = load_file(whole / "sparse" / "weights.safetensors")
    found = {}
    for form in FORMS[:-1]:
        (tmp_path / form).write_bytes(exported(network, form))
        found[form] = load_file(tmp_path / form)
        with safe_open(tmp_path / form, "pt") as file:
            facts = json.loads(file.metadata()["east"])
        assert (facts["form"], facts["classes"], facts["fingerprint"]) == (
            form,
            list(network.classes),
            network.run.fingerprint,
        )
        assert RunSpec.model_validate(facts["run"]) == network.run
        assert facts["shape"] == [3, 12, 12]
    assert same(found["masked"], of_run)
    assert same(found["dense"], {name: one for name, one in of_run.items() if not name.endswith(".mask")})
    assert same(dense_again(found["nonzeros"]), found["dense"])
    values = [one for name, one in found["nonzeros"].items() if name.endswith(".values")]
    assert sum(map(len, values)) == network.summary.nonzeros


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_onnx_is_refused_with_the_command_that_installs_what_it_needs(network, monkeypatch, whole, tmp_path):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(EastError) as refused:
        exported(network, "onnx")
    assert f"{sys.executable} -m pip install onnx onnxscript" in str(refused.value)
    monkeypatch.setattr(export, "find_spec", lambda name: object())
    with pytest.raises(EastError, match="`east prepare digits`"):
        exported(load_network(whole / "sparse", data_dir=tmp_path), "onnx")


@pytest.mark.slow
def test_an_onnx_graph_gives_the_same_logits_for_any_number_of_images(network, digits):
    onnx, _ = (pytest.importorskip(name) for name in NEEDED_FOR_ONNX)
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(exported(network, "onnx"))
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}["classes"]) == list(network.classes)
    for count in (1, 5):
        images = network.images.normalized(digits.test_images[:count])
        (logits,) = ReferenceEvaluator(model).run(None, {"images": images.numpy()})
        with torch.inference_mode():
            assert torch.allclose(torch.from_numpy(logits), network(images), atol=1e-4)


# Images


def test_files_are_classified_as_the_images_that_they_hold(network, digits, pictures):
    files = image_files(pictures)
    assert len(files) == SEEN
    numbers = [int(path.stem) for path in files]
    found = list(predict(network, files, engine_for(network)))
    with torch.inference_mode():
        shares = network(network.images.normalized(digits.test_images[numbers])).softmax(1)
    assert [one.label for one in found] == [network.classes[label] for label in shares.argmax(1).tolist()]
    assert [one.probability for one in found] == pytest.approx(shares.amax(1).tolist(), abs=1e-4)


def test_an_image_of_another_size_is_cut_to_the_shape_and_scaled(network, tmp_path):
    wide = Image.new("RGB", (48, 24), "black")
    wide.paste("white", (12, 0, 36, 24))
    wide.save(tmp_path / "wide.png")
    assert (network.images.pixels(tmp_path / "wide.png") == 255).all()
    assert network.images.pixels(tmp_path / "wide.png").shape == (3, 12, 12)


def test_a_batch_more_changes_no_prediction(network, pictures, monkeypatch):
    files, engine = image_files(pictures)[:7], engine_for(network)
    whole = list(predict(network, files, engine))
    monkeypatch.setattr("east.trained.predict.BATCH", 3)
    found = list(predict(network, files, engine))
    assert [(one.file, one.label) for one in found] == [(one.file, one.label) for one in whole]


@pytest.mark.parametrize(
    ("size", "white", "shape"),
    [
        ((24, 48), (0, 12, 24, 36), (3, 12, 12)),
        ((24, 48), (0, 18, 24, 30), (1, 4, 8)),
        ((8, 7), (2, 0, 6, 7), (1, 8, 4)),
        ((1, 9), (0, 4, 1, 5), (3, 4, 8)),
    ],
    ids=["tall", "tall, to be wide", "wide, to be tall", "narrow"],
)
def test_the_middle_of_an_image_is_shown(tmp_path, size, white, shape):
    image = Image.new("RGB", size, "black")
    image.paste("white", white)
    image.save(tmp_path / "one.png")
    pixels = ImageFacts((), shape, (0.5,), (0.5,)).pixels(tmp_path / "one.png")
    assert pixels.shape == shape
    assert (pixels == 255).all()


def test_images_are_known_by_their_names_in_whatever_letters(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name in ("A.PNG", "b.jpeg", "c.txt", ".d.png", "folder.png/e.png"):
        (tmp_path / name).touch()
    assert [path.name for path in image_files(tmp_path)] == ["A.PNG", "b.jpeg", "e.png"]


def test_no_spreadsheet_takes_a_name_for_a_formula(tmp_path):
    text = predictions_csv([Prediction(tmp_path / "=1.png", "=2", 0.5)], tmp_path)
    assert not any(cell.startswith("=") for line in text.splitlines() for cell in line.split(","))
    assert text.splitlines()[1].endswith(",0.5")


def test_what_is_no_image_is_named(network, tmp_path):
    with pytest.raises(EastError, match="has no images"):
        image_files(tmp_path)
    with pytest.raises(EastError, match="is no folder"):
        image_files(tmp_path / "none")
    (tmp_path / "bad.png").write_text("text")
    with pytest.raises(EastError, match=r"bad\.png cannot be read as an image"):
        list(predict(network, image_files(tmp_path), engine_for(network)))


def test_a_diverged_network_is_not_asked(folder, pictures, data_dir):
    changes = {"status": "diverged", "final_test_accuracy": None}
    network = load_network(seal(folder / "summary.json", **changes).parent, data_dir=data_dir)
    with pytest.raises(EastError, match="diverged"):
        list(predict(network, image_files(pictures), engine_for(network)))


# Commands


def test_a_network_is_written_where_it_is_wanted(whole, data_dir, tmp_path):
    done = east("export", whole / "sparse", "--as", "nonzeros", "--data-dir", data_dir, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.iterdir()
    assert file.name.endswith("sparse.nonzeros.safetensors")
    assert done.stdout.startswith(f"{file.name}: nonzeros, ")
    assert file.stat().st_size < (whole / "sparse" / "weights.safetensors").stat().st_size
    east("export", whole / "sparse", "--out", tmp_path / "a" / "b", "--data-dir", data_dir)
    assert load_file(tmp_path / "a" / "b")


def test_as_many_threads_as_are_asked_for_classify(network, whole, pictures, data_dir, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    east("predict", whole / "sparse", pictures, "--data-dir", data_dir, "--threads", 3)
    assert asked[:1] == [3]


def test_a_folder_is_classified_sparsely_as_a_table(whole, data_dir, pictures, tmp_path):
    asked = ("predict", whole / "sparse", pictures, "--data-dir", data_dir, "--threads", 1, "--csv", tmp_path / "t.csv")
    done = east(*asked)
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert (header.split(), len(lines)) == (["file", "class", "probability"], SEEN)
    assert f"{SEEN} images, executed by the sparse engine." in done.stderr
    with (tmp_path / "t.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    shown = [[row["file"], row["class"], f"{float(row['probability']):.4f}"] for row in rows]
    assert shown == [line.split() for line in lines]
    assert {"000.png", "more/001.png"} <= {row["file"] for row in rows}
    assert "by the dense engine" in east(*asked, "--engine", "dense").stderr
