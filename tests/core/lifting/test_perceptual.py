"""LPIPS over networks with random weights: against the package lpips, and by its own laws."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import genxd_core as gx
from genxd_core.assets import LPIPS_HEADS
from genxd_core.errors import InvalidInputError, WeightsError
from genxd_core.lifting.backbones import BACKBONES
from genxd_core.lifting.perceptual import PerceptualModel, load_perceptual
from tests.backbones import random_backbone, save_random_backbone
from tests.support import assert_same_up_to, seeded

NAMES = list(BACKBONES)


def pictures(count=2, height=64, width=64, seed=0):
    return torch.rand(2, count, 3, height, width, generator=seeded(seed)).unbind()


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """Models by name, loaded once."""
    folder, models = tmp_path_factory.mktemp("networks"), {}

    def load(name: str) -> PerceptualModel:
        if name not in models:
            models[name] = load_perceptual(save_random_backbone(folder / f"{name}.pth", name))
        return models[name]

    return load


@pytest.fixture
def lpips_of(monkeypatch):
    """The package's model with the same random network, of which torchvision makes the layers."""
    lpips = pytest.importorskip("lpips", reason="what our distances are held against (extra `dev`)")
    from torchvision import models

    layers = {
        "alex": lambda: models.AlexNet().features,
        # Without its classifier of 120 million weights, which nobody looks at.
        "vgg": lambda: models.vgg.make_layers(models.vgg.cfgs["D"]),
        "squeeze": lambda: models.squeezenet1_1(weights=None).features,
    }

    def make(name: str) -> torch.nn.Module:
        network = layers[name]()
        state = random_backbone(name)
        network.load_state_dict({key.removeprefix("features."): state[key] for key in state})
        made = SimpleNamespace(features=network)
        stand_in = dict.fromkeys(("alexnet", "vgg16", "squeezenet1_1"), lambda pretrained: made)
        monkeypatch.setattr(lpips.pretrained_networks, "tv", SimpleNamespace(**stand_in))
        return lpips.LPIPS(net=name, pnet_rand=True, verbose=False)

    return make


