"""Which rasteriser draws, and why; gsplat behind a stand-in, and on a GPU where there is one."""

import importlib.machinery
import json
import os
import re
import subprocess
import sys
import types

import pytest
import torch

import genxd_core as gx
from genxd_core.errors import InvalidInputError, MissingDependencyError
from genxd_core.lifting import backends, composite_numba
from genxd_core.lifting.backends import (
    BackendStatus,
    active_backend,
    backend_status,
    choose_backend,
    drawing_device,
)
from genxd_core.lifting.rasterize import rasterize_tensors
from tests.core.lifting.splat_scenes import BACKENDS, needs_numba, random_scene, scene_camera
from tests.support import ROOT, assert_same_up_to, seeded

SIZE = {"width": 41, "height": 30}


@pytest.fixture
def forget(monkeypatch):
    """Let every probe be made anew, and again after the test."""
    probes = (backends._probe_numba, backends._probe_gsplat_once, composite_numba.load_kernels)
    for probe in probes:
        probe.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for probe in probes:
        probe.cache_clear()


@pytest.fixture
def without_numba(forget):
    forget.setitem(sys.modules, "numba", None)
    find = backends.importlib.util.find_spec
    forget.setattr(
        backends.importlib.util, "find_spec", lambda name: None if name == "numba" else find(name)
    )


def stand_in(rasterization):
    """A module `gsplat` with one function."""
    module = types.ModuleType("gsplat")
    module.__spec__ = importlib.machinery.ModuleSpec("gsplat", None)
    module.__version__ = "1.5.3"
    module.rasterization = rasterization
    return module


def as_gsplat(means, quats, scales, opacities, colors, viewmats, Ks, width, height, **options):
    """gsplat's layouts, drawn by the torch backend."""
    assert options == {
        "near_plane": 0.01,
        "packed": False,
        "render_mode": "RGB+D",
        "rasterize_mode": "classic",
    }
    found = rasterize_tensors(
        means,
        quats,
        scales,
        opacities,
        torch.zeros_like(means),
        viewmats=viewmats,
        Ks=Ks,
        width=width,
        height=height,
        backend="torch",
        features=colors,
    )
    accumulated = found.depth * found.alpha
    renders = torch.cat([found.features, accumulated], 1).permute(0, 2, 3, 1)
    (means2d,) = found._drawn_means2d
    radii = found.radii.ceil().int()[..., None].expand(-1, -1, 2)
    return renders, found.alpha.permute(0, 2, 3, 1), {"means2d": means2d[None], "radii": radii}


def test_without_a_gpu_the_best_of_the_cpu_draws_and_the_reason_is_told():
    active = active_backend("cpu")
    assert active.name in ("numba", "torch")
    assert active.usable
    if not torch.cuda.is_available():
        assert "not gsplat: torch finds no CUDA device" in active.reason
    assert [status.name for status in backend_status("cpu")] == ["gsplat", "numba", "torch"]


@needs_numba
def test_numba_draws_on_the_cpu_where_it_is_installed():
    assert active_backend("cpu").name == "numba"
    assert "probe render right" in active_backend("cpu").reason


def test_the_torch_backend_draws_where_numba_is_missing(without_numba):
    active = active_backend("cpu")
    assert active.name == "torch"
    assert "not numba: numba is not installed (pip install numba)" in active.reason
    found = gx.rasterize(random_scene(5), scene_camera(), **SIZE)
    assert found.rgb.shape == (1, 3, 30, 41)


def test_asking_for_a_missing_package_says_what_to_install(without_numba):
    with pytest.raises(MissingDependencyError, match="pip install numba"):
        gx.rasterize(random_scene(5), scene_camera(), **SIZE, backend="numba")


def test_a_broken_compiler_is_passed_over(forget):
    def broken():
        raise OSError("no LLVM")

    forget.setattr(composite_numba, "draw_one", broken)
    assert active_backend("cpu").name == "torch"
    assert "probe render fails (OSError: no LLVM)" in active_backend("cpu").reason


def test_a_wrong_picture_is_not_trusted(forget):
    forget.setattr(composite_numba, "draw_one", lambda: float("nan"))
    assert active_backend("cpu").name == "torch"
    assert "off by nan" in active_backend("cpu").reason


@needs_numba
def test_the_probe_needs_no_gradients_around_it(forget):
    """ComfyUI runs its nodes in inference mode."""
    with torch.inference_mode():
        assert active_backend("cpu").name == "numba"


