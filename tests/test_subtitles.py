"""Segments as other programs read them: subtitles and ELAN's annotations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from skelact.elan import to_eaf
from skelact.structures import PoseSequence, Prediction, SourceResult, VideoInfo
from skelact.subtitles import clock, to_srt, to_vtt


def segment(start_s: float, stop_s: float, class_name: str, *track_ids: int) -> Prediction:
    return Prediction(
        start_s, stop_s, track_ids, class_name, 0.9, ((class_name, 0.9),), np.array([0.9, 0.1]), ("a", "b")
    )


RESULT = SourceResult(
    "a.mp4",
    predictions=(
        segment(0.0, 2.5, "walk", 1),
        segment(1.0, 4.0, 'say "<b>hi</b>" & wave --> leave', 2),
        segment(2.5, 4.0, "unknown", 1),
        segment(3661.0, 3662.25, "shake\nhands", 1, 2),
    ),
)


def test_srt_has_one_cue_at_a_time() -> None:
    assert to_srt(RESULT) == (
        "1\n00:00:00,000 --> 00:00:01,000\nPerson 1: walk\n\n"
        '2\n00:00:01,000 --> 00:00:02,500\nPerson 1: walk\nPerson 2: say "‹b›hi‹/b›" & wave → leave\n\n'
        '3\n00:00:02,500 --> 00:00:04,000\nPerson 2: say "‹b›hi‹/b›" & wave → leave\n\n'
        "4\n01:01:01,000 --> 01:01:02,250\nPersons 1, 2: shake hands\n\n"
    )


def test_times_that_differ_by_less_than_a_millisecond_make_no_cue() -> None:
    times = [segment(0.0, 12 * 0.1, "walk", 1), segment(36 / 30, 2.0, "run", 2)]
    assert [line for line in to_srt(SourceResult("a.mp4", predictions=tuple(times))).splitlines() if "-->" in line] == [
        "00:00:00,000 --> 00:00:01,200",
        "00:00:01,200 --> 00:00:02,000",
    ]


def test_vtt_has_a_cue_for_each_segment() -> None:
    assert to_vtt(RESULT) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:02.500\n<v Person 1>walk\n\n"
        '00:00:01.000 --> 00:00:04.000\n<v Person 2>say "&lt;b&gt;hi&lt;/b&gt;" &amp; wave → leave\n\n'
        "01:01:01.000 --> 01:01:02.250\n<v Persons 1, 2>shake hands\n"
    )


def test_cues_come_by_the_time_at_which_they_start() -> None:
    """Whoever is told of first: players that stream take them as they come."""
    backwards = replace(RESULT, predictions=RESULT.predictions[::-1])
    assert to_vtt(backwards) == to_vtt(RESULT)


def test_times_count_from_the_start_of_the_file_as_players_do() -> None:
    """Where the sound begins 2.5 s before the first picture."""
    info = VideoInfo("a.mp4", (360, 640), 30.0, 60, start_s=2.5)
    sequence = PoseSequence(info, (), 60, "coco", np.arange(60) / 30)
    result = SourceResult("a.mp4", sequence, (segment(0.5, 1.25, "walk", 1),))
    assert to_srt(result) == "1\n00:00:03,000 --> 00:00:03,750\nPerson 1: walk\n\n"
    assert "00:00:03.000 --> 00:00:03.750\n" in to_vtt(result)
    slots = ElementTree.fromstring(to_eaf(result)).iter("TIME_SLOT")
    assert [slot.get("TIME_VALUE") for slot in slots] == ["3000", "3750"]


def test_nothing_to_tell_is_an_empty_file() -> None:
    nothing = SourceResult("a.mp4")
    assert (to_srt(nothing), to_vtt(nothing)) == ("", "WEBVTT\n")


def test_a_clock_does_not_round_to_sixty_seconds() -> None:
    assert [clock(time_s) for time_s in (59.9996, 0.0004, 3599.9999)] == [
        "00:01:00.000",
        "00:00:00.000",
        "01:00:00.000",
    ]


def test_eaf_has_a_tier_for_each_person_and_pair(tmp_path: Path) -> None:
    (tmp_path / "ä b.mp4").touch()
    result = SourceResult(
        str(tmp_path / "ä b.mp4"), predictions=(*RESULT.predictions, segment(5, 6, "\x00bell\x07", 2))
    )
    document = ElementTree.fromstring(to_eaf(result))
    assert document.tag == "ANNOTATION_DOCUMENT"
    assert [child.tag for child in document] == ["HEADER", "TIME_ORDER", "TIER", "TIER", "TIER", "LINGUISTIC_TYPE"]
    media = document.find("HEADER/MEDIA_DESCRIPTOR")
    assert media is not None
    assert media.get("MEDIA_URL", "").endswith("/%C3%A4%20b.mp4")
    assert media.get("MIME_TYPE") == "video/mp4"
    times = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE", "")) for slot in document.iter("TIME_SLOT")}
    assert list(times.values()) == sorted(times.values())
    told = {}
    for tier in document.iter("TIER"):
        assert tier.get("LINGUISTIC_TYPE_REF") == "action"
        told[tier.get("TIER_ID")] = [
            (times[own.get("TIME_SLOT_REF1")], times[own.get("TIME_SLOT_REF2")], own.findtext("ANNOTATION_VALUE"))
            for own in tier.iter("ALIGNABLE_ANNOTATION")
        ]
    assert told == {
        "Person 1": [(0, 2500, "walk"), (2500, 4000, "unknown")],
        "Person 2": [(1000, 4000, 'say "<b>hi</b>" & wave --> leave'), (5000, 6000, "�bell�")],
        "Persons 1, 2": [(3661000, 3662250, "shake\nhands")],
    }
    names = [own.get("ANNOTATION_ID") for own in document.iter("ALIGNABLE_ANNOTATION")]
    assert len(set(names)) == 5


def test_a_library_for_elan_reads_it(tmp_path: Path) -> None:
    elan = pytest.importorskip("pympi.Elan", reason="needs pympi-ling")
    path = tmp_path / "a.eaf"
    path.write_text(to_eaf(RESULT), encoding="utf-8")
    read = elan.Eaf(str(path))
    assert list(read.get_tier_names()) == ["Person 1", "Person 2", "Persons 1, 2"]
    assert read.get_annotation_data_for_tier("Person 1") == [(0, 2500, "walk"), (2500, 4000, "unknown")]
