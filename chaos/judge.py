"""Objectives against measures: findings and verdicts. Pure, and never vacuous.

The rules (worst finding wins; nothing checked is inconclusive; a crashed judge is inconclusive):

1. not proved in force, or never acted → inconclusive;
2. the measured traffic did not cross the faulted element → inconclusive, naming the path it took;
3. a measure without data is absent, and its objective inconclusive;
4. a calm that was not calm, or a probe in trouble → inconclusive;
5. anything left behind → fail;
6. several faults in one storm: each is proved by itself; what may be of several is nobody's, and
   its objective inconclusive (`chaos.apart`), yet no silence;
7. aborted → inconclusive: the fault was taken back before its time, so nothing that was measured in
   that trial counts for an objective, nor against it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from chaos import measures as compute
from chaos.objectives import (
    Bound,
    DetectedBy,
    FalseAlarms,
    Named,
    Objective,
    UndetectedBy,
    quantity,
)
from chaos.record import Finding, Proof, Trial
from chaos.timeline import Measure


class Verdict(enum.StrEnum):
    """How something ended, from best to worst."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"


_BEST_TO_WORST = tuple(Verdict)


def worst(verdicts: Iterable[str]) -> Verdict:
    """The verdict that stands for all of them; for none at all, inconclusive.

    Examples:
        >>> worst(["pass", "inconclusive"]), worst([])
        (<Verdict.INCONCLUSIVE: 'inconclusive'>, <Verdict.INCONCLUSIVE: 'inconclusive'>)
    """
    ranked = [Verdict.INCONCLUSIVE if v == "blocked" else Verdict(v) for v in verdicts]
    return max(ranked, key=_BEST_TO_WORST.index, default=Verdict.INCONCLUSIVE)


def _doubt(rule: str, sentence: str, trial: int) -> Finding:
    return Finding(sentence, rule, Verdict.INCONCLUSIVE, trial=trial)


def judge_trial(trial: Trial) -> Trial:
    """The trial with the findings of the rules, and its verdict."""
    number = trial.number
    found = [_doubt("trouble", sentence, number) for sentence in trial.trouble]
    if trial.aborted is not None:
        found.append(_doubt("abort", f"aborted: {trial.aborted['sentence']}", number))
    if trial.exposure.exposed is False:
        found.append(_doubt("exposure", trial.exposure.sentence, number))
    if trial.windows is None:  # nothing was broken, and nothing more to prove
        found = found or [_doubt("completeness", "the trial did not reach its end", number)]
    elif not trial.placebo:
        found += _proofs(trial.proof, number)
    found += [
        Finding(
            f"left behind: expected no trace, got {residue}", "residue", Verdict.FAIL, "", number
        )
        for residue in trial.proof.residue or ()
    ]
    if not found:
        what = "placebo: nothing was broken" if trial.placebo else _acted(trial.proof)
        found.append(Finding(what, "proof", Verdict.PASS, trial=number))
    return replace(trial, findings=tuple(found), verdict=worst(f.verdict for f in found))


def _acted(proof: Proof) -> str:
    acted = "" if proof.hit is None else f", acted {proof.hit} times"
    return f"the fault was in force{acted} and was taken back"


def _proofs(proof: Proof, number: int) -> list[Finding]:
    found = []
    if not proof.in_force:
        found.append(_doubt("in force", "the fault was not proved in force", number))
    for strike in dict.fromkeys(map(_strike, proof.changes)) or (None,):
        found += _acted_not(proof, strike, number)
    if proof.taken_back is False:
        cures = "; ".join(str(c["cure"]) for c in proof.changes if c.get("cure"))
        sentence = f"still in force after healing; cure: {cures or 'railbreak undo --all'}"
        found.append(Finding(sentence, "taken back", Verdict.FAIL, "", number))
    found += [_doubt("timing", sentence, number) for sentence in proof.late]
    return found


def _strike(change: Mapping[str, Any]) -> Any:
    """What tells the changes of one strike from those of another; older records have the fault."""
    return change.get("strike", change.get("fault"))


