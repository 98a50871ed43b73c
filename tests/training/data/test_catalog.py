"""Manifests and selections."""

from pathlib import Path

import pytest

from training.data.catalog import Catalog, DataError, classes, fingerprint


def test_selection_by_role_label_and_permission(clips: Path) -> None:
    catalog = Catalog.from_csv(clips)
    everything = catalog.select(roles=["source"], permissive=False)
    free = catalog.select(roles=["source"], permissive=True)
    assert (len(everything), len(free)) == (12, 10)
    assert all(clip.permissive for clip in free)
    noises = catalog.select(roles=["source"], labels=["hiss", "rumble"], permissive=True)
    sources = catalog.select(roles=["source"], without=["hiss", "rumble"], permissive=True)
    assert classes(noises) == ("hiss", "rumble")
    assert classes(sources) == ("buzz", "hum")
    assert set(noises) | set(sources) == set(free)
    closed = Catalog(tuple(clip for clip in catalog.clips if not clip.permissive))
    with pytest.raises(DataError, match=r"None of 2 clips of role source is permissive.*`data\.permissive=false`"):
        closed.select(roles=["source"], permissive=True)
    with pytest.raises(DataError, match="has the label hizz"):
        catalog.select(roles=["source"], labels=["hizz"], permissive=True)
    with pytest.raises(DataError, match="No clip of role machine"):
        catalog.select(roles=["machine"], permissive=True)


def test_bad_manifests_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data manifest"):
        Catalog.from_csv(tmp_path / "absent.csv")
    (tmp_path / "columns.csv").write_text("path,label\n")
    with pytest.raises(DataError, match=r"no column set, role, .*, permissive"):
        Catalog.from_csv(tmp_path / "columns.csv")
    (tmp_path / "absent.csv").write_text("path,set,role,label,licence,permissive\nnone.wav,s,source,hum,CC0,1\n")
    with pytest.raises(DataError, match=r"names 1 missing clips; the first ones are none\.wav"):
        Catalog.from_csv(tmp_path / "absent.csv")


def test_several_labels_are_parted_by_a_semicolon(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    listing = tmp_path / "manifest.csv"
    head = "path,set,role,label,licence,permissive\n"
    listing.write_text(f"{head}a.wav,s,source,pump; fan ;pump,CC0,1\n")
    catalog = Catalog.from_csv(listing)
    assert catalog.clips[0].labels == ("pump", "fan")
    assert classes(catalog.clips) == ("fan", "pump")
    assert catalog.select(roles=["source"], labels=["fan"], permissive=True) == catalog.clips
    with pytest.raises(DataError, match="is left"):
        catalog.select(roles=["source"], without=["fan"], permissive=True)
    listing.write_text(f"{head}a.wav,s,source, ,CC0,1\n")
    with pytest.raises(DataError, match=r"has no label for a\.wav"):
        Catalog.from_csv(listing)


def test_the_fingerprint_hangs_on_contents_and_labels_not_on_order(clips: Path) -> None:
    found = Catalog.from_csv(clips).clips
    contents = {clip.path: clip.name for clip in found}
    whole = fingerprint(found, contents)
    assert fingerprint(reversed(found), contents) == whole
    assert fingerprint(found[1:], contents) != whole
    assert fingerprint(found, contents | {found[0].path: "another"}) != whole
