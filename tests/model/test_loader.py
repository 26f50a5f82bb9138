"""Loading gives a model with a stable identity, or one line that says what is wrong with the files."""

from __future__ import annotations

import hashlib
import io
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedding.errors import StartupError
from embedding.model.folder import CONFIG_NAME, WEIGHTS_NAME, WeightsFolder
from embedding.model.loader import choose_precision, load_model
from tests.model.folders import TINY, write_config
from tests.model.references import pictures


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny folder that a test may change."""
    path = shutil.copytree(tiny_folder.path, tmp_path / "copy")
    return WeightsFolder(path, "copy", "", "MODEL_PATH")


def load(folder, **more):
    """Load *folder* on the CPU, in fp32 unless told otherwise."""
    return load_model(folder, **{"device": "cpu", "precision": "fp32", **more})


class TestIdentity:
    def test_fields(self, tiny_folder):
        """The identity says what is served and on what."""
        identity = load(tiny_folder).identity

        assert (identity.model_name, identity.pretrained) == ("tiny", "")
        assert (identity.dim, identity.image_size, identity.context_length) == (16, 32, 77)
        assert (identity.device, identity.precision, identity.architecture) == ("cpu", "fp32", "own")
        weights = (tiny_folder.path / WEIGHTS_NAME).read_bytes()
        assert identity.weights_sha256 == hashlib.sha256(weights).hexdigest()
        assert len(identity.fingerprint) == 16
        assert int(identity.fingerprint, 16)

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_same_fingerprint(self, tiny_folder, folder, precision):
        """The fingerprint does not depend on the folder's place or name, nor on the precision."""
        elsewhere = load(folder, precision=precision)

        assert elsewhere.identity.fingerprint == load(tiny_folder).identity.fingerprint

    def test_defaults_spelt_out(self, tiny_folder, folder):
        """Nor on whether the config spells out the preprocessing's defaults."""
        (folder.path / CONFIG_NAME).write_text(json.dumps({"model_cfg": TINY}))

        assert load(folder).identity.fingerprint == load(tiny_folder).identity.fingerprint

    @pytest.mark.parametrize("change", ["weights", "activation", "resize mode"])
    def test_other_fingerprint(self, tiny_folder, folder, change):
        """It changes with whatever changes a vector."""
        document = json.loads((folder.path / CONFIG_NAME).read_text())
        if change == "weights":
            tensors = load_file(folder.path / WEIGHTS_NAME)
            tensors["visual.proj"][0, 0] += 1
            save_file(tensors, folder.path / WEIGHTS_NAME)
        elif change == "activation":
            document["model_cfg"]["quick_gelu"] = True
        else:
            document["preprocess_cfg"]["resize_mode"] = "squash"
        (folder.path / CONFIG_NAME).write_text(json.dumps(document))

        assert load(folder).identity.fingerprint != load(tiny_folder).identity.fingerprint


