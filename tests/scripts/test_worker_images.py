"""The scripts that build and push the worker's image: what they ask of an engine, print, and refuse."""

from __future__ import annotations

import shlex
import shutil
import sys

import pytest

from tests.scripts.conftest import ENGINES


PLACE = "registry.example.com/team"
NAME = f"{PLACE}/clip-embedding-worker"
DIGEST = f"sha256:{7:064d}"
SCRIPTS = ("build_worker.sh", "push_worker.sh", "smoke_remote_worker.sh")


def test_build_bakes_commit_and_time_in(checkout):
    """The engine gets tag, platform, commit and time, then the caller's own arguments, then the folder."""
    done = checkout.run("build_worker.sh", "v1", "--build-arg", "CLIP_MODEL_NAME=ViT-L-14")

    (call,) = checkout.said("build ")
    words = shlex.split(call)
    assert words[:5] == ["build", "--platform", "linux/amd64", "--tag", "clip-embedding-worker:v1"]
    assert f"GIT_COMMIT={checkout.commit}" in words
    assert any(word.startswith("BUILD_TIME=20") and word.endswith("Z") for word in words)
    assert words[-3:] == ["--build-arg", "CLIP_MODEL_NAME=ViT-L-14", str(checkout.root)]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "built  clip-embedding-worker:v1",
        "id     0123",
        "size   4.42 GB",
        f"commit {checkout.commit}",
        "next   scripts/push_worker.sh v1 REGISTRY/NAMESPACE",
    ]


@pytest.mark.parametrize(
    ("answers", "chosen", "used"),
    [
        ("docker podman buildah", "", "docker"),
        ("podman buildah", "", "podman"),
        ("buildah", "", "buildah"),
        ("docker buildah", "buildah", "buildah"),
        ("docker", "podman", None),
        ("", "", None),
    ],
)
def test_engine_that_answers_is_used(checkout, answers, chosen, used):
    """The first that answers, or the one chosen and no other; none is one line."""
    checkout.answers = answers
    done = checkout.run("build_worker.sh", "v1", ENGINE=chosen)

    if used is None:
        assert (done.returncode, done.stdout) == (1, "")
        expected = (
            f"✗ no container engine answers ({chosen or 'docker, podman or buildah'}): start or install one\n"
        )
        assert done.stderr == expected
    else:
        assert done.returncode == 0
        assert checkout.said("bud --layers " if used == "buildah" else "build ")


@pytest.mark.parametrize(
    ("change", "is_dirty"),
    [
        ("README.md", False),
        ("notes.txt", False),
        ("handler.py", True),
        ("embedding/new.py", True),
        ("Dockerfile", True),
    ],
)
def test_changes_are_marked(checkout, change, is_dirty):
    """A file that enters the image and differs from the commit, or is not in it, marks the commit."""
    with (checkout.root / change).open("a") as file:
        file.write("# changed\n")
    commit = checkout.commit + "-dirty" * is_dirty
    done = checkout.run("build_worker.sh", "v1", built_from=commit)

    assert f"--build-arg GIT_COMMIT={commit} " in checkout.said("build ")[0]
    assert done.returncode == 0
    assert ("warning: " in done.stderr) == is_dirty


def test_image_of_another_commit_is_refused(checkout):
    """An engine whose cache made the image tell an older commit is found out."""
    done = checkout.run("build_worker.sh", "v1", built_from="0" * 40)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("✗ clip-embedding-worker:v1 tells another commit")


def test_build_needs_a_commit(checkout):
    """Files without a history make no image, and one that fails says whose words to read."""
    checkout.does = "fail-build"
    assert "docker could not build clip-embedding-worker:v1" in checkout.run("build_worker.sh", "v1").stderr
    shutil.rmtree(checkout.root / ".git")
    done = checkout.run("build_worker.sh", "v1", built_from="-")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "clone the repository" in done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_push_prints_what_a_deployment_needs(checkout, engine, tmp_path):
    """Both tags are pushed, the digest is pulled; any engine gives a reference and three variables."""
    done = checkout.run("push_worker.sh", "v1", PLACE, ENGINE=engine, GITHUB_OUTPUT=str(tmp_path / "output"))

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{NAME}@{DIGEST}",
        f"EXPECTED_WORKER_GIT_COMMIT={checkout.commit}",
        f"EXPECTED_WORKER_IMAGE_DIGEST={DIGEST}",
        f"IMAGE_DIGEST={DIGEST}",
    ]
    output = (tmp_path / "output").read_text().splitlines()
    assert output == [f"image={NAME}@{DIGEST}", f"digest={DIGEST}", f"commit={checkout.commit}"]
    pushed = [call.split("docker://")[-1].split(" ")[-1] for call in checkout.said("push ")]
    assert pushed == [f"{NAME}:v1", f"{NAME}:{checkout.commit}"]
    assert checkout.said("pull ")[0].endswith(f"{NAME}@{DIGEST}")
    assert "tls" not in " ".join(checkout.said("pu"))


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (
            "unauthorized: authentication required",
            "registry.example.com refuses the push: log in (docker login ",
        ),
        ("denied: requested access to the resource is denied", "registry.example.com refuses the push: "),
        ("no basic auth credentials", "registry.example.com refuses the push: "),
        (
            "dial tcp 10.0.0.1:443: connect: connection refused",
            "registry.example.com does not answer as a regi",
        ),
        (
            "dial tcp: lookup registry.example.com: no such host",
            "registry.example.com does not answer as a regi",
        ),
        ("manifest invalid", f"the push of {NAME}:v1 failed: manifest invalid"),
        ("no-digest", f"docker did not say which digest {NAME}:v1 has now"),
        ("two-digests", "the two tags have different digests: push again"),
        ("no-pull", f"the registry does not give {NAME}@{DIGEST} back: manifest unknown"),
    ],
)
def test_push_that_fails_says_why(checkout, does, message, tmp_path):
    """The last line names the cause; nothing that a deployment could take for a result is printed."""
    checkout.does = does
    done = checkout.run("push_worker.sh", "v1", PLACE, GITHUB_OUTPUT=str(tmp_path / "output"))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"✗ {message}")
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("tag", "built_from", "message"),
    [
        (
            "absent",
            None,
            "there is no image clip-embedding-worker:absent: scripts/build_worker.sh absent builds it",
        ),
        (
            "bare",
            None,
            "clip-embedding-worker:bare does not tell its commit: build it with scripts/build_worker.sh",
        ),
        (
            "v1",
            "abc",
            "clip-embedding-worker:v1 does not tell its commit: build it with scripts/build_worker.sh v1",
        ),
    ],
)
def test_image_that_cannot_be_pushed(checkout, tag, built_from, message):
    """An image that is not here, or cannot say what it was built of, is not pushed."""
    done = checkout.run("push_worker.sh", tag, PLACE, **({"built_from": built_from} if built_from else {}))

    assert (done.returncode, done.stdout, checkout.said("push")) == (1, "", [])
    assert done.stderr.startswith(f"✗ {message}")


