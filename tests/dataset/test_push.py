"""push: says what would go, refuses what cannot, and sends the folder once."""

import inspect
from typing import ClassVar

import httpx
import huggingface_hub
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from conceptcaps.dataset.push import push
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path)
    run.write_json({"files": {}}, "dataset", "statistics.json")
    run.write_bytes(b"x" * 1000, "dataset", "default", "train-00000-of-00001.parquet")
    run.write_bytes(b"left by an upload", "dataset", ".cache", "huggingface", "state")
    return run


class Hub:
    """Stands where HfApi does."""

    calls: ClassVar[list] = []
    error: Exception | None = None

    def create_repo(self, repo, **options):
        inspect.signature(HfApi.create_repo).bind(self, repo, **options)
        if Hub.error:
            raise Hub.error
        Hub.calls.append(("create", repo, options["private"]))
        return f"https://hub/datasets/{repo}"

    def upload_folder(self, **options):
        inspect.signature(HfApi.upload_folder).bind(self, **options)
        Hub.calls.append(("upload", options["repo_id"], options["folder_path"]))


@pytest.fixture
def hub(monkeypatch):
    Hub.calls, Hub.error = [], None
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    return Hub


def test_a_dry_run_sends_nothing(run, hub):
    planned = push(run, "me/music", dry_run=True)
    assert [name for name, _ in planned.files] == ["default/train-00000-of-00001.parquet", "statistics.json"]
    assert planned.num_bytes > 1000
    assert str(planned).startswith("would send 2 files")
    assert hub.calls == []


def test_a_push_is_private_by_default(run, hub):
    sent = push(run, "me/music")
    assert hub.calls == [("create", "me/music", True), ("upload", "me/music", run.path("dataset"))]
    assert sent.url == "https://hub/datasets/me/music"


def test_no_token(run, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(InputError, match="token: is absent"):
        push(run, "me/music")


def test_a_read_only_token(run, hub):
    response = httpx.Response(403, request=httpx.Request("POST", "https://hub"))
    hub.error = HfHubHTTPError("forbidden", response=response)
    with pytest.raises(InputError, match="may not write to me/music"):
        push(run, "me/music")


def test_no_network(run, hub):
    hub.error = ConnectionError("no route")
    with pytest.raises(InputError, match="hub: cannot be reached"):
        push(run, "me/music")


@pytest.mark.parametrize("name", ["music", "me/", "a/b/c", "me/mu sic"])
def test_names(run, name):
    with pytest.raises(InputError, match="repository"):
        push(run, name, dry_run=True)


def test_nothing_to_push(tmp_path):
    with pytest.raises(InputError, match="holds no finished dataset"):
        push(RunDir(tmp_path), "me/music", dry_run=True)
