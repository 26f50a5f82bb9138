"""`python -m embedding prepare` makes a whole folder or none, and says what it did."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from embedding.__main__ import main
from embedding.errors import StartupError
from embedding.model.folder import CONFIG_NAME, GOLDEN_NAME, WEIGHTS_NAME, read_config
from embedding.model.golden import check_golden
from embedding.model.loader import load_model
from embedding.model.weights import ModelSource, find_weights
from tests.model.folders import NO_OPEN_CLIP, TINY, random_model, write_folder


ROOT = Path(__file__).parents[2]

prepare_module = pytest.importorskip("embedding.model.prepare", reason=NO_OPEN_CLIP)
prepare = prepare_module.prepare


@pytest.fixture
def checkpoint(tmp_path):
    """A pickled checkpoint of the tiny model."""
    torch.save(random_model(TINY).state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def test_a_model_of_the_list(tmp_path, capsys):
    """From the command line to vectors: the folder is whole, served by name, and passes its own check."""
    out = tmp_path / "models" / "ViT-S-32-alt--random"

    status = main(["prepare", "--model", "ViT-S-32-alt", "--pretrained", "random", "--out", str(out)])

    folder = find_weights(ModelSource(model_name="ViT-S-32-alt", pretrained="random", roots=(out.parent,)))
    model = load_model(folder, device="cpu", precision="fp32")
    assert status == 0
    assert sorted(file.name for file in out.iterdir()) == sorted([CONFIG_NAME, GOLDEN_NAME, WEIGHTS_NAME])
    assert check_golden(model) >= 0.99999
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("loading ViT-S-32-alt random with open_clip 3.")
    assert printed[-1] == f"86 MB of weights, fingerprint {model.identity.fingerprint}"


@pytest.mark.usefixtures("tiny_models")
@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("fp32", torch.float32)])
def test_precision(tmp_path, precision, dtype):
    """The weights are all in the precision asked for, and the config says what made them."""
    prepare("tiny", "random", tmp_path / "out", precision=precision)

    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / WEIGHTS_NAME).values()} == {dtype}
    expected = {"model_name": "tiny", "pretrained": "random", "precision": precision}
    assert read_config(tmp_path / "out").source == expected


@pytest.mark.usefixtures("tiny_models")
def test_readable_by_others(tmp_path):
    """A container that runs as another user can read the folder."""
    prepare("tiny", "random", tmp_path / "out")

    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "out").iterdir()} == {0o644}


@pytest.mark.usefixtures("tiny_models")
def test_twice(tmp_path, capsys):
    """The second time nothing is done, and that is said."""
    prepare("tiny", "random", tmp_path / "out")
    before = (tmp_path / "out" / WEIGHTS_NAME).stat()

    prepare("tiny", "random", tmp_path / "out")

    assert (tmp_path / "out" / WEIGHTS_NAME).stat() == before
    assert "is prepared already" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_models")
def test_into_an_empty_folder(tmp_path):
    """A folder that is there but empty, such as a fresh mount, is filled."""
    (tmp_path / "out").mkdir()

    prepare("tiny", "random", tmp_path / "out")

    assert (tmp_path / "out" / WEIGHTS_NAME).exists()


@pytest.mark.usefixtures("tiny_models", "no_network")
class TestActivation:
    @pytest.mark.parametrize(
        ("name", "tag", "quick_gelu"),
        [("ViT-B-32", "openai", True), ("ViT-B-32", "laion2b_s34b_b79k", None), ("ViT-B-32", "mine", None)],
    )
    def test_follows_the_weights(self, tmp_path, checkpoint, name, tag, quick_gelu):
        """Weights trained with QuickGELU are written so, even under a plain model name."""
        folder = prepare(name, tag, tmp_path / "out", weights=checkpoint)

        assert read_config(folder.path).model_cfg.get("quick_gelu") is quick_gelu
        assert check_golden(load_model(folder, device="cpu", precision="fp32")) >= 0.99999

    def test_of_a_cached_repository(self, tmp_path):
        """A cached repository whose config denies its tag's activation is prepared once, rightly."""
        cached = tmp_path / "hub" / "models--timm--vit_base_patch32_clip_224.openai"
        write_folder(cached / "snapshots" / "c0ffee", TINY)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("c0ffee")
        source = ModelSource(model_name="ViT-B-32", pretrained="openai", roots=(), hub_caches=())

        found = find_weights(source)

        assert found.path == tmp_path / "assets" / "clip-embedding-worker" / "ViT-B-32--openai"
        assert read_config(found.path).model_cfg["quick_gelu"] is True
        shutil.rmtree(cached)
        assert find_weights(source) == found


@pytest.mark.usefixtures("no_network")
class TestFaultsOfNames:
    @pytest.mark.parametrize(
        ("model", "tag", "message"),
        [
            ("ViT-B32", "openai", "error: ViT-B32 is not a model of open_clip; did you mean "),
            ("ViT-B32", "random", "error: ViT-B32 is not a model of open_clip; did you mean "),
            ("ViT-B-32", "opnai", "error: model ViT-B-32 has no tag opnai; its tags: openai, "),
            (
                "ViT-B-32",
                "",
                "error: model ViT-B-32 needs a tag (CLIP_PRETRAINED, --pretrained); its tags: ",
            ),
            (
                "ViT-B-32",
                "openai",
                "error: open_clip cannot load ViT-B-32 openai: Failed to download weights",
            ),
            ("hf-hub:org/name", "", "error: open_clip cannot load hf-hub:org/name : Failed initial config"),
        ],
    )
    def test_names(self, tmp_path, capsys, model, tag, message):
        """A wrong name, a wrong tag or no network end in one line and exit status 1."""
        status = main(["prepare", "--model", model, "--pretrained", tag, "--out", str(tmp_path / "out")])

        told = capsys.readouterr().err.splitlines()[-1]
        assert (status, told[: len(message)]) == (1, message)


