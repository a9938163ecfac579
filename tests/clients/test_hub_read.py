"""huggingface_hub reads from a whole registry: info, lists, trees, downloads, caches and file systems."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, constants
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import get_hf_file_metadata

from tests.services.house import House

# The client itself sends upload bodies in a way that its HTTP library calls outdated.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")]
_numbers = itertools.count()

HEAD = json.dumps({"t": {"dtype": "F32", "shape": [300_000], "data_offsets": [0, 1_200_000]}}).encode()
WEIGHTS = len(HEAD).to_bytes(8, "little") + HEAD + bytes(1_200_000)
CARD = b"---\nlicense: mit\nlanguage: en\ntags: [chat]\npipeline_tag: text-generation\n---\n# Hi\n"
CONFIG = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
FILES = {"README.md": CARD, "config.json": CONFIG, "model.safetensors": WEIGHTS, "data/a/b.txt": b"deep\n"}


@dataclass
class Hub:
    """A client of a house, and a model repo in it with two commits, a branch and a tag."""

    api: HfApi
    house: House
    repo: str
    first: str
    second: str
    cache: Path

    def download(self, name: str, **more: str) -> Path:
        """Download a file into this test's cache."""
        return Path(self.api.hf_hub_download(self.repo, name, cache_dir=self.cache, **more))


