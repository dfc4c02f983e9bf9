"""The groups of a plan with a stand-in for the network."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import genxd_core as gx
from genxd_core import InvalidInputError, PathStore, WeightsError
from genxd_core.errors import Cancelled
from genxd_core.long_paths.sampling import GroupTask, camera_noise, sample_path
from genxd_core.long_paths.store import fingerprint, identity
from tests.support import seeded

SHAPE = (4, 2, 3)
PATH = gx.orbit(40)
STEPS = 3


class StandIn:
    """What a network would be to a group: every frame depends on all of the group."""

    def __init__(self) -> None:
        self.tasks: list[GroupTask] = []

    def __call__(self, task: GroupTask, report_step) -> Tensor:
        self.tasks.append(task)
        for step in range(1, STEPS + 1):
            report_step(step, None)
        out = task.noise + task.clean.sum(0) + task.cameras.c2w[:, :3, 3].sum()
        out[list(task.positions)] = task.clean[list(task.positions)]
        return out


def run(generate=None, at=(0,), plan=None, **options) -> Tensor:
    image_cameras = PATH[list(at)]
    plan = plan or gx.plan_path(PATH, image_cameras)
    encoded = torch.randn(len(at), *SHAPE, generator=seeded(2))
    options = {"steps": STEPS, "seed": 5, **options}
    return sample_path(plan, PATH, image_cameras, encoded, generate or StandIn(), **options)


@pytest.mark.parametrize("at", [(0,), (17,), (0, 20, 39)])
def test_given_cameras_have_their_pictures_latents_exactly(at):
    latents = run(at=at)
    encoded = torch.randn(len(at), *SHAPE, generator=seeded(2))
    assert torch.equal(latents[list(at)], encoded)
    assert latents.abs().flatten(1).sum(1).min() > 0


def test_frames_of_a_group_lie_along_the_path_and_the_first_condition_is_the_reference():
    generate = StandIn()
    run(generate)
    plan = gx.plan_path(PATH, PATH[[0]])
    for group, task in zip(plan.groups, generate.tasks, strict=True):
        where = [v.index if v.generated else plan.places[v.index] for v in group.conditions]
        order = sorted([*where, *group.targets])
        assert torch.equal(task.cameras.c2w, PATH.c2w[order])
        assert [order[position] for position in task.positions] == where
        empty = [number for number in range(len(order)) if number not in task.positions]
        assert not task.clean[empty].any()


def test_a_picture_seen_twice_stands_where_its_group_passes_it():
    there_and_back = PATH[[*range(40), *range(38, -1, -1)]]
    plan = gx.plan_path(there_and_back, PATH[[39, 0]])
    generate = StandIn()
    encoded = torch.randn(2, *SHAPE, generator=seeded(2))
    options = {"steps": STEPS, "seed": 5}
    sample_path(plan, there_and_back, PATH[[39, 0]], encoded, generate, **options)
    assert plan.given == ((0, 1), (39, 0), (78, 1))
    # Both pictures bound each half, and the way back ends with the second.
    assert torch.equal(generate.tasks[0].cameras.c2w[0], PATH.c2w[0])
    assert torch.equal(generate.tasks[-1].cameras.c2w[-1], PATH.c2w[0])


def test_conditions_are_latents_that_earlier_groups_made():
    generate = StandIn()
    latents = run(generate)
    for group, task in zip(gx.plan_path(PATH, PATH[[0]]).groups, generate.tasks, strict=True):
        for view, position in zip(group.conditions, task.positions, strict=True):
            assert torch.equal(task.clean[position], latents[view.index])


@pytest.mark.parametrize("at", [(0,), (0, 20, 39)])
def test_order_of_groups_does_not_matter(at):
    plan = gx.plan_path(PATH, PATH[list(at)])
    first = len(plan.anchors) and 1
    turned = (*plan.groups[:first], *reversed(plan.groups[first:]))
    assert turned != plan.groups
    assert torch.equal(run(at=at), run(at=at, plan=replace(plan, groups=turned)))


def test_every_camera_draws_its_own_noise_from_the_seed_in_every_group():
    generate = StandIn()
    run(generate, at=(0, 20, 39))
    seen: dict[tuple[float, ...], Tensor] = {}
    for task in generate.tasks:
        for pose, noise in zip(task.cameras.c2w, task.noise, strict=True):
            known = seen.setdefault(tuple(pose.flatten().tolist()), noise)
            assert torch.equal(known, noise)
    noises = torch.stack(list(seen.values())).flatten(1)
    assert len(noises) == 40
    assert len(noises.unique(dim=0)) == 40
    assert len({task.seed for task in generate.tasks}) == len(generate.tasks)


def test_noise_is_unit_noise_and_another_for_another_seed():
    noise = torch.stack([camera_noise(seed, 3, (4, 16, 16)) for seed in range(40)])
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(camera_noise(2**64 - 1, 3, SHAPE), camera_noise(2**64 - 1, 3, SHAPE))


def test_progress_is_one_count_over_all_groups():
    plan = gx.plan_path(PATH, PATH[[0]])
    told: list[tuple[int, int]] = []
    run(progress=lambda step, total, preview: told.append((step, total)))
    total = STEPS * len(plan.groups)
    assert told == [(step, total) for step in range(1, total + 1)]


def test_a_sampler_with_more_steps_than_asked_never_counts_backwards():
    def restless(task, report_step):
        for step in range(1, 2 * STEPS):
            report_step(step, None)
        return task.noise

    told: list[int] = []
    run(restless, progress=lambda step, total, preview: told.append(step))
    assert told == sorted(told)


@pytest.mark.parametrize("stop_at", [1, STEPS, STEPS + 1, 3 * STEPS + 2])
def test_cancel_keeps_the_finished_groups_and_a_second_run_makes_only_the_others(stop_at):
    store, plan = PathStore(), gx.plan_path(PATH, PATH[[0]])
    with pytest.raises(Cancelled):
        run(store=store, key="a", progress=lambda step, total, preview: step < stop_at)
    # Within a step: a group whose last step is reported is not finished yet.
    done = (stop_at - 1) // STEPS
    assert len(store.finished("a")) == sum(len(group.targets) for group in plan.groups[:done])
    generate, told = StandIn(), []
    latents = run(
        generate, store=store, key="a", progress=lambda step, total, preview: told.append(step)
    )
    assert len(generate.tasks) == len(plan.groups) - done
    assert told[0] == done * STEPS + 1
    assert torch.equal(latents, run())


def test_a_run_that_is_there_already_is_not_made_again():
    store = PathStore()
    first = run(store=store, key="a")
    generate, told = StandIn(), []
    again = run(
        generate, store=store, key="a", progress=lambda step, total, preview: told.append(step)
    )
    assert not generate.tasks
    assert told == [STEPS * len(gx.plan_path(PATH, PATH[[0]]).groups)]
    assert torch.equal(first, again)
    other = StandIn()
    run(other, store=store, key="b")
    assert other.tasks


def test_what_a_network_raises_keeps_the_groups_before():
    def broken(task, report_step):
        if len(task.positions) > 1:
            raise MemoryError
        return task.noise

    store = PathStore()
    with pytest.raises(MemoryError):
        run(broken, store=store, key="a")
    assert len(store.finished("a")) == 11


def test_values_that_are_not_finite_are_named_and_not_kept():
    store = PathStore()
    with pytest.raises(WeightsError, match="not finite"):
        run(lambda task, report_step: task.noise * torch.nan, store=store, key="a")
    assert not store.finished("a")


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(InvalidInputError, match=f"seed is {seed}; expected a whole number"):
        run(seed=seed)


def test_store_lets_go_of_the_run_not_used_for_longest():
    store = PathStore(max_runs=2)
    for key in ("a", "b"):
        store.add(key, {0: torch.zeros(SHAPE)})
    store.finished("a")
    store.add("c", {0: torch.zeros(SHAPE)})
    assert [key for key in "abc" if store.finished(key)] == ["a", "c"]


def test_store_never_holds_more_than_its_bytes():
    size = torch.zeros(SHAPE).nbytes
    store = PathStore(max_runs=10, max_bytes=5 * size)
    for number in range(20):
        store.add(f"run {number % 3}", {number: torch.zeros(SHAPE)})
        assert store.num_bytes <= 5 * size
    store.add("large", {number: torch.zeros(SHAPE) for number in range(6)})
    assert store.num_bytes == 0
    store.add("small", {0: torch.zeros(SHAPE)})
    store.clear()
    assert store.num_bytes == 0


def test_store_keeps_values_not_views_of_them():
    store, latent = PathStore(), torch.zeros(SHAPE)
    store.add("a", {0: latent})
    latent += 1
    assert not store.finished("a")[0].any()


def test_fingerprints_differ_where_anything_does():
    settings = {"path": PATH, "encoded": torch.zeros(SHAPE), "seed": 1, "plan": "x"}
    changes = [
        {"path": gx.orbit(40, elevation_deg=1e-3)},
        {"path": gx.orbit(40, focal_norm=1.1)},
        {"encoded": torch.full(SHAPE, 1e-7)},
        {"encoded": torch.zeros(SHAPE[::-1])},
        {"seed": 2},
        {"plan": "y"},
    ]
    found = {fingerprint(**(settings | change)) for change in [{}, *changes]}
    assert len(found) == 1 + len(changes)
    assert fingerprint(**settings) == fingerprint(**dict(reversed(settings.items())))


def test_an_identity_is_never_used_again():
    class Thing:
        pass

    kept = Thing()
    seen = {identity(Thing()) for _ in range(100)} | {identity(kept)}
    assert len(seen) == 101
    assert identity(kept) in seen