def test_unknown_backends_are_named():
    with pytest.raises(InvalidInputError, match="backend is 'opengl'; expected 'auto'"):
        choose_backend("opengl", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_gsplat_is_never_touched_without_a_gpu(forget):
    def never(*_, **__):
        raise AssertionError("gsplat was called")

    forget.setitem(sys.modules, "gsplat", stand_in(never))
    assert active_backend("cpu").name != "gsplat"
    with pytest.raises(InvalidInputError, match="'gsplat', which cannot draw here: torch finds no"):
        choose_backend("gsplat", "cpu")


def test_other_devices_are_left_to_plain_pytorch():
    assert active_backend("mps").name == "torch"
    assert choose_backend("torch", "mps") == "torch"
    with pytest.raises(InvalidInputError, match=r"numba.*draws on the CPU, not on mps"):
        choose_backend("numba", "mps")


def test_gsplat_is_chosen_only_after_its_probe_render(forget):
    """With a GPU pretended, and the probe's result given."""
    from genxd_core.lifting import composite_gsplat

    forget.setattr(torch.cuda, "is_available", lambda: True)
    forget.setitem(sys.modules, "gsplat", stand_in(as_gsplat))
    probes = []
    forget.setattr(composite_gsplat, "draw_one", lambda: probes.append(1) or 1e-6)
    assert [active_backend("cuda").name for _ in range(2)] == ["gsplat", "gsplat"]
    assert len(probes) == 1, "the probe is made once in a process"
    assert "gsplat 1.5.3, probe render right" in active_backend("cuda").reason
    assert active_backend("cpu").name != "gsplat"


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        (lambda: 0.5, "off by 0.5"),
        (lambda: float("inf"), "off by inf"),
        (lambda: [][0], r"probe render fails \(IndexError"),
    ],
)
def test_gsplat_is_passed_over_when_its_probe_fails(forget, probe, reason):
    from genxd_core.lifting import composite_gsplat

    forget.setattr(torch.cuda, "is_available", lambda: True)
    forget.setitem(sys.modules, "gsplat", stand_in(as_gsplat))
    forget.setattr(composite_gsplat, "draw_one", probe)
    active = active_backend("cuda")
    assert active.name == "torch"
    assert re.search(reason, active.reason)


def test_what_comes_from_gsplat_is_put_where_it_belongs(forget):
    """The adapter around a stand-in that has gsplat's layouts and draws as the torch backend."""
    forget.setitem(sys.modules, "gsplat", stand_in(as_gsplat))
    forget.setattr("genxd_core.lifting.rasterize.choose_backend", lambda backend, _: backend)
    scene = random_scene(40, degree=2)
    features = torch.rand(40, 4, generator=seeded(), dtype=torch.float64)
    results = []
    for backend in ("torch", "gsplat"):
        tensors = [scene.means, scene.quats, scene.scales, scene.opacities, scene.sh]
        tensors = [tensor.clone().requires_grad_() for tensor in tensors]
        found = rasterize_tensors(
            *tensors,
            viewmats=scene_camera().viewmats,
            Ks=scene_camera().Ks(41, 30),
            **SIZE,
            backend=backend,
            background=(1, 1, 1),
            features=features,
        )
        (found.rgb.sum() + found.depth.mean() + found.features.sum()).backward()
        assert found.backend == backend
        pictures = [found.rgb, found.alpha, found.depth, found.features, found.means2d]
        results.append([*(x.detach() for x in pictures), *(x.grad for x in tensors)])
        radii = found.radii
    for first, second in zip(*results, strict=True):
        assert_same_up_to(second, first, 2e-5 * float(first.abs().max()))  # float32 inside
    assert radii.shape == (1, 40)
    assert radii.dtype == torch.float64


def test_skew_is_not_left_to_gsplat(forget):
    forget.setitem(sys.modules, "gsplat", stand_in(as_gsplat))
    forget.setattr("genxd_core.lifting.rasterize.choose_backend", lambda backend, _: backend)
    with pytest.raises(InvalidInputError, match=r"skew.*use backend='torch'"):
        gx.rasterize(random_scene(5), scene_camera(skew=0.1), **SIZE, backend="gsplat")


