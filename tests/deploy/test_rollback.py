"""Records and the way back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deploy.errors import DeployError
from deploy.records import FAILED, PASSED, Record, Records
from tests.deploy.conftest import CONFIG, NEW, OLD
from tests.deploy.stand_in import answer, stand_in_worker
from tests.deploy.test_trouble import PATCH, process
from tests.management_api import refused, stalled


RECORD = Record("id", "time", "endpoint1", OLD, None, None, {}, PASSED)


def test_goes_back_to_the_last_good_one(deploy, api, worker):
    """Image and configuration are those of the record before; it is shown, sent and proven as an apply."""
    deploy.apply()
    deploy.apply("--image", NEW, "--workers-max", "5")
    done = deploy("rollback", "--yes")

    assert done.status == 0
    assert "~ workers.max: 5 -> 3" in done.out
    assert "smoke test passed" in done.out
    assert (api.endpoints[0]["image"], api.endpoints[0]["workers"]["max"]) == (OLD, 3)
    assert len(api.endpoints) == 1


def test_leaves_out_what_failed(deploy, api, platform):
    """One whose smoke test failed is no place to go back to, unless it is named."""

    def reply(job_input, identity):
        is_new = api.endpoints[0]["image"] == NEW
        return {"error": "INTERNAL_ERROR: it is broken"} if is_new else answer(job_input, identity)

    with stand_in_worker(platform, identity=dict, reply=reply):
        deploy.apply()
        assert deploy.apply("--image", NEW).status == 1
        deploy.apply("--workers-max", "5")
        records = Records(deploy.folder / "records", "production").all()
        done = deploy("rollback", "--yes", "--dry-run")
        named = deploy("rollback", "--yes", "--to", records[1].id)

    assert [record.outcome for record in records] == [PASSED, FAILED, PASSED]
    assert f"back to {records[0].id}" in done.out
    assert (named.status, api.endpoints[0]["image"]) == (1, NEW)


def test_a_record_that_is_not_there_is_told(deploy, api, worker):
    """The ids that there are stand in the hint."""
    deploy.apply()
    done = deploy("rollback", "--yes", "--to", "nowhere")
    alone = deploy("rollback", "--yes")

    assert "error: there is no record nowhere\nhint: there are: 2" in done.err
    assert "had a smoke test that passed" in alone.err


def test_without_records_the_releases_tell_the_images(deploy, api, worker):
    """RunPod remembers the images, so a lost folder is no dead end."""
    deploy.apply()
    deploy.apply("--image", NEW)
    done = deploy("rollback", "--yes", "--records", str(deploy.folder / "lost"))

    assert done.status == 1
    assert (
        f"RunPod's releases had\n  {OLD}\nhint: python -m deploy apply production --image IMAGE" in done.err
    )


def test_without_a_file_the_record_is_enough(deploy, api, worker):
    """The environment's file may be broken by then."""
    deploy.apply()
    deploy.apply("--image", NEW)
    deploy.write("name = ")

    assert deploy("rollback", "--yes").status == 0
    assert api.endpoints[0]["image"] == OLD


