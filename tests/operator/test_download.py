"""A model comes from the hub onto the volume whole and checked, or what went wrong is told."""

from __future__ import annotations

import errno
import json
import shutil

import httpx2
import huggingface_hub.constants
import pytest
from safetensors import SafetensorError

from embedding.errors import DownloadError, InvalidInput, StartupError
from embedding.model.folder import CONFIG_NAME, GOLDEN_NAME, WEIGHTS_NAME, read_config
from embedding.model.weights import ModelSource, find_weights
from tests.model.folders import NO_OPEN_CLIP, TINY
from tests.model.hub import digest_of, running_hub, use_hub


pytest.importorskip("embedding.model.prepare", reason=NO_OPEN_CLIP)

from embedding.operator import download, hub
from embedding.operator.download import MARGIN_BYTES, Download
from tests.operator.models import write_model


REPO = "hf-hub:org/name"
pytestmark = pytest.mark.usefixtures("hub_of_one")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the hub's repository holds: the smallest model, and what no worker needs."""
    files = write_model(tmp_path_factory.mktemp("tiny"), TINY)
    return {**files, "tokenizer_config.json": b"{}", "model.safetensors": b"timm's", "README.md": b"Hello"}


@pytest.fixture
def hub_of_one(files, monkeypatch, request):
    """A hub that this process is told to use."""
    with running_hub(getattr(request, "param", "org/name")) as server:
        use_hub(server, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/nowhere")
        server.files = dict(files)
        yield server


@pytest.fixture
def root(tmp_path):
    """The folder for models on a mounted volume."""
    return tmp_path / "models"


def fetch(root, model=REPO, pretrained="", phases=None):
    """Download *model*."""
    told = (lambda phase, *_: phases.append(phase)) if phases is not None else (lambda *_: None)
    return Download(model, pretrained, root, told).run()


def refusal(root, **options):
    """Return the error that a download ends in."""
    with pytest.raises(DownloadError) as fault:
        fetch(root, **options)
    assert str(root) not in fault.value.message and "127.0.0.1" not in fault.value.message
    return fault.value


def part_of(root, content):
    """Return where what came of *content* is kept."""
    blobs = root / ".download" / "work" / "org--name" / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    return blobs / f"{digest_of(content)}.part"


class TestModels:
    def test_a_repository(self, hub_of_one, root, files):
        """What is needed is fetched once, and the folder is what a worker finds; nothing else stays."""
        phases = []
        outcome = fetch(root, phases=phases)

        found = find_weights(ModelSource(model_name=REPO, roots=(root,), allow_download=False))
        needed = [CONFIG_NAME, "tokenizer_config.json", WEIGHTS_NAME]
        assert sorted(hub_of_one.fetched) == sorted(needed)
        assert (outcome.folder, outcome.status, found.path) == ("org--name", "downloaded", root / "org--name")
        assert (outcome.fetched_bytes, outcome.resumed_bytes) == (sum(len(files[name]) for name in needed), 0)
        assert list(dict.fromkeys(phases)) == ["downloading", "preparing"]
        assert list(root.glob(".download/*/*")) == []

    @pytest.mark.usefixtures("tiny_models")
    @pytest.mark.parametrize("hub_of_one", ["timm/vit_base_patch32_clip_224.openai"], indirect=True)
    @pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B/32"])
    def test_a_tag(self, root, name):
        """A name and tag of open_clip are served under the same name and tag."""
        outcome = fetch(root, model=name, pretrained="openai")

        source = ModelSource(model_name=name, pretrained="openai", roots=(root,), allow_download=False)
        found = find_weights(source)
        assert (outcome.folder, found.path) == ("ViT-B-32--openai", root / "ViT-B-32--openai")
        assert read_config(found.path).model_cfg["quick_gelu"] is True

    def test_one_in_the_place_of_another(self, root):
        """A folder that says it is another model is not served under this one's name."""
        fetch(root)
        (root / "org--name").rename(root / "ViT-B-32--openai")
        source = ModelSource(
            model_name="ViT-B-32", pretrained="openai", roots=(root,), hub_caches=(), allow_download=False
        )

        with pytest.raises(StartupError, match=r"is not (under MODEL_ROOTS|on this machine)"):
            find_weights(source)

    def test_twice(self, hub_of_one, root):
        """A folder that is there is checked and left as it is, without a request."""
        fetch(root)
        before, asked = (root / "org--name" / WEIGHTS_NAME).stat(), len(hub_of_one.fetched)
        hub_of_one.refusal = 500, {}
        phases = []

        outcome = fetch(root, phases=phases)

        assert (outcome.status, outcome.fetched_bytes, phases) == ("present", 0, ["verifying"])
        assert (root / "org--name" / WEIGHTS_NAME).stat() == before
        assert len(hub_of_one.fetched) == asked

    def test_moved_and_not_cleared(self, root):
        """What is left of a worker that was killed at the very end is cleared away by the next."""
        fetch(root)
        part_of(root, b"x").touch()

        assert fetch(root).status == "present"
        assert list(root.glob(".download/*/*")) == []

    def test_prepared_and_not_moved(self, root):
        """What was half prepared when a worker was killed is cleared away."""
        fetch(root)
        work = root / ".download" / "work" / "org--name"
        work.mkdir()
        (root / "org--name").rename(work / "made.0")
        (work / ".made.0.left").mkdir()

        assert fetch(root).status == "downloaded"
        assert list(root.glob(".download/*/*")) == []


class TestResuming:
    @pytest.mark.parametrize("share", [0, 0.5, 1])
    def test_from_where_it_was(self, hub_of_one, root, files, share):
        """Only what is not there yet is asked for."""
        content = files[WEIGHTS_NAME]
        there = int(len(content) * share)
        part_of(root, content).write_bytes(content[:there])

        outcome = fetch(root)

        starts = [sent.start for sent in hub_of_one.sent_of(WEIGHTS_NAME)]
        assert starts == ([there] if share < 1 else [])
        assert outcome.resumed_bytes == there

    @pytest.mark.parametrize("extra", [b"", b"x"], ids=["altered", "too long"])
    def test_what_was_damaged_meanwhile(self, hub_of_one, root, files, extra):
        """What the volume altered since is noticed: it is fetched anew, at the latest by the next try."""
        content = files[WEIGHTS_NAME]
        part_of(root, content).write_bytes(bytes(len(content)) + extra)
        if not extra:
            assert "checksum" in refusal(root).message

        assert fetch(root).status == "downloaded"
        assert [sent.start for sent in hub_of_one.sent_of(WEIGHTS_NAME)] == [0]

    def test_verified_and_damaged_later(self, root, files):
        """So it is for a file that was whole when it came."""
        content = files[WEIGHTS_NAME]
        part_of(root, content).with_suffix("").write_bytes(b"x" * len(content))

        assert "checksum" in refusal(root).message
        assert fetch(root).status == "downloaded"

    def test_a_hub_that_knows_no_ranges(self, hub_of_one, root, files):
        """One that sends the whole file all the same is understood."""
        content = files[WEIGHTS_NAME]
        part_of(root, content).write_bytes(b"x" * 1000)
        hub_of_one.knows_ranges = False

        assert fetch(root).status == "downloaded"


class TestTwo:
    def test_a_holder_that_was_too_slow(self, root, monkeypatch):
        """One whose lease was taken stops, waits for the other, and finds what the other made."""
        fetch_all, others = download.fetch, []

        def robbed(*arguments):
            if not others:
                lease = root / ".download" / "leases" / "org--name"
                others.append(lease.read_text())
                lease.unlink()
                others.append(fetch(root).status)
            return fetch_all(*arguments)

        monkeypatch.setattr(download, "fetch", robbed)

        assert fetch(root).status == "present"
        assert others[1:] == ["downloaded"]
        assert list(root.glob(".download/*/*")) == []


class TestChecksums:
    @pytest.mark.parametrize("name", [WEIGHTS_NAME, CONFIG_NAME])
    def test_wrong(self, hub_of_one, root, files, name):
        """A file that is not what the hub says it is, is refused and deleted, and the next try is clean."""
        hub_of_one.altered[name] = b"x" * len(files[name])
        fault = refusal(root)

        assert (fault.message, fault.retryable) == (
            f"{name} of org/name has not the checksum that the hub tells; it was deleted: try again",
            True,
        )
        assert not (root / "org--name").exists()
        assert not part_of(root, files[name]).exists()
        hub_of_one.altered.clear()
        assert fetch(root).status == "downloaded"

    def test_the_hub_is_not_asked_again(self, hub_of_one, root, monkeypatch):
        """What open_clip reads is what was compared, though the hub has other files by then."""
        prepared = Download._prepare

        def after_a_change(self):
            hub_of_one.files = {CONFIG_NAME: b"{}", WEIGHTS_NAME: b"x" * 50_000}
            hub_of_one.fetched.clear()
            prepared(self)

        monkeypatch.setattr(Download, "_prepare", after_a_change)

        assert fetch(root).status == "downloaded"
        assert hub_of_one.fetched == []
        assert huggingface_hub.constants.HF_HUB_OFFLINE is False

    @pytest.mark.parametrize("name", ["hf_tokenizer_name", "hf_model_name"])
    def test_other_repositories(self, hub_of_one, root, files, name):
        """What the text tower needs of another repository comes the same way, or is told."""
        config = json.loads(files[CONFIG_NAME])
        config["model_cfg"]["text_cfg"][name] = "org/words"
        hub_of_one.files[CONFIG_NAME] = json.dumps(config).encode()

        assert refusal(root).message == "the hub answered 404 for org/words; what came is kept"

    def test_parts_that_nobody_wants(self, hub_of_one, root):
        """What came of files that the hub has replaced since goes, before room is asked for."""
        old = part_of(root, b"an older config")
        old.write_bytes(b"an older")
        hub_of_one.claimed_bytes = 10**15
        refusal(root)

        assert not old.exists()


class TestRoom:
    def test_too_small(self, hub_of_one, root):
        """A volume without the room is refused before anything comes, and both numbers are told."""
        hub_of_one.claimed_bytes = 10**15
        fault = refusal(root)

        assert fault.message.startswith(
            f"the volume is too small: {4 * 10**15 + MARGIN_BYTES} bytes are needed"
        )
        assert "bytes are free" not in fault.message and fault.message.endswith(" are free")
        assert (hub_of_one.fetched, fault.retryable) == ([], False)

    @pytest.mark.parametrize("missing", [-1, 0, 1])
    def test_to_the_byte(self, root, files, monkeypatch, missing):
        """Room is needed for what is to come, and for the folder that is made of it."""
        needed = [files[name] for name in (CONFIG_NAME, "tokenizer_config.json", WEIGHTS_NAME)]
        size = sum(map(len, needed)) + len(files[WEIGHTS_NAME]) + MARGIN_BYTES
        usage = shutil.disk_usage(root.parent)._replace(free=size - missing)
        monkeypatch.setattr(download.shutil, "disk_usage", lambda _path: usage)

        if missing <= 0:
            assert fetch(root).status == "downloaded"
        else:
            assert refusal(root).message.endswith(f", {size - 1} are free")

    def test_full_meanwhile(self, root, monkeypatch):
        """A volume that others fill is told so."""

        def full(*_arguments, **_options):
            raise OSError(errno.ENOSPC, "No space left on device", str(root))

        monkeypatch.setattr(hub, "http_get", full)

        assert refusal(root).message == "the volume is full"

    @pytest.mark.parametrize(
        "fault", [OSError(errno.EDQUOT, "Quota"), SafetensorError("I/O error: (os error 28)")]
    )
    def test_full_while_it_is_prepared(self, root, monkeypatch, fault):
        """So it is where there is no room for the folder that is made."""

        def full(*_arguments, **_options):
            raise fault

        monkeypatch.setattr("embedding.model.prepare.save_file", full)

        assert refusal(root).message.startswith("the volume is too small: no room is left to make org--name")

    def test_no_volume(self, root):
        """Without a volume nothing is put onto the container's own disk in its place."""
        assert refusal(root / "runpod-volume" / "models").message.startswith("no volume is mounted")
        assert not (root / "runpod-volume").exists()


class TestHub:
    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            (
                (404, {"X-Error-Code": "RepoNotFound"}),
                ("org/name does not exist on the hub, or HF_TOKEN may not read it", False),
            ),
            (
                (403, {"X-Error-Code": "GatedRepo"}),
                ("org/name is gated; accept its terms and set HF_TOKEN", False),
            ),
            ((403, {}), ("the hub answered 403 for org/name; what came is kept", False)),
            ((400, {}), ("the hub answered 400 for org/name; what came is kept", True)),
        ],
    )
    def test_refusals(self, hub_of_one, root, answer, told):
        """Each answer of the hub is told with what to do."""
        hub_of_one.refusal = answer
        fault = refusal(root)

        assert (fault.message, fault.retryable) == told

    @pytest.mark.parametrize(
        "fault",
        [
            ValueError("File is too large"),
            httpx2.InvalidURL("http://10.0.0.5:8080/secret"),
            json.JSONDecodeError("x", "y", 0),
            RuntimeError("Cannot send a request to http://10.1.1.1"),
        ],
        ids=lambda fault: type(fault).__name__,
    )
    def test_faults_of_its_client(self, root, monkeypatch, fault):
        """Whatever the hub's client raises is told without what it says."""

        def bad(*_arguments, **_options):
            raise fault

        monkeypatch.setattr(hub, "http_get", bad)

        assert refusal(root).message.startswith("the hub's client fails on org/name; the worker's log says")

    def test_away(self, hub_of_one, root):
        """A hub that is not there is worth another try."""
        hub_of_one.shutdown()
        hub_of_one.server_close()
        fault = refusal(root)

        assert fault.message.startswith("the hub cannot be reached, or breaks off, for org/name")
        assert fault.retryable

    @pytest.mark.usefixtures("no_network")
    def test_offline(self, root):
        """Where the operator keeps the worker offline, it stays so."""
        assert refusal(root).message == "HF_HUB_OFFLINE is set: nothing may be downloaded"

    @pytest.mark.parametrize(
        "files_", [{}, {CONFIG_NAME: b"{}"}, {"model.safetensors": b"", "config.json": b"{}"}]
    )
    def test_no_weights(self, hub_of_one, root, files_):
        """A repository in another format is said to be so."""
        hub_of_one.files = files_

        assert refusal(root).message == "org/name holds no weights in a format that open_clip reads"

    def test_weights_that_fit_nothing(self, hub_of_one, root):
        """What open_clip cannot load is said so, without its paths, and leaves no folder."""
        hub_of_one.files = {CONFIG_NAME: b"{}", WEIGHTS_NAME: b"x"}

        assert refusal(root).message == "open_clip could not make a folder of org--name; the log says why"
        assert not (root / "org--name").exists()


