"""The command that fetches weights: a real local server, files that are not what they should be, and params.yaml."""

import contextlib
import dataclasses
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from gan.features import weights as library
from gan.features.vgg16 import VGG16
from stages.config import load_section
from stages.config.reference import ReferenceConfig
from stages.reference._entry import record
from stages.reference.weights import main
from tests.gan.random_networks import inception_file, sha256

PROJECT = Path(__file__).parents[2]
ENTRY = {"name": "vgg16", "resize": "clean", "weights": "w.pth", "sha256": "a" * 64}


class Handler(http.server.BaseHTTPRequestHandler):
    """`/whole` gives all, `/cut` promises all and gives half, anything else is not there."""

    content = b""

    def do_GET(self) -> None:
        if self.path not in ("/whole", "/cut"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content if self.path == "/whole" else self.content[: len(self.content) // 2])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def server(content: bytes) -> Iterator[str]:
    handler = type("Given", (Handler,), {"content": content})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inception_file(tmp_path_factory.mktemp("w") / "i.pth")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the project's params.yaml; the state folder is `state` in it."""
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    return tmp_path


def known(monkeypatch: pytest.MonkeyPatch, url: str, prefix: str) -> None:
    """Address and digits of `inception_tf` for this test: random weights have others than the real ones."""
    source = dataclasses.replace(library.SOURCES["inception_tf"], url=url, prefix=prefix)
    monkeypatch.setitem(library.SOURCES, "inception_tf", source)


def kept(place: Path) -> list[str]:
    folder = place / "state" / "weights"
    return sorted(path.name for path in folder.iterdir() if path.name != "lock") if folder.is_dir() else []


def test_a_download_is_verified_kept_and_recorded(
    place: Path, inception: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(inception.read_bytes()) as address:
        known(monkeypatch, f"{address}/whole", sha256(inception)[:8])
        assert main(["inception_tf"]) == 0
    out, talk = capsys.readouterr()
    entry = json.loads(out)
    file = "pt_inception-2015-12-05-6726825d.pth"
    assert entry == {"name": "inception_tf", "resize": "legacy_tf", "weights": file, "sha256": sha256(inception)}
    assert kept(place) == [file] and sha256(place / "state" / "weights" / file) == sha256(inception)
    assert "added an entry of reference.published in params.yaml; its comments and layout are as they were" in talk
    section = load_section(ReferenceConfig, place / "params.yaml", "reference")
    assert [dataclasses.asdict(each) for each in section.published] == [entry]
    before, after = ((root / "params.yaml").read_text().splitlines() for root in (PROJECT, place))
    new = [line for line in after if line not in before]
    assert len(after) == len(before) + 1 and len(new) == 2 and "# further extractors" in new[0]
    assert main(["inception_tf", "--from", str(inception)]) == 0  # again, from a file
    assert (place / "params.yaml").read_text().splitlines() == after
    assert "names this file already" in capsys.readouterr().err


def test_what_goes_wrong_is_said_and_leaves_nothing_behind(
    place: Path, inception: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another file, a broken connection, no such page, nobody there, no network at all, a file that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/whole"
    before = (place / "params.yaml").read_bytes()
    offline = r"Without a network, bring that file from another machine and run `python -m stages.reference.weights in"
    half = len(inception.read_bytes()) // 2
    with server(inception.read_bytes()) as address:
        for url, prefix, message in (
            (
                f"{address}/whole",
                "6726825d",
                f"has SHA-256 {sha256(inception)}, but that of the published pt_inception",
            ),
            (f"{address}/cut", "", f"broke off after {half:,} of"),
            (f"{address}/other", "", "could not be fetched (Not Found)"),
            (nobody, "6726825d", "Connection refused"),
            ("http://weights.invalid/whole", "6726825d", offline),
        ):
            known(monkeypatch, url, prefix)
            assert main(["inception_tf"]) == 1, url
            out, talk = capsys.readouterr()
            assert out == "" and message in talk and url in talk and "Traceback" not in talk
    assert main(["inception_tf", "--from", "nowhere.pth"]) == 1
    talk = capsys.readouterr().err
    assert "nowhere.pth is not there" in talk and "pt_inception-2015-12-05-6726825d.pth from http" in talk
    assert kept(place) == [] and (place / "params.yaml").read_bytes() == before


def test_weights_of_another_network_are_refused(
    place: Path, inception: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dinov2_vitb14", "--from", str(inception)]) == 1
    said = capsys.readouterr().err
    assert f"{inception} does not hold the 174 tensors of dinov2_vitb14" in said and kept(place) == []
    state = {name: torch.zeros(1) for name in VGG16().state_dict()}
    torch.save(state, place / "v.pth")
    assert main(["dinov2_vitb14", "--from", "v.pth"]) == 1 and kept(place) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("published: []  # more\n", "published:  # more\n    - NEW\n"),
        ("published:\n  - OLD\n", "published:\n  - OLD\n  - NEW\n"),
        ("published:   # a\n    - OLD  # why\n    # b\n", "published:   # a\n    - OLD  # why\n    - NEW\n    # b\n"),
        ("published:\n    - SAME  # why\n    - OLD\n", "published:\n    - NEW  # why\n    - OLD\n"),
    ],
)  # fmt: skip
def test_an_entry_is_written_as_a_person_would(tmp_path: Path, before: str, after: str) -> None:
    old = "{name: vgg16, resize: legacy_tf, weights: o.pth, sha256: 'b'}"
    same = "{name: vgg16, resize: clean, weights: o.pth, sha256: 'c'}"
    new = f"{{name: vgg16, resize: clean, weights: w.pth, sha256: {'a' * 64}}}"
    frame = "# top\nother:\n  published: []\nreference:  # here\n  seed: 0\n  LIST  # end\n\ntrain:\n  published: []\n"
    texts = [
        frame.replace("LIST", text.replace("OLD", old).replace("SAME", same).replace("NEW", new))
        for text in (before, after)
    ]
    path = tmp_path / "params.yaml"
    path.write_text(texts[0])
    assert "comments and layout" in record(path, ENTRY)
    assert path.read_text() == texts[1]
    assert ENTRY in yaml.safe_load(path.read_text())["reference"]["published"]
    assert "nothing was changed" in record(path, ENTRY) and path.read_text() == texts[1]


@pytest.mark.parametrize(
    "text",
    [
        "reference:\n  published: [{name: vgg16, resize: legacy_tf, weights: a, sha256: b}]\n",
        "reference:\n  published:\n    - name: vgg16\n      resize: legacy_tf\n      weights: a\n      sha256: b\n",
        "reference: {published: []}\n",
        "reference:\n  seed: 1\n",
        "reference: [\n",
    ],
)
def test_a_list_that_it_cannot_edit_is_left_alone_and_the_line_is_given(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"by hand: - \{name: vgg16, resize: clean, weights: w.pth"):
        record(path, ENTRY)
    assert path.read_text() == text