def _acted_not(proof: Proof, strike: Any, number: int) -> list[Finding]:
    """A doubt when none of one fault's changes acted; what cannot be counted is no doubt.

    Nor is it one where the measured traffic was not meant to meet it: an arrival elsewhere.
    """
    mine = [change for change in proof.changes if _strike(change) == strike]
    if mine and all(change.get("exposed") is False for change in mine):
        return []
    fault = mine[0].get("fault") if mine else None
    counts: list[Mapping[str, Any]] = [*mine] or [{"hit": proof.hit, "seen": proof.seen}]
    hits = [int(c["hit"]) for c in counts if c.get("hit") is not None]
    seen = [int(c["seen"]) for c in counts if c.get("seen") is not None]
    if not hits or sum(hits) > 0:
        return []
    met = f" ({sum(seen)} packets met it)" if seen else ""
    which = f" ({fault})" if fault and len(set(map(_strike, proof.changes))) > 1 else ""
    return [_doubt("acted", f"the fault{which} was in force but never acted{met}", number)]


def judge_run(
    objectives: Sequence[Objective], trials: Sequence[Trial]
) -> tuple[tuple[Finding, ...], tuple[Measure, ...], Verdict]:
    """Findings of a whole run, its measures over the fault trials, and its verdict."""
    real = [trial for trial in trials if not trial.placebo]
    counted = [trial for trial in real if trial.verdict == Verdict.PASS]
    combined = compute.over_trials([trial.measures for trial in (counted or real or trials)])
    found: list[Finding] = []
    for objective in objectives:
        try:
            found.append(_judged(objective, counted, trials))
        except Exception as error:  # a crashed judge is doubt, never a pass
            sentence = f"{objective.key}: the judge crashed: {error!r}"
            found.append(Finding(sentence, objective.key, Verdict.INCONCLUSIVE))
    if not objectives:
        found.append(Finding("no objective was given", "completeness", Verdict.INCONCLUSIVE))
    found += [f for trial in trials for f in trial.findings if f.verdict != Verdict.PASS]
    return tuple(found), combined, worst(finding.verdict for finding in found)


def _judged(objective: Objective, real: Sequence[Trial], trials: Sequence[Trial]) -> Finding:
    if isinstance(objective, FalseAlarms):
        return _false_alarms(objective, trials)
    if not real:
        sham = [trial for trial in trials if trial.placebo and trial.verdict == Verdict.PASS]
        if isinstance(objective, Bound) and sham and all(t.placebo for t in trials):
            return _bound(objective, sham)
        return _finding(objective, Verdict.INCONCLUSIVE, "no trial that counts")
    if isinstance(objective, Bound):
        return _bound(objective, real)
    if isinstance(objective, DetectedBy):
        return _detected(objective, real)
    if isinstance(objective, UndetectedBy):
        return _undetected(objective, real)
    return _named(objective, real)


def _finding(objective: Objective, verdict: Verdict, got: str) -> Finding:
    said = objective.sentence()
    return Finding(f"{said}, got {got}", said, verdict, objective.because)


def _values(name: str, trials: Sequence[Trial]) -> list[Measure]:
    return [m for trial in trials for m in trial.measures if m.name == name]


def _enough(objective: Bound | DetectedBy | Named, right: int, of: int) -> Verdict:
    return Verdict.PASS if 100 * right >= objective.share.value * of else Verdict.FAIL


def _bound(objective: Bound, trials: Sequence[Trial]) -> Finding:
    name = objective.measure
    found = _values(name, trials)
    absent = [m for m in found if m.value is None]
    if len(found) < len(trials) or absent:
        why = next((m.note for m in absent if m.note), "no probe measures it")
        missing = len(trials) - len(found) + len(absent)
        got = f"no data in {missing} of {len(trials)} trials ({why})"
        return _finding(objective, Verdict.INCONCLUSIVE, got)
    states = [_holds(objective, m) for m in found]
    right, unknown = states.count(True), states.count(None)
    verdict = _enough(objective, right, len(states))
    if verdict is Verdict.FAIL and unknown:
        possible = _enough(objective, right + unknown, len(states))
        verdict = Verdict.INCONCLUSIVE if possible is Verdict.PASS else Verdict.FAIL
    return _finding(objective, verdict, _spread(name, found))