def test_an_apply_is_recorded_with_what_it_was(deploy, api, worker):
    """Image, digest, commit as the worker tells it, configuration with secrets by name, outcome."""
    deploy.apply()
    (record,) = Records(deploy.folder / "records", "production").all()

    assert (record.endpoint_id, record.image, record.digest) == ("endpoint1", OLD, OLD.split("@")[1])
    assert (record.commit, record.outcome) == ("c0ffee1", PASSED)
    assert record.config["secrets"] == ["EMBEDDING_HMAC_SECRET"]
    lines = (deploy.folder / "records/production.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["outcome"] for line in lines] == ["sent", "applied", PASSED]


def test_an_unproven_apply_is_proven_by_the_next(deploy, api, platform):
    """Nothing is changed, but the smoke test is run, since the last one did not pass."""
    with stand_in_worker(platform, identity=dict, reply=lambda *_: {"error": "broken"}):
        assert deploy.apply().status == 1
    with stand_in_worker(platform, identity=dict):
        done = deploy("apply")

    assert "nothing to change: clip is as asked; no smoke test has passed yet" in done.out
    assert (done.status, len(api.changes)) == (0, 1)


def test_a_torn_line_costs_only_itself(tmp_path):
    """A process killed while it wrote leaves a part of a line, which the next write does not continue."""
    records = Records(tmp_path, "e")
    with records.lock(print):
        records.add(RECORD)
    with (tmp_path / "e.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "torn", "ti')
    records.add(RECORD.told(FAILED))

    assert records.all() == [RECORD.told(FAILED)]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    """Records are needed for a way back, so without them nothing begins."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with (
        pytest.raises(DeployError, match="the records cannot be kept: "),
        Records(tmp_path / "file", "e").lock(print),
    ):
        pass


THIRD = f"docker.io/you/worker:3@sha256:{'3' * 64}"


def image(api):
    """Return the image that the endpoint has."""
    return api.endpoints[0]["image"]


def test_back_from_what_was_cut_short(deploy, api, worker):
    """An apply that was interrupted after it was sent is known: back is what was good before it."""
    deploy.apply()
    deploy.apply("--image", NEW)
    api.fail_next(PATCH, stalled(has_effect=True))
    killed = process(deploy, "apply", "--yes", "--image", THIRD)
    api.wait_for(PATCH, count=2)
    killed.kill()
    deploy.told += killed.communicate()
    assert image(api) == THIRD

    assert (deploy("rollback", "--yes").status, image(api)) == (0, NEW)


@pytest.mark.parametrize("records", ["elsewhere", None], ids=["another machine", "the console"])
def test_back_from_what_was_not_applied_here(deploy, api, worker, records):
    """What runs is not what the last record says, so the last good record is the way back."""
    deploy.apply()
    deploy.apply("--image", NEW)
    if records:
        deploy.apply("--image", THIRD, "--records", str(deploy.folder / records))
    else:
        api._call(api._store.patch_endpoint, "endpoint1", {"image": THIRD})

    assert (deploy("rollback", "--yes").status, image(api)) == (0, NEW)


def test_back_waits_for_an_apply_and_then_looks(deploy, api, worker):
    """The way back is chosen when nobody else changes the endpoint any more."""
    deploy.apply()
    deploy.apply("--image", NEW)
    api.fail_next(PATCH, stalled(0.5))
    other = process(deploy, "apply", "--yes", "--image", THIRD)
    api.wait_for(PATCH, count=2)
    done = deploy("rollback", "--yes")
    deploy.told += other.communicate()

    assert "another command changes this environment" in done.out
    assert (done.status, image(api)) == (0, NEW)


def test_back_and_back_again(deploy, api, worker):
    """A second rollback goes further back, and not forth to what was left."""
    for each in (OLD, NEW, THIRD):
        deploy.apply("--image", each)
    images = []
    for _ in range(2):
        assert deploy("rollback", "--yes").status == 0
        images.append(image(api))

    assert images == [NEW, OLD]
    assert "no record before" in deploy("rollback", "--yes").err


def test_a_refused_apply_is_no_step(deploy, api, worker):
    """What RunPod refused never ran: back is before what runs."""
    deploy.apply()
    deploy.apply("--image", NEW)
    api.fail_next(PATCH, refused(400, "no"))
    deploy.apply("--image", THIRD)

    assert (deploy("rollback", "--yes").status, image(api)) == (0, OLD)


def test_files_of_one_name_do_not_share_a_past(deploy, api, worker):
    """Records are an endpoint's; without a file that says which, several are no answer."""
    deploy.apply()
    deploy.write(CONFIG.replace('"clip"', '"clip-eu"').replace(OLD, NEW))
    deploy.apply()
    done = deploy("rollback", "--yes")
    deploy.write("name = ")

    assert "had a smoke test that passed" in done.err
    assert "the records are of 2 endpoints: clip, clip-eu\n" in deploy("rollback", "--yes").err


def test_records_of_any_text(tmp_path):
    """A line torn within a letter costs only itself, and no character ends a line."""
    records = Records(tmp_path, "e")
    odd = replace(RECORD, config={"name": "grün\u2028"})
    records.add(odd)
    path = tmp_path / "e.jsonl"
    path.write_bytes(path.read_bytes() + "{ü".encode()[:2])

    assert records.all() == [odd]