class TestFolderThatIsThere:
    def test_of_another_model(self, root):
        """A folder of that name with anything else is not touched."""
        (root / "org--name").mkdir(parents=True)
        (root / "org--name" / "thesis.tex").touch()

        told = "org--name is there, and is not this model; remove it from the volume"
        assert refusal(root).message == told

    def test_damaged(self, root):
        """Nor is one whose weights are not those that its golden vectors were made with."""
        fetch(root)
        golden = root / "org--name" / GOLDEN_NAME
        golden.write_text(json.dumps({**json.loads(golden.read_text()), "weights_sha256": "0"}))

        assert refusal(root).message == "org--name is there, and damaged; remove it from the volume"

    def test_that_cannot_be_read(self, root):
        """One that cannot be read is told without its path."""
        fetch(root)
        (root / "org--name" / WEIGHTS_NAME).unlink()
        (root / "org--name" / WEIGHTS_NAME).mkdir()

        assert refusal(root).message == "the volume cannot be read; the worker's log says why"

    def test_of_a_repository_named_like_a_model(self, root):
        """A repository whose folder would be that of a model of open_clip is refused."""
        with pytest.raises(InvalidInput, match="ViT-B-32/openai would have the folder of a model"):
            fetch(root, model="hf-hub:ViT-B-32/openai")

    def test_empty(self, root):
        """An empty one is filled."""
        (root / "org--name").mkdir(parents=True)

        assert fetch(root).status == "downloaded"
