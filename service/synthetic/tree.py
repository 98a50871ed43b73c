"""A DCASE Task 2 tree of synthetic clips."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from service.synthetic.machines import MACHINES, SAMPLE_RATE, Domain, Split

_README = """\
Synthetic machines, made by Offkey. No recording.

Every clip in this folder was computed from the physics of a fan, a gearbox, a pump or a motor bearing,
healthy or with a fault of known severity. The clips are for trying Offkey out and for testing it. They are
no evidence of how well it works on real machines.

Layout (DCASE Task 2):
<machine>/{train,test}/section_00_<domain>_<split>_<label>_<number>_speed_<rpm>_severity_<percent>.wav
<machine>/attributes_00.csv lists the attributes again.
"""


@dataclass(frozen=True)
class PlannedClip:
    """One clip of a tree, not yet synthesized.

    Attributes:
        machine_id: a key of `MACHINES`.
        split: `train` or `test`.
        domain: `source` or `target`.
        number: number of the clip within its split, domain and label, from 0.
        severity: severity of the fault, percent; 0 is healthy.
    """

    machine_id: str
    split: Split
    domain: Domain
    number: int
    severity: int

    @property
    def label(self) -> str:
        """`normal` or `anomaly`."""
        return "anomaly" if self.severity else "normal"

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes in the sense of DCASE: speed in rpm, severity in percent."""
        speed = MACHINES[self.machine_id].condition(self.domain).speed_rpm
        return {"speed": f"{speed:.0f}", "severity": str(self.severity)}

    @property
    def path(self) -> PurePosixPath:
        """Path of the file below the tree's root."""
        attributes = "_".join(f"{name}_{value}" for name, value in self.attributes.items())
        name = f"section_00_{self.domain}_{self.split}_{self.label}_{self.number:04d}_{attributes}.wav"
        return PurePosixPath(self.machine_id, self.split, name)


def plan_tree(
    machine_ids: Sequence[str] = tuple(MACHINES),
    *,
    train_source: int = 20,
    train_target: int = 5,
    test_each: int = 6,
    severities: Sequence[int] = (30, 60, 100),
) -> list[PlannedClip]:
    """List the clips of a tree.

    Args:
        machine_ids: keys of `MACHINES`.
        train_source: healthy clips for enrollment in the source domain, per machine.
        train_target: healthy clips for enrollment in the target domain, per machine.
        test_each: clips per machine, domain and label in the test split.
        severities: severities of the faulty clips in rotation, percents in (0, 100].

    Returns:
        The `train_source + train_target + 4 * test_each` clips per machine, in the order of their paths.

    Raises:
        ValueError: an unknown machine, a count below 0, or a severity outside (0, 100].
    """
    for machine_id in machine_ids:
        if machine_id not in MACHINES:
            raise ValueError(f"No synthetic machine {machine_id!r}. There are: {', '.join(MACHINES)}.")
    if min(train_source, train_target, test_each) < 0:
        raise ValueError(
            f"Counts of clips are 0 or more, got train_source={train_source}, train_target={train_target}, "
            f"test_each={test_each}."
        )
    if not severities or not all(0 < severity <= 100 for severity in severities):
        raise ValueError(f"Severities are percents above 0 and up to 100, at least one; got {severities}.")
    faulty = [severities[number % len(severities)] for number in range(test_each)]
    cells: list[tuple[Split, Domain, list[int]]] = [
        ("train", "source", [0] * train_source),
        ("train", "target", [0] * train_target),
        ("test", "source", [0] * test_each),
        ("test", "source", faulty),
        ("test", "target", [0] * test_each),
        ("test", "target", faulty),
    ]
    return [
        PlannedClip(machine_id, split, domain, number, severity)
        for machine_id in machine_ids
        for split, domain, cell in cells
        for number, severity in enumerate(cell)
    ]


def write_tree(
    root: Path,
    clips: Sequence[PlannedClip],
    *,
    seed: int = 0,
    on_written: Callable[[Path], None] | None = None,
) -> None:
    """Synthesize clips and write them as 16-bit WAV, with a README.txt about the tree.

    Existing files are overwritten. The header of each file states that it is synthetic.

    Args:
        root: root of the tree, created if absent.
        clips: clips to write, as returned by `plan_tree`.
        seed: seed of the whole tree, not negative.
        on_written: callback with the path of each clip after it is written.

    Raises:
        OSError: the folder or a file cannot be written.
    """
    import soundfile  # imported here, so that synthesis alone does not load libsndfile

    root.mkdir(parents=True, exist_ok=True)
    (root / "README.txt").write_text(_README, encoding="utf-8")
    for clip in clips:
        machine = MACHINES[clip.machine_id]
        samples = machine.clip(
            split=clip.split,
            domain=clip.domain,
            number=clip.number,
            severity=clip.severity / 100,
            seed=seed,
        )
        path = root / clip.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(path, "w", samplerate=SAMPLE_RATE, channels=1, subtype="PCM_16") as file:
            file.title = machine.title
            file.comment = "Synthetic, made by Offkey. No recording."
            file.write(samples)
        if on_written is not None:
            on_written(path)
    for machine_id in dict.fromkeys(clip.machine_id for clip in clips):
        _write_attributes(root / machine_id, [clip for clip in clips if clip.machine_id == machine_id])


def _write_attributes(folder: Path, clips: Iterable[PlannedClip]) -> None:
    with (folder / "attributes_00.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file_name", "d1p", "d1v", "d2p", "d2v"])
        for clip in clips:
            pairs = [text for pair in clip.attributes.items() for text in pair]
            rows.writerow([clip.path, *pairs])
