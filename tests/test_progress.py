"""The progress on a terminal and in a file; test_notebook.py tests that of a notebook."""

from __future__ import annotations

import errno
import io

import pytest
from rich.console import Console

LAST = (
    "net            epoch 2     loss 0.500  accuracy  81.2 %  validation  75.0 %  1234 images/s\n"
)


def evaluated(step: int):
    """Return an epoch's metrics and timing, as a run reports them."""
    from towernet.records.run import EpochMetrics, EpochTiming

    metrics = EpochMetrics(
        epoch=step / 10, step=step, learning_rate=0.1, train_loss=0.5, train_accuracy=0.8125,
        validation_loss=0.6, validation_accuracy=0.75,
    )  # fmt: skip
    timing = EpochTiming(
        step=step, train_seconds=1.0, images_per_second=1234.5, seconds=1.1, peak_memory_mib=9.0
    )
    return metrics, timing


def watch(screen) -> None:
    """Show some counted files, a run of two epochs, and a message on a screen."""
    screen.count("decoding images", 1, 2)
    screen.count("decoding images", 2, 2)
    screen.begin("net", 0, 20, 10)
    for step in range(1, 21):
        screen.step(step, 0.5, 0.8, 1000.0)
        if not step % 10:
            screen.epoch(*evaluated(step))
    screen.end()
    screen.say("[done]")


def test_a_pipe_gets_plain_lines(capfd):
    from towernet import progress

    screen = progress.screen()
    assert isinstance(screen, progress.Lines)
    watch(screen)
    assert capfd.readouterr() == ("", f"decoding images: 2\n{LAST}[done]\n")


def test_a_file_shows_long_epochs_and_long_waits(capfd, monkeypatch):
    from towernet import progress

    monkeypatch.setattr(progress.Lines, "seconds_between_lines", 0.0)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    watch(progress.screen())
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 + 20 + 2 + 1
    assert lines[1] == (
        "net            step 1 of 20  epoch 0.1/2  loss 0.500  accuracy 80 %  1000 images/s"
        "  0:00 left"
    )
    assert lines[11].endswith("validation  75.0 %  1234 images/s  0:00 left")


def test_a_terminal_keeps_the_messages_and_removes_its_bars():
    from towernet import progress

    stream = io.StringIO()
    watch(progress.Bars(Console(file=stream, force_terminal=True, width=200, highlight=False)))
    shown = stream.getvalue()
    assert "epoch 2.0/2  loss 0.500  accuracy 80 %  1000 images/s" in shown
    assert shown.count(LAST) == 1
    assert shown.endswith("[done]\n")
    assert "\x1b[?25h" in shown  # the cursor is back


@pytest.mark.parametrize(("seconds", "words"), [(0.9, "0:00"), (61.0, "1:01"), (3600.0, "1:00:00")])
def test_a_time_is_written_as_on_a_clock(seconds, words):
    from towernet.words import clock_time

    assert clock_time(seconds) == words


def test_a_closed_stream_does_not_stop_the_run():
    from towernet import progress

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "the terminal is gone")

    stream = progress._SafeStream(Gone())
    watch(progress.Lines(Console(file=stream)))
    with pytest.raises(OSError, match="gone"):
        watch(progress.Lines(Console(file=Gone())))
