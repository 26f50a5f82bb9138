"""RunPod Hub's files are in its format, name settings that exist, and hold jobs that a worker answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from embedding.errors import StartupError
from embedding.model.weights import DEMO_PATH
from embedding.serve.access import Access
from embedding.serve.mode import Mode
from embedding.serve.start import start
from embedding.settings import Settings
from tests.hub.format import Hub, Tests


ROOT = Path(__file__).parents[2]
HUB = Hub.model_validate_json((ROOT / ".runpod" / "hub.json").read_text(encoding="utf-8"))
TESTS = Tests.model_validate_json((ROOT / ".runpod" / "tests.json").read_text(encoding="utf-8"))
INPUTS = {variable.key: variable.input for variable in HUB.config.env if variable.input}
FIELDS = {field.alias: field for field in Settings.model_fields.values()}
SECRET = "0123456789abcdef0123456789abcdef"
IMAGE_FOLDER = Path("/app")


def deployed(preset, **typed):
    """Return the environment that a deployment of *preset* gives its workers; *typed* is the deployer's."""
    values = {key: each.default for key, each in INPUTS.items() if each.default is not None}
    values |= preset.defaults | typed
    written = {key: INPUTS[key].written(value) for key, value in values.items()}
    fixed = {variable.key: variable.value for variable in HUB.config.env if variable.value is not None}
    return {
        "RUNPOD_SERVERLESS": "1",
        "RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1:9/job-take/w?",
        **fixed,
    } | written


def bounds(field):
    """Return the least and greatest number that a setting takes, None where there is none."""
    least = [getattr(each, "ge", None) for each in field.metadata]
    most = [getattr(each, "le", None) for each in field.metadata]
    return next(filter(lambda b: b is not None, least), None), next(filter(None, most), None)


class TestFormat:
    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (["category"], "multimodal"),
            (["config", "gpuIds"], "RTX_4090"),
            (["config", "gpuIds"], None),
            (["config", "cpuFlavor"], "cpu5c"),
            (["config", "allowedCudaVersions"], ["13"]),
            (["config", "env", 0, "default"], "x"),
            (["config", "env", 0, "input", "type"], "text"),
            (["config", "env", 3, "input", "default"], "0"),
            (["config", "presets", 0, "default"], {}),
        ],
    )
    def test_knows_what_is_wrong(self, path, value):
        """A value that the guide does not allow is refused."""
        document = json.loads((ROOT / ".runpod" / "hub.json").read_text(encoding="utf-8"))
        part = document
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value

        with pytest.raises(ValidationError):
            Hub.model_validate_json(json.dumps(document))

    def test_inputs_are_not_wrapped(self):
        """A test whose input is a whole job is refused: the Hub wraps it itself."""
        wrapped = {"tests": [{"name": "a", "input": {"input": {}}}], "config": {"cpuFlavor": "cpu5c"}}

        with pytest.raises(ValidationError, match="as it is"):
            Tests.model_validate(wrapped)

    def test_required_files_are_there(self):
        """The Hub asks for a handler, a Dockerfile and a README beside its two files."""
        assert all((ROOT / name).is_file() for name in ("handler.py", "Dockerfile", "README.md"))


class TestHub:
    @pytest.mark.parametrize("key", INPUTS)
    def test_asks_for_settings(self, key):
        """Each input is a setting in the table of settings, with the setting's own default and bounds."""
        field, asked = FIELDS[key], INPUTS[key]
        readme = (ROOT / "docs" / "SETTINGS.md").read_text(encoding="utf-8")

        assert f"`{key}`" in readme
        if asked.type in ("number", "boolean") or asked.options:
            assert asked.default == field.default
        if asked.type == "number":
            assert (asked.min, asked.max) == bounds(field)

    def test_options_are_values(self):
        """Each option of an input is a value that the setting takes."""
        for key, asked in INPUTS.items():
            for option in asked.options or []:
                Settings.from_env({key: option.value})

    def test_defaults_are_the_image_s(self):
        """The model asked for by default is the one whose weights the Dockerfile puts into the image."""
        dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")

        for key in ("CLIP_MODEL_NAME", "CLIP_PRETRAINED"):
            assert f"\nARG {key}={INPUTS[key].default}\n" in dockerfile

    def test_cuda_is_torch_s(self):
        """Drivers of this torch's CUDA or the next minor ones are asked for; RunPod matches exactly."""
        built_for = torch.version.cuda
        if built_for is None:
            pytest.skip("this torch is built without CUDA")

        major, minor = map(int, built_for.split("."))
        good = [f"{major}.{later}" for later in range(minor, minor + 4)]
        assert HUB.config.allowedCudaVersions == TESTS.config.allowedCudaVersions == good

    def test_a_secret_has_to_be_typed(self):
        """A deployer cannot pass over the question who may ask, and gets no secret that others know."""
        assert INPUTS["EMBEDDING_HMAC_SECRET"].required
        assert not INPUTS["EMBEDDING_HMAC_SECRET"].default
        assert not INPUTS["ALLOW_INSECURE_AUTH"].advanced
        assert all("EMBEDDING_HMAC_SECRET" not in preset.defaults for preset in HUB.config.presets)


