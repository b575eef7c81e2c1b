"""What a run looks like while it runs: phase, meters, and events as they come.

On a terminal one panel is redrawn in place; elsewhere (CI logs) each phase and event is one line.
A probe may have `live(record) -> Mapping[str, float] | None`: the meters that one of its records
moves, by name, such as `{"rank0 MB/s": 41.0}`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from chaos.experiment import Experiment

_PHASES = ("probes", "calm", "storm", "heal", "after")
_STYLE = {"storm": "bold red", "heal": "bold yellow", "calm": "bold green", "after": "bold cyan"}


class View:
    """Shows a run to a person.

    Args:
        experiment: For the promise and the probes' meters.
        console: Where to.
    """

    def __init__(self, experiment: Experiment, console: Console) -> None:
        self.experiment, self.console = experiment, console
        self._started = time.monotonic()
        self._phase, self._trial, self._kind = "fabric", 0, ""
        self._aim = ""
        self._meters: dict[str, float] = {}
        self._peaks: dict[str, float] = {}
        self._hits: dict[int, Mapping[str, Any]] = {}
        self._said: deque[Text] = deque(maxlen=12)
        self._live: Live | None = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self.console.print(f"[bold]{self.experiment.name}[/]  ", end="")
        self.console.print(self.experiment.promise, markup=False)
        if self.console.is_terminal:
            self._live = Live(self._panel(), console=self.console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._draw(force=True)
            self._live.stop()

    def step(self, text: str) -> None:
        """One step of bringing the fabric up or down."""
        self._line(Text(text, style="dim"))

    def tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        """One thing that happened, as `chaos.run` tells it."""
        handle = {
            "phase.entered": self._entered,
            "fault.aimed": self._aimed,
            "hits.counted": self._counted,
            "exposure.checked": lambda f: self._line(Text(str(f["sentence"]), style="yellow")),
            "fabric.noted": lambda f: self._line(Text(f"note: {f['sentence']}", style="yellow")),
            "calm.disturbed": self._disturbed,
            "storm.aborted": lambda f: self._line(
                Text(f"aborted: {f['sentence']}", style="bold red")
            ),
            "probe.restarted": self._restarted,
            "trial.judged": self._judged,
            "record.heard": self._heard,
        }.get(kind)
        if handle is not None:
            handle(facts)
        self._draw()

    def _entered(self, facts: Mapping[str, Any]) -> None:
        self._phase = str(facts["name"])
        self._trial = int(facts.get("trial", self._trial))
        if "placebo" in facts:
            self._kind = "placebo" if facts["placebo"] else "fault"
        if self._phase == "calm":
            self._aim, self._hits = "", {}
        of = self.experiment.trials + (self.experiment.placebos or 0)
        where = f"trial {self._trial}/{of} ({self._kind})  " if self._trial else ""
        if facts.get("attempt", 1) > 1:
            where += "again: "
        self._line(Text.assemble(where, (self._phase, _STYLE.get(self._phase, "bold"))))

    def _aimed(self, facts: Mapping[str, Any]) -> None:
        self._aim = str(facts["fault"])
        self._line(Text(f"aimed at {facts['element']}: {facts['fault']}"))

    def _counted(self, facts: Mapping[str, Any]) -> None:
        self._hits = dict(facts["hits"])

    def _restarted(self, facts: Mapping[str, Any]) -> None:
        text = f"{facts['label']} is started anew: its traffic avoids {facts['element']}"
        self._line(Text(text, style="yellow"))

    def _disturbed(self, facts: Mapping[str, Any]) -> None:
        for sentence in facts["sentences"]:
            self._line(Text(str(sentence), style="yellow"))

    def _judged(self, facts: Mapping[str, Any]) -> None:
        self._line(Text(f"trial {facts['number']}: {facts['verdict']}", style="bold"))

    def _heard(self, facts: Mapping[str, Any]) -> None:
        probe = self.experiment.probes[facts["label"]]
        meters = getattr(type(probe), "live", None)
        if meters is not None and (moved := meters(facts["record"])):
            for name, value in moved.items():
                self._meters[name] = value
                self._peaks[name] = max(value, self._peaks.get(name, 0.0))
        notices = getattr(type(probe), "notice", None)
        if notices is not None and (said := notices(facts["record"])):
            self._line(Text(said, style="magenta"))

    def _line(self, text: Text) -> None:
        stamp = Text(f"{time.monotonic() - self._started:7.2f} s  ", style="dim")
        line = Text.assemble(stamp, text)
        if self._live is None:
            self.console.print(line)
        else:
            self._said.append(line)
            self._draw()

    def _draw(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._live is not None and (force or now - self._drawn > 0.08):
            self._drawn = now
            self._live.update(self._panel(), refresh=True)

    def _panel(self) -> Panel:
        phases = Text("  ").join(
            Text(name, style=_STYLE.get(name, "bold") if name == self._phase else "dim")
            for name in _PHASES
        )
        meters = Table.grid(padding=(0, 1))
        for name, value in sorted(self._meters.items()):
            bar = ProgressBar(total=self._peaks[name] or 1.0, completed=value, width=30)
            meters.add_row(name, bar, f"{value:,.1f}")
        hits = sum(h["hit"] or 0 for h in self._hits.values())
        seen = sum(h["seen"] or 0 for h in self._hits.values())
        met = f"  seen {seen:,}, hit {hits:,}" if self._hits else ""
        head = Text.assemble(phases, f"   {self._kind} ", (self._aim, "red"), (met, "bold red"))
        title = f"{self.experiment.name}  trial {self._trial}" if self._trial else "starting"
        return Panel(Group(head, meters, *self._said), title=title, title_align="left")