class TestPrecision:
    @pytest.mark.parametrize(
        ("device", "capabilities", "expected"),
        [
            ("cuda", {}, "fp16"),
            ("cuda:1", {"amx_bf16": True}, "fp16"),
            ("cpu", {"avx512_bf16": True, "amx_bf16": False}, "bf16"),
            ("cpu", {"amx_bf16": True}, "bf16"),
            ("cpu", {"bf16": True, "neon": True}, "bf16"),
            ("cpu", {"avx2": True, "avx512_f": True, "avx512_bf16": False}, "fp32"),
        ],
    )
    def test_auto(self, monkeypatch, device, capabilities, expected):
        """Auto is fp16 on CUDA, bf16 where the CPU multiplies it in hardware, and fp32 elsewhere."""
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

        assert choose_precision(device, "auto") == expected

    @pytest.mark.parametrize("asked", ["fp32", "fp16", "bf16"])
    def test_asked(self, asked):
        """What is asked for is what is used."""
        assert choose_precision("cpu", asked) == asked

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
    def test_every_parameter(self, tiny_folder, precision):
        """All parameters are in the chosen type, and features come as fp32."""
        model = load(tiny_folder, precision=precision)

        types = {parameter.dtype for parameter in model._towers.parameters()}
        assert types == {{"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]}
        assert model.embed_images(pictures(32)).dtype == "float32"

    @pytest.mark.parametrize("device", ["cuda:99", "no-such-device"])
    def test_device(self, tiny_folder, device):
        """A device that is not there stops the start."""
        with pytest.raises(StartupError, match=f"^device {device} is not usable .*; check GPU_DEVICE$"):
            load(tiny_folder, device=device)


class Bomb:
    """An object whose unpickling runs a command."""

    def __reduce__(self) -> tuple:
        return print, ("this must not run",)


def saved(content):
    """Return *content* as torch saves it."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def cut(share):
    """Return what cuts a file to *share* of its length."""
    return lambda file: file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def tensors_with(change):
    """Return what applies *change* to the tensors of a file."""

    def write(file):
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    return write


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pickle_of_parameters(folder, precision):
    """A checkpoint saved with its gradients' bookkeeping loads as any other."""
    file = folder.path / "open_clip_model.safetensors"
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in load_file(file).items()}
    file.unlink()
    (folder.path / "open_clip_pytorch_model.bin").write_bytes(saved(parameters))

    assert load(folder, precision=precision).identity.architecture == "own"


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (cut(0), "is damaged"),
            (cut(0.0001), "is damaged"),
            (cut(0.5), "is damaged"),
            (cut(0.9999), "is damaged"),
            (lambda file: file.write_bytes(b"\xff" * 1000), "is damaged"),
            (lambda file: file.write_text("version https://git-lfs.github.com/spec/v1"), "is damaged"),
            (tensors_with(lambda t: t.pop("visual.proj")), r"1 missing \(visual.proj\)"),
            (tensors_with(lambda t: t.update(x=torch.zeros(1))), r"1 unexpected \(x\)"),
            (tensors_with(lambda t: t.update({"visual.proj": torch.zeros(32, 8)})), "is 32x8, not 32x16"),
        ],
        ids=[
            "empty",
            "no header",
            "half",
            "last bytes",
            "garbage",
            "git-lfs",
            "missing",
            "unexpected",
            "shape",
        ],
    )
    def test_safetensors(self, folder, damage, message):
        """Damaged weights, or those of another model, stop the start in one line."""
        damage(folder.path / WEIGHTS_NAME)

        with pytest.raises(StartupError, match=message) as fault:
            load(folder)

        assert "\n" not in str(fault.value)

    @pytest.mark.parametrize(
        "content",
        [b"", b"garbage", saved(Bomb()), saved({"x": 1}), saved([1]), saved({"x": torch.zeros(99)})[:-99]],
        ids=["empty", "garbage", "code", "not tensors", "a list", "cut short"],
    )
    def test_pickle(self, folder, content, capsys):
        """A damaged pickle stops the start, and one that holds code does not run it."""
        (folder.path / WEIGHTS_NAME).unlink()
        (folder.path / "open_clip_pytorch_model.bin").write_bytes(content)

        with pytest.raises(StartupError, match="is damaged"):
            load(folder)

        assert capsys.readouterr().out == ""

    def test_bias_of_the_loss(self, folder, tiny_folder):
        """A logit bias, on which no vector depends, is passed over."""
        tensors_with(lambda tensors: tensors.update(logit_bias=torch.zeros(1)))(folder.path / WEIGHTS_NAME)

        assert (load(folder).embed_images(pictures(32)) == load(tiny_folder).embed_images(pictures(32))).all()

    @pytest.mark.parametrize(
        ("key", "cfg", "message"),
        [
            ("vision_cfg", {"width": 0}, "describes no model that can be built"),
            ("vision_cfg", {"head_width": 0}, "describes no model that can be built"),
            ("vision_cfg", {"patch_size": "16"}, "describes no model that can be built"),
            ("text_cfg", {"context_length": -1}, "describes no model that can be built"),
            ("text_cfg", {"heads": 3}, "describes no model that can be built"),
            ("text_cfg", {"vocab_size": 100}, "has a vocabulary of 100; CLIP's is 49408"),
            ("vision_cfg", {"layers": 3}, r"12 missing \(visual.transformer.resblocks.2.attn.in_proj_bias, "),
            (
                "vision_cfg",
                {"patch_size": 8},
                r"2 of another shape \(visual.positional_embedding is 5x32, not 17",
            ),
        ],
    )
    def test_config(self, folder, key, cfg, message):
        """A config that cannot be built, or is not that of the weights, is said to be so."""
        write_config(folder.path, {**TINY, key: {**TINY[key], **cfg}})

        with pytest.raises(StartupError, match=message):
            load(folder)
