"""What tests of the command line look at: the error's one line, what was written, and Ctrl-C."""

import signal

from genxd_core.cli.fit_watch import FitWatch

__all__ = ["error_line", "made", "press_ctrl_c", "press_ctrl_c_in_video"]


def error_line(capsys):
    """The one line on the error output."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("genxd: error: ")
    return lines[0]


def made(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def press_ctrl_c(monkeypatch, iterations):
    """Send SIGINT to this process at some iterations of the fit."""
    told = FitWatch.on_step

    def on_step(watch, step):
        told(watch, step)
        for _ in range(iterations.count(step.iteration)):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(FitWatch, "on_step", on_step)


def press_ctrl_c_in_video(monkeypatch):
    """Interrupt the writing of a video halfway."""

    def interrupted(video, file, **_):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("genxd_core.media.save_video", interrupted)
