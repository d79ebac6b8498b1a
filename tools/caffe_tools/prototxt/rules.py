"""Which layers take part in a net: their include and exclude rules, and what to ask for where one is left out.

Source: Caffe src/caffe/net.cpp (``FilterNet``, ``StateMeetsRule``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from caffe_tools.prototxt.fields import Values
from caffe_tools.prototxt.layer_spec import PHASES


@dataclass(frozen=True)
class NetState:
    """What is asked for."""

    phase: str
    level: int
    stages: Sequence[str]


def takes_part(layer: Values, state: NetState) -> bool:
    """Whether a layer does, by the rules among its fields."""
    met = any(_meets(rule, state) for rule in layer.include or layer.exclude)
    return met if layer.include else not met


def _meets(rule: Values, state: NetState) -> bool:
    if rule.phase is not None and rule.phase != state.phase:
        return False
    if rule.min_level is not None and state.level < rule.min_level:
        return False
    if rule.max_level is not None and state.level > rule.max_level:
        return False
    stages = state.stages
    return all(stage in stages for stage in rule.stage) and not any(stage in stages for stage in rule.not_stage)


def how_to_take(layer: Values, state: NetState) -> str:
    """``in phase TRAIN alone: --phase TRAIN``: what would have to be asked for, that the layer takes part."""
    found = next((other for other in _near(layer, state) if takes_part(layer, other)), None)
    if found is None:
        return "in no phase"
    more = [stage for stage in found.stages if stage not in state.stages]
    less = [stage for stage in state.stages if stage not in found.stages]
    where, options = [], []
    if found.phase != state.phase:
        where.append(f"in phase {found.phase}")
        options.append(f"--phase {found.phase}")
    if found.level != state.level:
        where.append(f"at level {found.level}")
        options.append(f"--level {found.level}")
    if more:
        where.append(f"with stage {' and '.join(map(repr, more))}")
        options += [f"--stage {stage}" for stage in more]
    if less:
        where.append(f"without stage {' and '.join(map(repr, less))}")
        options.append("without " + " ".join(f"--stage {stage}" for stage in less))
    return f"{' '.join(where)} alone: {' '.join(options)}"


def _near(layer: Values, state: NetState) -> Iterator[NetState]:
    """States that the layer's rules speak of, those first that differ least from ``state``."""
    rules = [*layer.include, *layer.exclude]
    bounds = [bound for rule in rules for bound in (rule.min_level, rule.max_level) if bound is not None]
    levels = [state.level, *(bound + step for bound in bounds for step in (0, -1, 1))]
    wanted = [[stage for stage in rule.stage if stage not in state.stages] for rule in rules]
    barred = [stage for rule in rules for stage in (*rule.not_stage, *(rule.stage if layer.exclude else ()))]
    stages = [list(state.stages), *([*state.stages, *more] for more in wanted)]
    stages += [[stage for stage in those if stage not in barred] for those in stages]
    stages += [[*state.stages, stage] for rule in layer.exclude for stage in rule.not_stage]
    phases = sorted(PHASES, key=lambda phase: phase != state.phase)
    states = [NetState(*parts) for parts in product(phases, dict.fromkeys(levels), stages)]
    return iter(sorted(states, key=lambda other: _changes(state, other)))


def _changes(state: NetState, other: NetState) -> tuple[int, int]:
    """How much of a state another one changes: in all, and of its stages."""
    stages = len({*state.stages} ^ {*other.stages})
    return (state.phase != other.phase) + (state.level != other.level) + stages, stages
