"""Predictions as annotations for ELAN (.eaf), with which researchers annotate video.

The format is EAF 3.0, https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf.
"""

from __future__ import annotations

import datetime
import mimetypes
import re
from pathlib import Path
from xml.etree import ElementTree

from skelact.structures import Prediction, SourceResult
from skelact.subtitles import of_the_file, who

SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_eaf(result: SourceResult) -> str:
    """A tier for each person and each pair, an annotation for each segment, ``unknown`` ones too."""
    document = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "skelact",
            "DATE": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": SCHEMA,
        },
    )
    header = ElementTree.SubElement(document, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    video = Path(result.source)
    if video.is_file():
        mime_type = mimetypes.guess_type(video.name)[0] or "video/mp4"
        url = video.resolve().as_uri()
        ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", {"MEDIA_URL": url, "MIME_TYPE": mime_type})
    last = ElementTree.SubElement(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"})
    last.text = str(len(result.predictions))
    shift_s = of_the_file(result)
    times = sorted({_ms(time + shift_s) for s in result.predictions for time in (s.start_s, s.stop_s)})
    order = ElementTree.SubElement(document, "TIME_ORDER")
    for time in times:
        ElementTree.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": f"ts{time}", "TIME_VALUE": str(time)})
    by_subject: dict[tuple[int, ...], list[Prediction]] = {}
    for segment in result.predictions:
        by_subject.setdefault(segment.track_ids, []).append(segment)
    number = 0
    for track_ids, segments in by_subject.items():
        tier = ElementTree.SubElement(document, "TIER", {"LINGUISTIC_TYPE_REF": "action", "TIER_ID": who(track_ids)})
        for segment in segments:
            number += 1
            annotation = ElementTree.SubElement(
                ElementTree.SubElement(tier, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                {
                    "ANNOTATION_ID": f"a{number}",
                    "TIME_SLOT_REF1": f"ts{_ms(segment.start_s + shift_s)}",
                    "TIME_SLOT_REF2": f"ts{_ms(segment.stop_s + shift_s)}",
                },
            )
            ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = NOT_XML.sub("\ufffd", segment.class_name)
    ElementTree.SubElement(
        document,
        "LINGUISTIC_TYPE",
        {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "action", "TIME_ALIGNABLE": "true"},
    )
    ElementTree.indent(document)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(document, encoding="unicode") + "\n"


def _ms(time_s: float) -> int:
    return round(time_s * 1000)