@pytest.mark.parametrize("preset", HUB.config.presets, ids=lambda preset: preset.name.split(":")[0])
class TestPresets:
    def test_answer_what_is_asked(self, preset):
        """Each default is a value of one of the inputs."""
        assert preset.defaults.keys() <= INPUTS.keys()
        assert [key for key, value in preset.defaults.items() if not INPUTS[key].takes(value)] == []

    def test_can_be_switched_between(self, preset):
        """Every preset answers the same questions, so that none leaves a part of another behind."""
        assert all(preset.defaults.keys() == other.defaults.keys() for other in HUB.config.presets)

    def test_may_be_served(self, preset):
        """With a secret typed, the settings are valid and decide who may ask."""
        settings = Settings.from_env(deployed(preset, EMBEDDING_HMAC_SECRET=SECRET))
        access = Access.of(settings, Mode.QUEUE)

        assert settings.model_path or settings.clip_model_name
        assert access.is_open == preset.defaults["ALLOW_INSECURE_AUTH"]

    def test_is_open_only_with_the_demo_model(self, preset):
        """No preset with a real model lets everybody ask: without a secret such a worker does not start."""
        settings = Settings.from_env(deployed(preset))
        if settings.model_path:
            assert Access.of(settings, Mode.QUEUE).is_open
            assert IMAGE_FOLDER / DEMO_PATH.relative_to(ROOT) == settings.model_path
            return
        with pytest.raises(StartupError, match="EMBEDDING_HMAC_SECRET"):
            Access.of(settings, Mode.QUEUE)


@pytest.fixture(scope="module")
def worker():
    """A worker as the Hub tests one, but with the demo model: that of the last preset, where it lies here."""
    demo = HUB.config.presets[-1]
    environ = deployed(demo, MODEL_PATH=str(DEMO_PATH), ALLOW_INSECURE_AUTH=False)
    environ |= {setting.key: setting.value for setting in TESTS.config.env}
    return start(lambda: Settings.from_env(environ), [])


class TestTests:
    @pytest.mark.parametrize("test", TESTS.tests, ids=lambda test: test.name)
    def test_each_is_answered(self, worker, test):
        """Each test's input is a job that a worker with the tests' settings answers without any error."""
        output = asyncio.run(worker.handler({"id": test.name, "input": test.input}))
        answer = json.dumps(output)

        assert output
        assert '"error' not in answer.replace('"errors": 0', "")

    def test_the_picture_is_a_picture_of_its_text(self, worker):
        """Of the batch's two texts the right one is nearer to the picture: the input is real."""
        (batch,) = [test.input for test in TESTS.tests if test.input.get("action") == "batch"]
        results = asyncio.run(worker.handler({"id": "b", "input": batch}))["results"]
        picture, right, wrong = (torch.tensor(result["embedding"]) for result in results)

        assert picture @ right > picture @ wrong

    def test_need_their_settings(self):
        """Without the tests' settings the worker would not start, so they are not there for nothing."""
        settings = Settings.from_env(deployed(HUB.config.presets[0]))

        with pytest.raises(StartupError):
            Access.of(settings, Mode.QUEUE)

    def test_cover_the_actions(self):
        """Health, text, image, batch and OpenAI's route are tried."""
        kinds = {test.input.get("action", test.input.get("openai_route")) for test in TESTS.tests}

        assert kinds == {"health", "text", "image", "batch", "/v1/embeddings"}