def test_push_of_a_changed_tree_warns(checkout):
    """The mark of a changed tree stays on what callers are told to expect."""
    done = checkout.run("push_worker.sh", "v1", PLACE.upper(), built_from=f"{'a' * 40}-dirty")

    assert f"EXPECTED_WORKER_GIT_COMMIT={'a' * 40}-dirty" in done.stdout
    assert f"{NAME}@{DIGEST}" in done.stdout
    assert done.stderr.startswith("warning: ")


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("build_worker.sh", [], "TAG is missing"),
        ("build_worker.sh", ["a/b"], "TAG is 1 to 128 letters"),
        ("build_worker.sh", ["-v1"], "TAG is 1 to 128 letters"),
        ("build_worker.sh", ["v" * 129], "TAG is 1 to 128 letters"),
        ("push_worker.sh", [], "TAG and REGISTRY/NAMESPACE are needed"),
        ("push_worker.sh", ["v1"], "TAG and REGISTRY/NAMESPACE are needed"),
        ("push_worker.sh", ["v1", PLACE, "more"], "TAG and REGISTRY/NAMESPACE are needed"),
        ("push_worker.sh", ["v1", PLACE, "--force"], "there is no option --force"),
        ("push_worker.sh", ["v1", PLACE, "--github-output"], "--github-output needs GITHUB_OUTPUT"),
        ("push_worker.sh", ["v1:2", PLACE], "TAG is 1 to 128 letters"),
        ("push_worker.sh", ["v1", "team/sub"], "REGISTRY is the registry's host"),
        ("push_worker.sh", ["v1", "registry.example.com"], "REGISTRY/NAMESPACE is a host and a path"),
        ("push_worker.sh", ["v1", f"https://{PLACE}"], "REGISTRY/NAMESPACE is a host and a path"),
        ("push_worker.sh", ["v1", f"{PLACE}:v1"], "REGISTRY/NAMESPACE is a host and a path"),
        ("smoke_remote_worker.sh", [], "--endpoint-id ID or --url URL is missing"),
        ("smoke_remote_worker.sh", ["production"], "--endpoint-id ID or --url URL is missing"),
    ],
)
def test_wrong_arguments(checkout, script, arguments, message):
    """A call that cannot be meant ends with status 2, says what is wrong, and asks no engine."""
    done = checkout.run(script, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"✗ {message}")
    assert not (checkout.root.parent / "said").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_teaches(checkout, script):
    """--help shows the call and an explanation, wherever it stands."""
    done = checkout.run(script, "v1", "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n  scripts/{script} " in done.stdout
    assert len(done.stdout.splitlines()) > 8


def test_longest_tag(checkout):
    """128 characters are still a tag."""
    assert checkout.run("build_worker.sh", "v" * 128).returncode == 0


def test_smoke_hands_everything_on(checkout):
    """It runs `python -m deploy smoke` with the arguments as they are, and leaves with its status."""
    (checkout.root / "deploy").mkdir()
    told = "import sys; print(sys.argv[1:]); sys.exit(0 if '--help' in sys.argv else 7)"
    (checkout.root / "deploy" / "__init__.py").touch()
    (checkout.root / "deploy" / "__main__.py").write_text(told)
    (checkout.root.parent / "bin" / "python3").symlink_to(sys.executable)
    done = checkout.run("smoke_remote_worker.sh", "--url", "http://127.0.0.1:1/a b", "--wait-s", "5")

    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == "['smoke', '--url', 'http://127.0.0.1:1/a b', '--wait-s', '5']\n"


def test_smoke_needs_a_python(checkout):
    """Without a Python that can run deploy, one line says what to install."""
    done = checkout.run("smoke_remote_worker.sh", "--endpoint-id=abc")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "make deploy" in done.stderr
