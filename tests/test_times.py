"""Training time: what networks were given, what they took, and what is said where these differ."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest

from made_results import a_conclusion, a_network, changed, some_results, some_times
from towernet.api.found import Comparison
from towernet.api.training import compare
from towernet.cli.tables import ranking
from towernet.comparison.wording.paper import latex
from towernet.comparison.wording.times import EQUAL_PASSES, about_times
from towernet.engine.runlog import Progress
from towernet.records.results import Conclusion, Network, TrainingTimes
from towernet.report.headline import facts, steps
from towernet.report.notebook import judged_html

# Both take as long as they sleep; Moody sleeps longer once a file next to it exists.
NETS = """
    import time
    from pathlib import Path

    from torch import nn

    MOOD = Path(__file__).with_name("mood")


    class Calm(nn.Sequential):
        def __init__(self, num_classes):
            super().__init__(
                nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes),
            )

        def forward(self, x):
            if self.training:
                time.sleep(self.seconds())
            return super().forward(x)

        def seconds(self):
            return 0.03


    class Moody(Calm):
        def seconds(self):
            return float(MOOD.read_text()) if MOOD.exists() else 0.03
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A folder with the two networks, which is the working directory."""
    (tmp_path / "nets_of_moods.py").write_text(textwrap.dedent(NETS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("nets_of_moods", None)


class ChangesMood(Progress):
    """Changes Moody's mood as soon as a sentence is reported that contains these words."""

    def __init__(self, words: str, seconds: float) -> None:
        self.words, self.seconds = words, seconds
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
        if self.words in text:
            Path("mood").write_text(str(self.seconds))


def compared(photos: Path, recipe: str, progress: Progress) -> Comparison:
    Path("short.toml").write_text(f"[train]\n{recipe}\n")
    return compare(
        photos,
        models=["nets_of_moods:Calm", "nets_of_moods:Moody"],
        recipe="short.toml",
        size=32,
        batch_size=8,
        threads=1,
        workers=1,
        out="out",
        progress=progress,
    )


@pytest.mark.proof
@pytest.mark.parametrize("seconds", [0.03, 0.07])
def test_times_that_differ_are_said_first_and_times_that_agree_are_listed(nets, photos, seconds):
    """The second network trains as fast as measured, or takes more than twice the time."""
    recipe = "minutes = 0.03\ntrial_factors = [1.0]"
    found = compared(photos, recipe, ChangesMood("run 1 of 1", seconds))
    measured = json.loads((found.folder / "results.json").read_text())["measured"]
    times, html = measured["times"], found.report.read_text()
    first_screen = html.partition("<nav")[0]
    differ = seconds == 0.07
    assert times["differ"] is differ, times
    assert times == found.measured.times.model_dump(mode="json")
    assert ("The training times were not the same" in first_screen) is differ
    assert ("give --epochs instead of" in first_screen) is differ
    assert (times["sentence"] in repr(found)) is differ
    assert ("Each network was given 1.8 s of training a run; measured" in html) is not differ
    if differ:
        assert times["longest"] == "nets_of_moods:Moody"
        assert 1.5 < times["longest_seconds"] / times["shortest_seconds"] < 3
    assert ">planned time<" in html and ">measured time<" in html
    assert "times" not in json.loads((found.folder / "results.json").read_text())["results"]


@pytest.mark.proof
def test_equal_epochs_promise_no_time(nets, photos):
    found = compared(photos, "epochs = 2\ntrial_factors = [1.0]", Progress())
    assert found.measured.times is None
    assert "times" not in json.loads((found.folder / "results.json").read_text())["measured"]
    assert "planned time" not in found.report.read_text()


def some_training_times(longest_seconds: float, **fields: object) -> TrainingTimes:
    times = TrainingTimes(
        **{
            "planned_seconds": 300.0,
            "shortest": "resnet50",
            "shortest_seconds": 183.0,
            "longest": "resnet18",
            "longest_seconds": longest_seconds,
            "differ": longest_seconds > 1.15 * 183,
            "shorter_by_design": (),
            "sentence": "",
        }
        | fields
    )
    return changed(times, sentence=about_times(times, several_runs=True))