@needs_numba
def test_kernels_are_compiled_without_a_cache_where_nothing_can_be_written(forget):
    import numba

    real = numba.njit

    def picky(*arguments, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*arguments, **options)

    forget.setattr(numba, "njit", picky)
    kernels = composite_numba.load_kernels()
    assert all(callable(kernel) for kernel in kernels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_backend_changes_the_number_of_threads(monkeypatch, backend):
    def never(*_):
        raise AssertionError("the number of threads is the user's")

    monkeypatch.setattr(torch, "set_num_threads", never)
    before = torch.get_num_threads()
    gx.rasterize(random_scene(5), scene_camera(), **SIZE, backend=backend)
    assert torch.get_num_threads() == before


def test_doctor_tells_what_draws_and_why(capsys):
    pytest.importorskip("tyro", reason="needs the extra `cli`")
    from genxd_core.cli.doctor import _rasteriser

    active, *others = _rasteriser()
    status = active_backend("cuda" if torch.cuda.is_available() else "cpu")
    assert active.state == "ok"
    assert status.reason in active.told
    assert active.told.startswith(status.name)
    assert {finding.what for finding in others} == {"gsplat", "numba", "torch"} - {status.name}


@pytest.fixture
def gsplat_works():
    status = next(found for found in backend_status("cuda") if found.name == "gsplat")
    if not status.usable:
        pytest.skip(status.reason)


def drawn_on(device, backend, dtype=torch.float32):
    """Pictures and gradients of one scene, on the CPU in float64."""
    scene = random_scene(400, degree=3).to(device, dtype)
    camera = scene_camera().to(device, dtype)
    tensors = [scene.means, scene.quats, scene.scales, scene.opacities, scene.sh]
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    features = torch.rand(400, 5, generator=seeded()).to(device, dtype)
    found = rasterize_tensors(
        *tensors,
        viewmats=camera.viewmats,
        Ks=camera.Ks(67, 45),
        width=67,
        height=45,
        backend=backend,
        background=(0.2, 0.4, 0.6),
        features=features,
    )
    mix = torch.rand(found.rgb.shape, generator=seeded(1)).to(found.rgb)
    loss = (found.rgb * mix).sum() + found.depth.sum() + found.features.sum()
    loss.backward()
    pictures = [found.rgb, found.alpha, found.depth, found.features, found.means2d]
    gradients = [*(tensor.grad for tensor in tensors), found.means2d_gradients()]
    return [[x.detach().cpu().double() for x in part] for part in (pictures, gradients)]


@pytest.mark.gpu
def test_gsplat_draws_what_the_torch_backend_draws_on_a_gpu(gsplat_works):
    """Its kernels use fast mathematics, so the bounds are wide."""
    pictures, gradients = drawn_on("cuda", "gsplat")
    right_pictures, right_gradients = drawn_on("cpu", "torch", torch.float64)
    for actual, right in zip(pictures[:4], right_pictures[:4], strict=True):
        assert_same_up_to(actual, right, 1e-3 * max(1.0, float(right.abs().max())))
    for actual, right in zip(gradients, right_gradients, strict=True):
        assert_same_up_to(actual, right, 1e-2 * float(right.abs().max()))


@pytest.mark.gpu
def test_the_torch_backend_draws_the_same_on_a_gpu():
    pictures, gradients = drawn_on("cuda", "torch")
    right_pictures, right_gradients = drawn_on("cpu", "torch", torch.float64)
    for actual, right in zip(pictures + gradients, right_pictures + right_gradients, strict=True):
        assert_same_up_to(actual, right, 1e-4 * max(1.0, float(right.abs().max())))


@pytest.mark.parametrize(
    ("wanted", "usable", "device"),
    [
        ("cpu", {}, "cpu"),
        ("cuda:1", {"cuda": "gsplat"}, "cuda:1"),
        ("cuda:1", {"cpu": "numba"}, "cpu"),
        ("cuda:1", {}, "cuda:1"),
        ("mps", {"cpu": "numba"}, "cpu"),
        ("mps", {}, "cpu"),
    ],
)
def test_device_to_draw_on_is_where_something_quick_works(monkeypatch, wanted, usable, device):
    def active(asked):
        return BackendStatus(usable.get(torch.device(asked).type, "torch"), True, "")

    monkeypatch.setattr(backends, "active_backend", active)
    assert drawing_device(wanted) == torch.device(device)


@pytest.mark.slow
@needs_numba
def test_what_numba_compiled_is_found_again_under_any_name_of_the_package(tmp_path):
    """ComfyUI loads the pack under its path, the command line loads it as `genxd_core`."""
    program = f"""
import importlib, importlib.util, json, sys
from pathlib import Path
name, root = sys.argv[1], Path({str(ROOT)!r})
if name == "genxd_core":
    sys.path.insert(0, str(root))
else:
    spec = importlib.util.spec_from_file_location(name, root / "__init__.py")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    name += ".genxd_core"
backends = importlib.import_module(name + ".lifting.backends")
numba = importlib.import_module(name + ".lifting.composite_numba")
status = backends.active_backend("cpu")
hits = [sum(kernel.stats.cache_hits.values()) for kernel in numba.load_kernels()]
print(json.dumps([status.name, status.reason, hits]))
"""
    answers = []
    for name in ("genxd_core", "/packs/My Pack-1", "/packs/Pack 2"):
        done = subprocess.run(
            [sys.executable, "-c", program, name],
            cwd=tmp_path,
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    assert [answer[0] for answer in answers] == ["numba"] * 3, answers
    assert [answer[2] for answer in answers] == [[0] * 5, [1] * 5, [1] * 5]