def test_interrupted(tmp_path):
    """Ctrl-C says what becomes of the folder, in one line, and nothing is left of it."""
    arguments = ["--model=ViT-L-14", "--pretrained=random", f"--out={tmp_path / 'made' / 'out'}"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "embedding", "prepare", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("loading ViT-L-14")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)

    assert (process.returncode, told) == (
        130,
        "interrupted; DIR is whole or was not made: run the same command again\n",
    )
    assert not (tmp_path / "made").exists()


@pytest.mark.usefixtures("tiny_models")
class TestFaults:
    @pytest.mark.parametrize("content", [None, b"", b"garbage"], ids=["missing", "empty", "garbage"])
    def test_checkpoint(self, tmp_path, content):
        """A checkpoint that cannot be read leaves nothing behind."""
        file = tmp_path / "file.pt"
        if content is not None:
            file.write_bytes(content)

        with pytest.raises(StartupError):
            prepare("tiny", "mine", tmp_path / "models" / "out", weights=file)

        assert not (tmp_path / "models").exists()

    def test_too_large_for_fp16(self, tmp_path):
        """Weights beyond fp16 are refused by name, and nothing is left behind."""
        model = random_model(TINY)
        with torch.no_grad():
            model.visual.proj[0, 0] = 1e6
        torch.save(model.state_dict(), tmp_path / "tiny.pt")

        with pytest.raises(
            StartupError, match=r"^visual\.proj does not fit fp16; prepare with --precision fp32$"
        ):
            prepare("tiny", "mine", tmp_path / "models" / "out", weights=tmp_path / "tiny.pt")

        assert list((tmp_path / "models").iterdir()) == []

    def test_folder_of_something_else(self, tmp_path):
        """A folder that holds anything else is never overwritten."""
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("")

        with pytest.raises(StartupError, match="holds something else; remove it or choose another folder"):
            prepare("tiny", "random", tmp_path / "out")

    def test_folder_of_another_model(self, tmp_path, checkpoint):
        """Nor is one of another model, tag, precision or checkpoint."""
        prepare("tiny", "random", tmp_path / "out")

        for options in ({"precision": "fp32"}, {"weights": checkpoint}):
            with pytest.raises(StartupError, match="holds something else"):
                prepare("tiny", "random", tmp_path / "out", **options)

    @pytest.mark.parametrize("name", [WEIGHTS_NAME, GOLDEN_NAME])
    def test_damaged_folder(self, tmp_path, name):
        """A folder whose weights are not those of its golden vectors is not taken for prepared."""
        prepare("tiny", "random", tmp_path / "out")
        if name == WEIGHTS_NAME:
            (tmp_path / "out" / name).write_bytes(b"")
        else:
            (tmp_path / "out" / name).unlink()

        with pytest.raises(StartupError, match=r"is damaged: its weights are not those of its golden\.json"):
            prepare("tiny", "random", tmp_path / "out")

    def test_place_that_cannot_be_written(self, tmp_path):
        """A place that cannot be written is said to be so."""
        (tmp_path / "file").write_text("")

        with pytest.raises(StartupError, match=r"^cannot write .*; check space and permissions$"):
            prepare("tiny", "random", tmp_path / "file" / "out")

    def test_another_process_was_faster(self, tmp_path, monkeypatch):
        """Where another process makes the same folder meanwhile, theirs is taken."""
        prepare("tiny", "random", tmp_path / "theirs")
        write_golden = prepare_module.write_golden

        def slowly(path):
            write_golden(path)
            shutil.copytree(tmp_path / "theirs", tmp_path / "out")

        monkeypatch.setattr(prepare_module, "write_golden", slowly)

        assert prepare("tiny", "random", tmp_path / "out").path == tmp_path / "out"
        assert not list(tmp_path.glob(".out.*"))


def test_golden_command(tiny_folder, tmp_path, capsys):
    """`golden` adds golden vectors to a folder made elsewhere."""
    path = shutil.copytree(tiny_folder.path, tmp_path / "copy")

    assert main(["golden", str(path)]) == 0

    assert set(json.loads((path / GOLDEN_NAME).read_text())) == {
        "picture",
        "texts",
        "weights_sha256",
        "vectors",
    }
    assert capsys.readouterr().out == f"golden vectors written into {path}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ["prepare", "golden", "download", "sign", "serve"]),
        (["prepare"], [CONFIG_NAME, WEIGHTS_NAME, GOLDEN_NAME, "MODEL_PATH", "CLIP_PRECISION"]),
        (["golden"], [CONFIG_NAME, GOLDEN_NAME]),
        (["download"], ["MODEL_ROOTS", "DIR/.download", "HF_TOKEN"]),
        (["sign"], ["EMBEDDING_HMAC_SECRET"]),
    ],
)
def test_commands_explain_themselves(capsys, arguments, told):
    """`--help` names every command, and of each the files that it writes and the variables that matter."""
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    shown = capsys.readouterr().out

    assert [word for word in told if word not in shown] == []
