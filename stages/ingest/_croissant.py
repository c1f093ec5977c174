"""`croissant.json`: the store described in the MLCommons Croissant format 1.0, with its vocabulary for responsible AI.

It is made from the datasheet and the manifest alone: the same store gives the same bytes. The manifest is the record
set `images`, whose rows are in the order of the image shards.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from stages.common.files import write_json

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "equivalentProperty": "cr:equivalentProperty",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_MANIFEST = "manifest.parquet"
_WORDS = {
    "sha256": "SHA-256 of the encoded image, or of the array that it was read from.",
    "source": "Path of the image in the raw data.",
    "split": "train, fit (feature extractors) or heldout (scoring).",
    "label": "Index of the class in the list of classes; -1 without labels.",
    "class": "Name of the class.",
    "width": "Pixels of the source file.",
    "height": "Pixels of the source file.",
    "group": "Group of the image; a group is never divided between splits.",
}


def write_croissant(work: Path, info: dict[str, Any], schema: pa.Schema, digests: Mapping[str, str]) -> None:
    """Describe the store in folder `work`; `info` is its dataset.json, `schema` that of its manifest, `digests` the
    SHA-256 of its files by name."""
    sheet = info["datasheet"]
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": sheet["name"],
        "description": " ".join(sheet["composition"].split()),
        "url": sheet.get("url") or f"urn:sha256:{info['data_hash']}",
        "license": _licence(sheet),
        "creator": {"@type": "sc:Organization", "name": " ".join(sheet["contact"].split())},
        "version": sheet.get("version", "1.0.0"),
        "keywords": ["images", *info["classes"][:100]],
    }
    optional = {"citeAs": sheet.get("citation"), "datePublished": sheet.get("published")}
    described |= {key: " ".join(text.split()) for key, text in optional.items() if text}
    described |= {f"rai:{key}": text for key, text in _responsible(sheet).items() if text}
    described["distribution"] = _files(digests)
    described["recordSet"] = [_records(schema)]
    write_json(work / "croissant.json", described)


def _licence(sheet: dict[str, Any]) -> str:
    spdx = str(sheet["spdx"])
    return str(sheet["licence"]) if spdx.startswith("LicenseRef-") else f"https://spdx.org/licenses/{spdx}.html"


def _responsible(sheet: dict[str, Any]) -> dict[str, str]:
    """Fields of Croissant's vocabulary for responsible AI."""
    sensitive = sheet["sensitive_attributes"]
    if isinstance(sensitive, dict):
        sensitive = "; ".join(f"{name}: {text}" for name, text in sensitive.items())
    personal = (
        f"Personal data: {sheet['personal_data']}. Sensitive attributes: {sensitive}. Consent: {sheet['consent']}"
    )
    found = {
        "dataCollection": sheet["collection"],
        "dataUseCases": f"{sheet['motivation']} Allowed: {', '.join(sheet['allowed_use'])}.",
        "personalSensitiveInformation": personal,
        "dataLimitations": sheet.get("known_limits", ""),
        "dataAnnotationProtocol": sheet.get("labels", ""),
        "dataReleaseMaintenancePlan": f"Retention: {sheet['retention']}",
    }
    return {key: " ".join(str(text).split()) for key, text in found.items()}


def _files(digests: Mapping[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject", "@id": _MANIFEST, "name": _MANIFEST, "description": "One row per image.",
            "contentUrl": _MANIFEST, "encodingFormat": "application/x-parquet",
            "sha256": digests[_MANIFEST],
        }
    ]  # fmt: skip
    for name in sorted(name for name in digests if name.startswith("images-")):
        found.append(
            {
                "@type": "cr:FileObject", "@id": name, "name": name,
                "description": "Pixels, uint8 [n, height, width, channels], in the order of the manifest.",
                "contentUrl": name, "encodingFormat": "application/octet-stream", "sha256": digests[name],
            }
        )  # fmt: skip
    return found


def _records(schema: pa.Schema) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field", "@id": f"images/{quote(field.name, safe='')}", "name": field.name,
            "description": _WORDS.get(field.name, "Attribute of the image."),
            "dataType": "sc:Integer" if pa.types.is_integer(field.type) else "sc:Text",
            "source": {"fileObject": {"@id": _MANIFEST}, "extract": {"column": field.name}},
        }
        for field in schema
    ]  # fmt: skip
    return {
        "@type": "cr:RecordSet", "@id": "images", "name": "images", "description": "The images, in store order.",
        "key": {"@id": "images/sha256"}, "field": fields,
    }  # fmt: skip