def with_times(longest_seconds: float) -> Conclusion:
    networks = (a_network("resnet18"), a_network("resnet50", rank=2, accuracy=0.88, epochs=4.0))
    conclusion = a_conclusion(some_results(networks=networks, minutes=5.0))
    times = some_training_times(longest_seconds)
    return changed(conclusion, measured=changed(conclusion.measured, times=times))


UNEQUAL = (
    "The training times were not the same: resnet18 trained for 10 min 29 s and resnet50 for"
    " 3 min 03 s (3.4 times; medians over runs), although 5 min 00 s were planned for each."
)


def test_both_figures_are_said_everywhere(tmp_path, capsys):
    conclusion = with_times(629.0)
    results, times = conclusion.results, conclusion.measured.times
    assert times.sentence == f"{UNEQUAL} {EQUAL_PASSES}"
    assert facts(results, times)[2].startswith(f"{UNEQUAL} The same for all networks: ")
    assert facts(results, times)[2].endswith("planned training time.")
    assert steps(results, "", times)[-1].words == EQUAL_PASSES
    assert UNEQUAL in latex(results, conclusion.made, times)
    assert "(5 minutes planned for each)" in latex(results, conclusion.made, times)
    ranking(conclusion, tmp_path, tmp_path / "report.html")
    assert UNEQUAL in capsys.readouterr().out


def test_nothing_is_said_first_of_times_that_agree(tmp_path, capsys):
    conclusion = with_times(200.0)
    results, times = conclusion.results, conclusion.measured.times
    assert times.sentence.startswith("Each network was given 5 min 00 s of training a run;")
    assert facts(results, times) == facts(results)
    assert steps(results, "", times) == steps(results)
    assert latex(results, conclusion.made, times) == latex(results, conclusion.made)
    ranking(conclusion, tmp_path, tmp_path / "report.html")
    assert "training times" not in capsys.readouterr().out


def test_results_made_before_say_what_they_said():
    conclusion = a_conclusion(some_results(minutes=5.0))
    values = conclusion.model_dump()
    assert "times" not in values["measured"]
    assert all("run_seconds" not in timed for timed in values["measured"]["networks"].values())
    assert Conclusion.model_validate(values) == conclusion
    assert facts(conclusion.results)[2].endswith(" and number of epochs.")


# Networks that hardly trained.


def ranked_after(epochs: float) -> Network:
    return a_network("resnet50", rank=2, accuracy=0.88, epochs=epochs)


@pytest.mark.parametrize(("epochs", "is_marked"), [(1.99, True), (2.0, False)])
def test_fewer_than_two_epochs_are_marked_in_the_ranking(epochs, is_marked, tmp_path, capsys):
    conclusion = a_conclusion(
        some_results(networks=(a_network("resnet18"), ranked_after(epochs)), minutes=5.0)
    )
    ranking(conclusion, tmp_path, tmp_path / "report.html")
    printed = capsys.readouterr().out
    assert ("2.  resnet50 *" in printed) is is_marked
    assert ("*   fewer than 2 epochs: " in printed) is is_marked
    assert "resnet18 *" not in printed
    assert ("resnet50 (fewer than 2 epochs)" in _plain(judged_html(conclusion.results))) is (
        is_marked
    )
    assert ("resnet50$^*$" in latex(conclusion.results, conclusion.made)) is is_marked


def test_only_a_ranked_network_is_marked():
    network = a_network("vgg19", epochs=0.4)
    assert network.barely_trained
    assert not changed(network, status="not_enough_time", rank=None).barely_trained


def _plain(html: str) -> str:
    return html.replace("<bdi>", "").replace("</bdi>", "")


def test_the_time_of_one_run_is_a_column():
    assert "run_seconds" in some_times(run_seconds=31.5).model_dump()