@pytest.fixture
def hub(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    api = HfApi(endpoint=house.url, token=house.token)
    repo = f"ann/read-{next(_numbers)}"
    api.create_repo(repo)
    first = api.create_commit(
        repo, [CommitOperationAdd(path, data) for path, data in FILES.items()], commit_message="first"
    )
    added = CommitOperationAdd("new.txt", b"new\n")
    second = api.create_commit(repo, [added, CommitOperationDelete("data/a/b.txt")], commit_message="second\n\nmore")
    api.create_branch(repo, branch="dev/x", revision=first.oid)
    api.create_tag(repo, tag="v1", revision=first.oid, tag_message="one")
    yield Hub(api, house, repo, first.oid, second.oid, tmp_path / "cache")
    huggingface_hub.close_session()


@pytest.fixture(params=["by chunks", "whole"])
def xet(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """True for a reader with nothing set, False for one who turned Xet off."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "whole")
    return bool(request.param == "by chunks")


def test_info_pins_the_commit_and_tells_of_the_model(hub: Hub) -> None:
    info = hub.api.model_info(hub.repo, files_metadata=True)
    assert (info.sha, info.author, info.private, info.gated, info.disabled) == (hub.second, "ann", False, False, False)
    assert (info.pipeline_tag, info.library_name) == ("text-generation", "transformers")
    assert {"chat", "license:mit", "en", "safetensors"} <= set(info.tags or [])
    assert info.card_data is not None
    assert info.card_data.license == "mit"
    assert info.safetensors is not None
    assert (info.safetensors.total, info.safetensors.parameters) == (300_000, {"F32": 300_000})
    files = {file.rfilename: file for file in info.siblings or []}
    assert set(files) == {".gitattributes", "README.md", "config.json", "model.safetensors", "new.txt"}
    lfs = files["model.safetensors"].lfs
    assert lfs is not None
    assert (lfs.sha256, lfs.size, files["config.json"].size) == (_sha256(WEIGHTS), len(WEIGHTS), len(CONFIG))
    assert hub.api.repo_info(hub.repo, revision="v1").sha == hub.first
    assert hub.api.model_info(hub.repo, expand=["sha", "downloads"]).tags is None


def test_absent_things_raise_the_right_errors(hub: Hub) -> None:
    stranger = HfApi(endpoint=hub.house.url, token=False)
    with pytest.raises(RevisionNotFoundError):
        hub.api.model_info(hub.repo, revision="nope")
    for api in (hub.api, stranger):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("ann/nope")
    with pytest.raises(RepositoryNotFoundError):
        hub.api.dataset_info(hub.repo)
    with pytest.raises(RemoteEntryNotFoundError):
        list(hub.api.list_repo_tree(hub.repo, "nope"))
    with pytest.raises(BadRequestError):
        hub.api.model_info(hub.repo, expand=["nope"])  # type: ignore[list-item]
    hub.api.update_repo_settings(hub.repo, private=True)
    with pytest.raises(RepositoryNotFoundError):
        stranger.model_info(hub.repo)
    with pytest.raises(RepositoryNotFoundError):
        stranger.hf_hub_download(hub.repo, "config.json", cache_dir=hub.cache)


def test_lists_are_filtered_sorted_and_paged(hub: Hub) -> None:
    mark = hub.repo.partition("/")[2]
    for number in range(3):
        hub.api.create_repo(f"ann/{mark}-more-{number}")
    found = [model.id for model in hub.api.list_models(search=mark, limit=2, sort="created_at")]
    everything = list(hub.api.list_models(author="ann", search=f"{mark}-more", limit=None))
    assert len(found) == 2
    assert {model.id for model in everything} == {f"ann/{mark}-more-{number}" for number in range(3)}
    assert [model.id for model in hub.api.list_models(search=mark, filter=["chat", "license:mit"])] == [hub.repo]
    assert [model.id for model in hub.api.list_models(search=mark, pipeline_tag="text-generation")] == [hub.repo]
    assert list(hub.api.list_models(search=mark, num_parameters="min:1B")) == []
    assert list(hub.api.list_models(search=mark, apps="vllm")) == []
    full = next(iter(hub.api.list_models(search=mark, filter="chat", full=True, cardData=True)))
    assert (full.sha, full.card_data and full.card_data.license) == (hub.second, "mit")
    assert hub.repo not in {dataset.id for dataset in hub.api.list_datasets(search=mark)}
    with pytest.raises(BadRequestError):
        list(hub.api.list_models(expand=["nope"]))  # type: ignore[list-item]


def test_every_page_of_a_list_is_followed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = hub.repo.partition("/")[2]
    for number in range(5):
        hub.api.create_repo(f"ann/{mark}-p{number}", repo_type="dataset")
    paged = huggingface_hub.hf_api.paginate(
        f"{hub.house.url}/api/datasets", params={"search": mark, "limit": 2}, headers=hub.api._build_hf_headers()
    )
    assert sorted(item["id"] for item in paged) == [f"ann/{mark}-p{number}" for number in range(5)]


def test_files_and_trees_are_listed_at_any_revision(hub: Hub) -> None:
    assert set(hub.api.list_repo_files(hub.repo, revision="dev/x")) == {".gitattributes", *FILES}
    assert "data/a/b.txt" not in hub.api.list_repo_files(hub.repo)
    flat = {item.path: item for item in hub.api.list_repo_tree(hub.repo, revision="v1", expand=True)}
    assert set(flat) == {".gitattributes", "README.md", "config.json", "model.safetensors", "data"}
    model, folder = flat["model.safetensors"], flat["data"]
    assert isinstance(model, huggingface_hub.hf_api.RepoFile)
    assert model.lfs is not None
    assert (model.size, model.lfs.sha256) == (len(WEIGHTS), _sha256(WEIGHTS))
    assert folder.last_commit is not None
    assert (folder.last_commit.oid, folder.last_commit.title) == (hub.first, "first")
    deep = [item.path for item in hub.api.list_repo_tree(hub.repo, "data", revision=hub.first, recursive=True)]
    assert deep == ["data/a", "data/a/b.txt"]


def test_named_paths_are_told_and_missing_ones_left_out(hub: Hub) -> None:
    found = hub.api.get_paths_info(hub.repo, ["config.json", "data", "nope"], revision="dev/x", expand=True)
    assert [item.path for item in found] == ["config.json", "data"]
    assert [item.last_commit and item.last_commit.oid for item in found] == [hub.first] * 2
    assert hub.api.get_paths_info(hub.repo, "nope") == []


def test_refs_and_commits_are_told(hub: Hub) -> None:
    refs = hub.api.list_repo_refs(hub.repo, include_pull_requests=True)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": hub.second, "dev/x": hub.first}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": hub.first}
    commits = hub.api.list_repo_commits(hub.repo, formatted=True)
    assert [commit.commit_id for commit in commits][:2] == [hub.second, hub.first]
    assert [commit.title for commit in commits] == ["second", "first", "initial commit"]
    assert (commits[0].message, commits[0].authors, commits[0].formatted_title) == ("more", ["ann"], "second")
    assert [commit.title for commit in hub.api.list_repo_commits(hub.repo, revision="v1")] == [
        "first",
        "initial commit",
    ]


def test_files_are_downloaded_and_kept_by_commit(hub: Hub, *, xet: bool) -> None:
    for name, data in FILES.items():
        assert hub.download(name, revision="dev/x").read_bytes() == data
    path = hub.download("model.safetensors")
    assert path.parent.name == hub.second
    hash = hub.api.get_paths_info(hub.repo, "model.safetensors")[0].xet_hash
    assert path.resolve().name == (hash if xet else _sha256(WEIGHTS))
    assert hub.download("config.json", revision=hub.first).read_bytes() == CONFIG
    metadata = get_hf_file_metadata(
        f"{hub.house.url}/{hub.repo}/resolve/main/model.safetensors", token=hub.house.token, endpoint=hub.house.url
    )
    assert (metadata.commit_hash, metadata.etag, metadata.size) == (hub.second, _sha256(WEIGHTS), len(WEIGHTS))
    assert metadata.xet_file_data is not None
    assert metadata.xet_file_data.file_hash == hash


def test_an_interrupted_download_goes_on_where_it_stopped(hub: Hub, *, xet: bool) -> None:
    whole = hub.download("model.safetensors")
    blob = whole.resolve()
    blob.rename(blob.with_name(blob.name + ".incomplete"))
    with blob.with_name(blob.name + ".incomplete").open("r+b") as file:
        file.truncate(700_000)
    whole.unlink()
    assert hub.download("model.safetensors").read_bytes() == WEIGHTS


def test_a_snapshot_is_whole_and_the_second_one_is_free(hub: Hub, *, xet: bool) -> None:
    folder = Path(hub.api.snapshot_download(hub.repo, revision="v1", cache_dir=hub.cache))
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop(".gitattributes")
    assert (folder.name, found) == (hub.first, FILES)
    again = hub.api.snapshot_download(hub.repo, revision="v1", cache_dir=hub.cache)
    assert Path(again) == folder
    some = Path(hub.api.snapshot_download(hub.repo, allow_patterns="*.json", cache_dir=hub.cache / "some"))
    assert [path.name for path in some.iterdir()] == ["config.json"]


def test_absence_is_remembered_by_the_client(hub: Hub) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        hub.download("generation_config.json")
    marker = next(hub.cache.rglob("generation_config.json"))
    assert marker.parent.parent.name == ".no_exist"
    assert marker.parent.name == hub.second
    kept = huggingface_hub.try_to_load_from_cache(
        hub.repo, "generation_config.json", cache_dir=hub.cache, revision="main"
    )
    assert kept is huggingface_hub._CACHED_NO_EXIST
    with pytest.raises(EntryNotFoundError):
        hub.download("generation_config.json", revision=hub.second)


def test_existence_is_asked_for_in_three_ways(hub: Hub) -> None:
    assert hub.api.file_exists(hub.repo, "config.json")
    assert not hub.api.file_exists(hub.repo, "nope.json")
    assert hub.api.revision_exists(hub.repo, "dev/x")
    assert not hub.api.revision_exists(hub.repo, "nope")
    assert hub.api.repo_exists(hub.repo)
    assert not hub.api.repo_exists("ann/nope")
    hub.api.auth_check(hub.repo)


def test_a_file_system_lists_reads_and_seeks(hub: Hub) -> None:
    files = HfFileSystem(endpoint=hub.house.url, token=hub.house.token, skip_instance_cache=True)
    assert files.ls(f"{hub.repo}@v1/data", detail=False) == [f"{hub.repo}@v1/data/a"]
    assert files.read_bytes(f"{hub.repo}/config.json") == CONFIG
    assert files.isdir(f"{hub.repo}@dev%2Fx/data/a")
    assert not files.exists(f"{hub.repo}/data")
    assert files.find(f"{hub.repo}@v1/data") == [f"{hub.repo}@v1/data/a/b.txt"]
    with files.open(f"{hub.repo}/model.safetensors", "rb", block_size=1 << 16) as file:
        file.seek(8)
        assert file.read(len(HEAD)) == HEAD
        file.seek(-5, 2)
        assert file.read() == WEIGHTS[-5:]
    found = hub.api.get_safetensors_metadata(hub.repo)
    assert found.parameter_count == {"F32": 300_000}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
