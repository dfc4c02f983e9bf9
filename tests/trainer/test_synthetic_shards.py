"""Procedural clips on disk, for training a VAE."""

from safetensors.torch import load_file

from trainer.synthetic_shards import RenderJob, render_shards


def test_rendering_goes_on_where_it_was_stopped(tmp_path):
    job = RenderJob(tmp_path, "nano_3d", clips=3, num_frames=2, size=8, clips_per_shard=2)
    paths = render_shards(job)
    stamps = [p.stat().st_mtime_ns for p in paths]
    paths[1].unlink()
    assert render_shards(job) == paths
    assert paths[0].stat().st_mtime_ns == stamps[0]
    assert [len(load_file(p)["images"]) for p in paths] == [2, 1]