@pytest.mark.parametrize("size", [(64, 64), (45, 70)])
@pytest.mark.parametrize("name", NAMES)
def test_distances_and_gradients_are_those_of_lpips(name, size, model_of, lpips_of):
    a, b = pictures(2, *size)
    ours, theirs = a.clone().requires_grad_(), a.clone().requires_grad_()
    found = model_of(name)(ours, b)
    expected = lpips_of(name)(theirs, b, normalize=True).flatten()
    assert float(expected.detach().min()) > 0.05
    assert_same_up_to(found.detach(), expected.detach(), 1e-5)
    found.sum().backward()
    expected.sum().backward()
    assert_same_up_to(ours.grad, theirs.grad, 1e-4 * float(theirs.grad.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_pictures_are_those_of_lpips(name, model_of, lpips_of):
    side = BACKBONES[name].smallest
    a, b = pictures(1, side, 40)
    reference = lpips_of(name)
    expected = reference(a, b, normalize=True).detach().flatten()
    assert_same_up_to(model_of(name)(a, b), expected, 1e-5)
    with pytest.raises(RuntimeError):
        reference(a[..., 1:, :], b[..., 1:, :])


def test_embedded_heads_are_those_of_lpips(lpips_of):
    heads = load_file(LPIPS_HEADS)
    expected = {
        f"{name}.{number}": layer.model[-1].weight.detach().flatten()
        for name in NAMES
        for number, layer in enumerate(lpips_of(name).lins)
    }
    assert set(heads) == set(expected)
    assert all(torch.equal(heads[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("name", "size", "seen"),
    [
        ("alex", (15, 31), (31, 65)),
        ("vgg", (16, 8), (32, 16)),
        ("squeeze", (1, 2), (17, 34)),
    ],
)
def test_smaller_pictures_are_enlarged(name, size, seen, model_of):
    small = pictures(1, *size)
    large = [torch.nn.functional.interpolate(p, seen, mode="bilinear") for p in small]
    assert float(model_of(name)(*small)) > 0
    assert_same_up_to(model_of(name)(*small), model_of(name)(*large), 1e-6)


def test_equal_pictures_have_no_distance_and_order_does_not_matter(model_of):
    a, b = pictures()
    model = model_of("squeeze")
    assert_same_up_to(model(a, a), torch.zeros(2), 0)
    assert_same_up_to(model(a, b), model(b, a), 1e-6)
    assert float(model(a, b).min()) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_prepared_targets_give_the_same_distances_and_gradients(name, model_of):
    a, b = pictures(3, 40, 48)
    model = model_of(name)
    prepared = model.prepare(b)
    once, again = a.clone().requires_grad_(), a.clone().requires_grad_()
    direct, cached = model(once, b), model.distance(again, prepared)
    assert_same_up_to(cached.detach(), direct.detach(), 1e-5)
    direct.sum().backward()
    cached.sum().backward()
    assert_same_up_to(again.grad, once.grad, 1e-4 * float(once.grad.abs().max()))
    assert (len(prepared), prepared.size) == (3, (40, 48))
    assert not any(feature.requires_grad for feature in prepared.features)


@pytest.mark.parametrize("views", [1, -1, slice(0, 2), [2, 0], torch.tensor([1, 2])])
def test_views_of_prepared_targets_can_be_selected(views, model_of):
    a, b = pictures(3, 32, 32)
    model = model_of("squeeze")
    index = [views] if isinstance(views, int) else views
    found = model.distance(a[index], model.prepare(b)[views])
    assert_same_up_to(found, model(a, b)[index], 1e-5)


@pytest.mark.parametrize(("name", "values"), [("alex", 10), ("squeeze", 33), ("vgg", 124)])
def test_prepared_targets_take_the_memory_that_is_told(name, values, model_of):
    pictures_of_256 = torch.rand(1, 3, 256, 256, generator=seeded())
    prepared = model_of(name).prepare(pictures_of_256)
    count = sum(feature.numel() for feature in prepared.features)
    assert count / 256**2 == pytest.approx(values, rel=0.03)
    assert f"{values} " in PerceptualModel.prepare.__doc__


def test_gradient_to_a_black_picture_is_finite(model_of):
    """Where a network sees nothing, the length of its features is 0, whose root has no slope."""
    for name in NAMES:
        black = torch.zeros(1, 3, 32, 32, requires_grad=True)
        model_of(name)(black, torch.ones(1, 3, 32, 32)).sum().backward()
        assert bool(torch.isfinite(black.grad).all())


def test_gradients_are_those_of_finite_differences(model_of):
    model = model_of("squeeze").to(dtype=torch.float64)
    a, b = (p.double() for p in pictures(1, 17, 17))
    prepared = model.prepare(b)
    a.requires_grad_()
    (slope,) = torch.autograd.grad(model.distance(a, prepared).sum(), a)
    direction = torch.randn(a.shape, generator=seeded(5), dtype=a.dtype)
    step = 1e-7 * direction
    with torch.no_grad():
        change = model.distance(a + step, prepared) - model.distance(a - step, prepared)
    assert float((slope * direction).sum().detach()) == pytest.approx(
        float(change) / 2e-7, rel=1e-4
    )


def test_model_made_in_inference_mode_passes_gradients_outside(tmp_path):
    """As in ComfyUI, which runs every node in inference mode."""
    file = save_random_backbone(tmp_path / "network.pth")
    with torch.inference_mode():
        a, b = pictures(1, 32, 32)
        model = load_perceptual(file).to("cpu")
        prepared = model.prepare(b)
    image = a.clone().requires_grad_()
    (model.distance(image, prepared) + model(image, b.clone())).sum().backward()
    assert float(image.grad.abs().max()) > 0


def test_a_copy_leaves_the_model_as_it_is(model_of):
    model = model_of("squeeze")
    copied = model.to(dtype=torch.float64)
    assert (model.dtype, copied.dtype) == (torch.float32, torch.float64)
    assert copied.device == model.device == torch.device("cpu")
    assert repr(copied) == "PerceptualModel('squeeze', torch.float64, cpu)"
    a, b = pictures(1, 32, 32)
    assert_same_up_to(copied(a, b), model(a, b).double(), 1e-5)


def test_pictures_that_cannot_be_compared_are_refused(model_of):
    model = model_of("squeeze")
    a, b = pictures(2, 32, 32)
    with pytest.raises(InvalidInputError, match="expected \\(V, 3, H, W\\) twice"):
        model(a, b[:1])
    with pytest.raises(InvalidInputError, match=r"images has shape \(1, 3, 32, 32\), but the prep"):
        model.distance(a[:1], model.prepare(b))
    with pytest.raises(InvalidInputError, match="on meta and the perceptual model is on cpu"):
        model(a.to("meta"), b.to("meta"))


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_every_kind_of_file_gives_the_same_model(suffix, tmp_path, model_of):
    model = gx.load_perceptual(save_random_backbone(tmp_path / f"any name{suffix}"))
    a, b = pictures(1, 32, 32)
    assert_same_up_to(model(a, b), model_of("squeeze")(a, b), 0)


def test_older_and_half_precision_files_are_read(tmp_path, model_of):
    state = random_backbone("squeeze")
    old, half = tmp_path / "old.pth", tmp_path / "half.safetensors"
    torch.save(state, old, _use_new_zipfile_serialization=False)
    save_file({key: value.half() for key, value in state.items()}, half)
    a, b = pictures(1, 32, 32)
    expected = model_of("squeeze")(a, b)
    assert_same_up_to(load_perceptual(old)(a, b), expected, 0)
    assert_same_up_to(load_perceptual(half)(a, b), expected, 1e-2)


def test_only_the_convolutions_are_kept(tmp_path):
    state = random_backbone("alex") | {"classifier.1.weight": torch.zeros(64, 64)}
    torch.save(state, tmp_path / "alex.pth")
    model = load_perceptual(tmp_path / "alex.pth")
    count = sum(parameter.numel() for parameter in model._network.parameters())
    assert model.name == "alex"
    assert count == 2_469_696
    assert not any(parameter.requires_grad for parameter in model._network.parameters())


def test_a_loaded_model_does_not_need_its_file_any_more(tmp_path):
    file = save_random_backbone(tmp_path / "network.pth")
    a, b = pictures(1, 32, 32)
    model = load_perceptual(file)
    before = model(a, b)
    file.write_bytes(bytes(file.stat().st_size))
    assert_same_up_to(model(a, b), before, 0)


def test_missing_file_is_told_with_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENXD_MODELS", str(tmp_path / "mine"))
    with pytest.raises(WeightsError) as caught:
        load_perceptual("alexnet.pth")
    told = str(caught.value)
    assert "perceptual model 'alexnet.pth': there is no such file" in told
    assert str(tmp_path / "mine" / "perceptual") in told
    for name in ("alexnet-owt-7be5be79.pth", "vgg16-397923af.pth", "squeezenet1_1-b8a52dc0.pth"):
        assert name in told
    assert '"gradient", which needs no weights' in told


class Runs:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "wb"))


def test_pickles_with_code_are_refused_and_do_not_run(tmp_path):
    state = random_backbone("squeeze") | {"extra": Runs(tmp_path / "ran")}
    for new in (True, False):
        torch.save(state, tmp_path / "evil.pth", _use_new_zipfile_serialization=new)
        with pytest.raises(WeightsError, match="holds Python objects besides tensors"):
            load_perceptual(tmp_path / "evil.pth")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(WeightsError, match=r"bare.pt (holds Python|is cut off or damaged)"):
        load_perceptual(tmp_path / "bare.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_cut_off_pickles_are_told(part, new, tmp_path):
    file = tmp_path / "cut.pth"
    torch.save(random_backbone("squeeze"), file, _use_new_zipfile_serialization=new)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(
        WeightsError, match=r"cut\.pth is (empty|cut off or damaged).*copy it again"
    ):
        load_perceptual(file)


def test_cut_off_safetensors_are_told(tmp_path):
    file = save_random_backbone(tmp_path / "cut.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"is cut off: .* download or copy it again"):
        load_perceptual(file)


def changed(**changes):
    state = random_backbone("alex")
    for key, value in changes.items():
        state[key.replace("__", ".")] = value
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            {"a.weight": torch.zeros(2, 3)},
            r"holds 1 tensors \(a.weight \[2, 3\]\). Expected a state",
        ),
        ({}, r"it holds 0 tensors \(none\)"),
        (
            changed(features__10__bias=None),
            r"like AlexNet, but 1 of the .* tensors are missing, .* \(features.10.bias\)",
        ),
        (
            changed(features__0__weight=torch.zeros(64, 1, 11, 11)),
            r"of another shape \(features.0.weight\).*AlexNet \(alexnet-owt-7be5be79.pth\) with",
        ),
        (
            changed(features__12__weight=torch.zeros(1)),
            r"unexpected or of another shape \(features.12.weight\)",
        ),
        (
            changed(features__0__bias=torch.full((64,), float("nan"))),
            "features.0.bias holds values that are not finite numbers",
        ),
        (
            changed(features__0__bias=torch.zeros(64, dtype=torch.int64)),
            "features.0.bias holds values that are not finite numbers",
        ),
        (torch.zeros(3), "holds a Tensor that is no state dict"),
        ({"state_dict": {"a": 1}}, "holds a dict that is no state dict"),
    ],
)
def test_other_content_is_told(content, told, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=told):
        load_perceptual(tmp_path / "other.pth")


def test_other_kinds_of_files_are_told(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing of use", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"ends in '.txt'; expected a file ending in .safetens"):
        load_perceptual(tmp_path / "notes.txt")
    (tmp_path / "notes.pth").write_text("nothing of use", encoding="utf-8")
    with pytest.raises(WeightsError, match="is cut off or damaged, or no file of tensors"):
        load_perceptual(tmp_path / "notes.pth")


# ---- heads --------------------------------------------------------------------------------------


def test_heads_may_come_from_another_file(tmp_path, model_of):
    network = save_random_backbone(tmp_path / "network.pth")
    embedded = load_file(LPIPS_HEADS)
    doubled = {key: 2 * value for key, value in embedded.items() if key.startswith("squeeze.")}
    save_file(doubled, tmp_path / "ours.safetensors")
    theirs = {
        f"lin{key.partition('.')[2]}.model.1.weight": value.reshape(1, -1, 1, 1)
        for key, value in doubled.items()
    }
    torch.save(theirs, tmp_path / "theirs.pth")
    a, b = pictures(1, 32, 32)
    expected = 2 * model_of("squeeze")(a, b)
    for heads in ("ours.safetensors", "theirs.pth"):
        model = load_perceptual(network, heads=tmp_path / heads)
        assert_same_up_to(model(a, b), expected, 1e-6)


@pytest.mark.parametrize(
    ("heads", "told"),
    [
        ({"alex.0": torch.ones(64)}, "squeeze.0 is missing, expected 64 values"),
        ({"squeeze.0": torch.ones(63)}, r"squeeze.0 is of shape \[63\], expected 64 values"),
        ({"squeeze.0": -torch.ones(64)}, "squeeze.0 holds negative values"),
    ],
)
def test_other_heads_are_told(heads, told, tmp_path):
    save_file(heads, tmp_path / "heads.safetensors")
    network = save_random_backbone(tmp_path / "network.pth")
    with pytest.raises(WeightsError, match=told):
        load_perceptual(network, heads=tmp_path / "heads.safetensors")
    with pytest.raises(WeightsError, match=r"none\.pth does not exist"):
        load_perceptual(network, heads=tmp_path / "none.pth")
