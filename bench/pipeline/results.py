"""Numbers by case, measure and contender, as ratios of neighbours in time, beside the targets."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

OURS = "replyline"
NODE = "node"
BEFORE = "before"


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio to Node (of other parts: to the smallest case), or a number itself, is to be."""

    case: str
    measure: str
    at_least: float | None = None
    at_most: float | None = None
    ratio: bool = True
    note: str = ""

    def said(self) -> str:
        """As it is printed."""
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        return f"{bound} {self.note}".strip()

    def met(self, number: float) -> bool:
        """Whether a number is on the right side."""
        if self.at_least is not None and number < self.at_least:
            return False
        return self.at_most is None or number <= self.at_most


@dataclass(slots=True)
class Results:
    """Samples in the order in which they were taken: the n-th of each contender are neighbours in time."""

    samples: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    """By case, measure, contender."""
    notes: list[str] = field(default_factory=list)

    def add(self, case: str, measure: str, contender: str, number: float) -> None:
        """Keep one number."""
        self.samples.setdefault(case, {}).setdefault(measure, {}).setdefault(contender, []).append(number)

    def middle(self, case: str, measure: str, contender: str) -> float | None:
        """The median; None where there is no sample."""
        numbers = self.samples.get(case, {}).get(measure, {}).get(contender)
        return median(numbers) if numbers else None

    def ratio(self, case: str, measure: str, contender: str, to: str) -> float | None:
        """The median of the ratios of neighbours; None where there are no two, or the other is 0."""
        by_contender = self.samples.get(case, {}).get(measure, {})
        pairs = list(zip(by_contender.get(contender, ()), by_contender.get(to, ()), strict=False))
        ratios = [one / other for one, other in pairs if other]
        return median(ratios) if ratios else None

    def as_json(self) -> dict[str, object]:
        """All of it."""
        return asdict(self)


def print_table(results: Results, contenders: Sequence[str], console: Console) -> None:
    """Every number, and what it is of the others'."""
    others = [name for name in contenders if name != OURS]
    for case, measures in results.samples.items():
        table = Table(case, *contenders, *(f"÷ {name}" for name in others), box=None, title_justify="left")
        table.columns[0].min_width = 44
        for column in table.columns[1:]:
            column.justify, column.min_width = "right", 10
        for measure in measures:
            middles = [_short(results.middle(case, measure, name)) for name in contenders]
            ratios = [_short(results.ratio(case, measure, OURS, name), ratio=True) for name in others]
            table.add_row(measure, *middles, *ratios)
        console.print(table)
        console.print()
    for note in results.notes:
        console.print(note, style="dim")


def print_targets(results: Results, targets: Sequence[Target], console: Console, *, to: str = NODE) -> int:
    """Each target beside what was measured; how many are missed. Those that were not measured are left out."""
    table = Table("target", "", "measured", "", box=None)
    missed = 0
    for target in targets:
        number = (
            results.ratio(target.case, target.measure, OURS, to)
            if target.ratio
            else results.middle(target.case, target.measure, OURS)
        )
        if number is None:
            continue
        met = target.met(number)
        missed += not met
        what = f"{target.measure}{f' ÷ {to}' if target.ratio else ''}, {target.case}"
        table.add_row(what, target.said(), f"{number:.2f}", "met" if met else "[bold]MISSED[/bold]")
    if table.row_count:
        console.print(table)
        console.print(f"{missed} of {table.row_count} targets missed" if missed else "all targets met")
    return missed


def _short(number: float | None, *, ratio: bool = False) -> str:
    if number is None:
        return ""
    if ratio or abs(number) < 100:
        return f"{number:.2f}"
    return f"{number:,.0f}"