def _holds(objective: Bound, measure: Measure) -> bool | None:
    """Whether one value keeps the bound; None when a censored value could still do either."""
    value = measure.value
    assert value is not None
    if measure.censored:  # the truth is at or beyond `value`
        if objective.at_most is not None:
            return False if value >= objective.at_most else None
        return True if value >= (objective.at_least or 0.0) else None
    over = objective.at_most is not None and value > objective.at_most
    under = objective.at_least is not None and value < objective.at_least
    return not (over or under)


def _spread(name: str, found: Sequence[Measure]) -> str:
    values = sorted(m.value for m in found if m.value is not None)
    censored = sum(m.censored for m in found)
    if len(values) == 1:
        more = "more than " if censored else ""
        return f"{more}{quantity(name, values[0])} in 1 trial"
    middle = compute.over_trials([[m] for m in found])[0]
    ends = f"{quantity(name, values[0])} to {quantity(name, values[-1])}"
    shown = f"median {quantity(name, middle.value or 0.0)} ({ends}) in {len(values)} trials"
    return shown + (f", {censored} of them not ended when observation ended" if censored else "")


def _detected(objective: DetectedBy, trials: Sequence[Trial]) -> Finding:
    found = _values(f"detection_{objective.detector}_ms", trials)
    if len(found) < len(trials):
        got = f"no probe listens for {objective.detector}"
        return _finding(objective, Verdict.INCONCLUSIVE, got)
    times = [m.value for m in found if m.value is not None]
    limit = objective.within
    right = [t for t in times if limit is None or t <= limit.ms]
    got = f"{len(times)} of {len(trials)} trials"
    got += f", at the latest after {max(times):.4g} ms" if times else ""
    blurred = [m for m in found if m.value is None and m.censored]
    verdict = _enough(objective, len(right), len(trials))
    if verdict is Verdict.FAIL and blurred:
        got += f"; {blurred[0].note}"
        possible = _enough(objective, len(right) + len(blurred), len(trials))
        verdict = Verdict.INCONCLUSIVE if possible is Verdict.PASS else Verdict.FAIL
    return _finding(objective, verdict, got)


def _undetected(objective: UndetectedBy, trials: Sequence[Trial]) -> Finding:
    heard, deaf = [], []
    for detector in objective.detectors:
        found = _values(f"detection_{detector}_ms", trials)
        if len(found) < len(trials):
            deaf.append(detector)
        heard += [f"{detector} after {m.value:.4g} ms" for m in found if m.value is not None]
        heard += [f"{detector}, {m.note}" for m in found if m.value is None and m.censored]
    if heard:
        return _finding(objective, Verdict.FAIL, ", ".join(heard))
    if deaf:
        got = f"no probe listens for {', '.join(deaf)}"
        return _finding(objective, Verdict.INCONCLUSIVE, got)
    return _finding(objective, Verdict.PASS, f"silence in {len(trials)} of {len(trials)} trials")


def _named(objective: Named, trials: Sequence[Trial]) -> Finding:
    found = _values("localisation_right_percent", trials)
    right = [m for m in found if m.value == 100.0]
    wrong = [m.note if m.value is not None else "nobody named any" for m in found if m not in right]
    got = f"right in {len(right)} of {len(trials)} trials"
    got += f" ({', '.join(sorted(set(wrong)))})" if wrong else ""
    return _finding(objective, _enough(objective, len(right), len(trials)), got)


def _false_alarms(objective: FalseAlarms, trials: Sequence[Trial]) -> Finding:
    placebos = [trial for trial in trials if trial.placebo]
    usable = [t for t in placebos if t.windows is not None and t.verdict == Verdict.PASS]
    if not usable:
        return _finding(objective, Verdict.INCONCLUSIVE, "no placebo trial that counts")
    raised = [e for t in usable if t.windows for e in compute.alarms(t.events, t.windows)]
    verdict = Verdict.PASS if len(raised) <= objective.at_most else Verdict.FAIL
    who = sorted({f"{e.detector} on {e.element or e.node}" for e in raised})
    bound = 100 * compute.failure_bound(len(usable))
    got = f"{len(raised)} in {len(usable)} placebo trials"
    got += f" ({', '.join(who)})" if who else f" (true rate below {bound:.1f} % at 95 %)"
    again = sum(bool(t.disturbed) for t in trials)
    got += f"; {again} calm phases were disturbed and repeated" if again else ""
    return _finding(objective, verdict, got)
