"""Stock huggingface_hub writes to a whole house: repos, files small and large, branches, tags, settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.visitor import visit
from tests.services.house import House, open_house

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One server for all of these tests; each uses repos of its own."""
    with open_house(tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture
def hub(house: House, tmp_path: Path) -> Visitor:
    return Visitor(house, tmp_path)


class Visitor:
    """Somebody with huggingface_hub installed and nothing set but the endpoint and a token; or Xet off, too."""

    def __init__(self, house: House, home: Path) -> None:
        self.house = house
        self.home = home

    def run(self, code: str, *, xet: bool = True) -> dict[str, object]:
        """Run lines of Python that leave their findings in `out`."""
        return visit(code, endpoint=self.house.url, token=self.house.token, home=self.home, xet=xet)


def test_repos_are_made_moved_set_up_and_deleted(hub: Visitor) -> None:
    out = hub.run(
        """
        url = api.create_repo("ann/first")
        out["url"] = [str(url), url.repo_id]
        out["again"] = str(api.create_repo("ann/first", exist_ok=True))
        out["taken"] = told(errors.HfHubHTTPError, api.create_repo, "ann/first")
        out["foreign"] = told(errors.HfHubHTTPError, api.create_repo, "nobody/first")
        out["dataset"] = str(api.create_repo("data", repo_type="dataset", private=True))
        out["space"] = str(api.create_repo("ann/app", repo_type="space", space_sdk="gradio"))
        out["files"] = api.list_repo_files("ann/first")
        out["title"] = api.list_repo_commits("ann/first")[0].title
        out["private"] = api.repo_info("ann/data", repo_type="dataset").private
        api.update_repo_settings("ann/first", visibility="private", gated="manual")
        info = api.model_info("ann/first")
        out["settings"] = [info.private, info.gated]
        api.update_repo_settings("ann/first", visibility="public", gated=False)
        info = api.model_info("ann/first")
        out["reset"] = [info.private, info.gated]
        api.move_repo("ann/first", "ann/second")
        out["moved"] = [api.model_info("ann/first").id, api.model_info("ann/second").id]
        api.create_repo("ann/third")
        out["clash"] = told(errors.HfHubHTTPError, api.move_repo, "ann/second", "ann/third")
        api.delete_repo("ann/second")
        out["gone"] = [api.repo_exists("ann/second"), api.repo_exists("ann/first")]
        api.delete_repo("ann/second", missing_ok=True)
        me = api.whoami()
        out["overview"] = api.get_user_overview("ann").num_models
        out["me"] = [me["name"], me["type"], me["auth"]["accessToken"]["role"]]
        """
    )
    place = hub.house.url
    assert out["url"] == [f"{place}/ann/first", "ann/first"]
    assert out["again"] == f"{place}/ann/first"
    assert out["taken"] == [409, "You already created this model repo: ann/first"]
    assert out["foreign"][0] == 403
    assert (out["dataset"], out["space"]) == (f"{place}/datasets/ann/data", f"{place}/spaces/ann/app")
    assert (out["files"], out["title"], out["private"]) == ([".gitattributes"], "initial commit", True)
    assert (out["settings"], out["reset"]) == ([True, "manual"], [False, False])
    assert out["moved"] == ["ann/second", "ann/second"]
    assert out["clash"] == [409, "A model repository called ann/third already exists"]
    assert out["gone"] == [False, False]
    assert out["overview"] >= 1
    assert out["me"] == ["ann", "user", "admin"]


@pytest.mark.parametrize("xet", [True, False], ids=["by chunks", "whole"])
def test_files_small_and_large_come_back_as_they_went(hub: Visitor, *, xet: bool) -> None:
    out = hub.run(
        """
        import hashlib, random
        repo = api.create_repo("whole" if "HF_HUB_DISABLE_XET" in os.environ else "chunked").repo_id
        api.upload_file(repo_id=repo, path_in_repo="config.json", path_or_fileobj=b'{"a": 1}')
        large = random.Random(1).randbytes(11 << 20)
        commit = api.upload_file(repo_id=repo, path_in_repo="sub/model.safetensors", path_or_fileobj=large)
        out["url"] = [commit.commit_url, commit.oid]
        twice = api.upload_file(repo_id=repo, path_in_repo="sub/model.safetensors", path_or_fileobj=large)
        out["same"] = twice.oid == commit.oid
        out["tip"] = api.model_info(repo).sha
        [info] = api.get_paths_info(repo, "sub/model.safetensors")
        out["lfs"] = [info.lfs.size, info.lfs.sha256 == hashlib.sha256(large).hexdigest()]
        out["back"] = [content("sub/model.safetensors", repo) == large, content("config.json", repo).decode()]
        ops = [
            CommitOperationCopy("sub/model.safetensors", "copy.safetensors"),
            CommitOperationCopy("config.json", "copy.json"),
            CommitOperationDelete("sub/"),
            CommitOperationAdd("new.txt", b"new"),
        ]
        made = api.create_commit(repo, ops, commit_message="Mixed", commit_description="More words")
        out["files"] = sorted(api.list_repo_files(repo))
        out["copied"] = content("copy.safetensors", repo, revision=made.oid) == large
        first = api.list_repo_commits(repo)[0]
        out["commit"] = [first.title, first.message, first.authors]
        out["stale"] = told(errors.HfHubHTTPError, api.create_commit, repo, [CommitOperationAdd("x", b"x")],
                            commit_message="s", parent_commit=commit.oid)
        out["absent"] = told(errors.RemoteEntryNotFoundError, api.delete_file, "nothing", repo)
        out["bad"] = told(errors.HfHubHTTPError, api.upload_file, repo_id=repo, path_in_repo="a/aux.txt",
                          path_or_fileobj=b"x")
        out["nowhere"] = told(errors.RevisionNotFoundError, api.upload_file, repo_id=repo, path_in_repo="a",
                              path_or_fileobj=b"x", revision="nowhere")
        """,
        xet=xet,
    )
    assert out["url"] == [f"{hub.house.url}/ann/{'chunked' if xet else 'whole'}/commit/{out['tip']}", out["tip"]]
    assert out["same"] is True
    assert out["lfs"] == [11 << 20, True]
    assert out["back"] == [True, '{"a": 1}']
    assert out["files"] == [".gitattributes", "config.json", "copy.json", "copy.safetensors", "new.txt"]
    assert out["copied"] is True
    assert out["commit"] == ["Mixed", "More words", ["ann"]]
    assert out["stale"] == [
        412,
        "The branch was updated since you opened this page. Please refresh and try again.",
    ]
    assert out["absent"] == [404, 'A file with the name "nothing" does not exist']
    assert out["bad"][0] == 422
    assert out["nowhere"] == [404, "Invalid rev id: nowhere"]


def test_a_folder_of_500_files_is_one_quick_commit(hub: Visitor) -> None:
    out = hub.run(
        """
        repo = api.create_repo("folder").repo_id
        os.makedirs("tree/.git")
        open("tree/.git/config", "w").write("never sent")
        open("tree/.gitignore", "w").write("*.log\\n")
        open("tree/noise.log", "w").write("ignored")
        for number in range(500):
            os.makedirs(f"tree/{number % 10}", exist_ok=True)
            open(f"tree/{number % 10}/{number}.json", "w").write(json.dumps({"n": number}))
        start = time.perf_counter()
        api.upload_folder(repo_id=repo, folder_path="tree", commit_message="All")
        out["seconds"] = time.perf_counter() - start
        out["files"] = len(api.list_repo_files(repo))
        out["commits"] = [one.title for one in api.list_repo_commits(repo)]
        before = api.model_info(repo).sha
        api.upload_folder(repo_id=repo, folder_path="tree")
        out["again"] = api.model_info(repo).sha == before
        api.upload_folder(repo_id=repo, folder_path="tree/1", path_in_repo="1", delete_patterns="*1.json")
        api.delete_folder("2", repo)
        out["left"] = len(api.list_repo_files(repo))
        """,
        # With Xet the client makes a commit of each 250 files.
        xet=False,
    )
    assert out["files"] == 502
    assert out["commits"] == ["All", "initial commit"]
    assert out["again"] is True
    assert out["left"] == 452
    assert commit_seconds(hub.house, "folder") < 1


def commit_seconds(house: House, repo: str) -> float:
    """The longest that the server took for a commit to a repo, from its log."""
    lines = [json.loads(line) for line in house.log.read_text().splitlines() if line.startswith("{")]
    times = [line["ms"] for line in lines if f"/{repo}/commit/" in line.get("path", "")]
    return float(max(times)) / 1000


def test_branches_tags_and_squash(hub: Visitor) -> None:
    out = hub.run(
        """
        repo = api.create_repo("refs").repo_id
        first = api.model_info(repo).sha
        api.upload_file(repo_id=repo, path_in_repo="a", path_or_fileobj=b"a")
        api.create_branch(repo, branch="dev/x")
        api.create_branch(repo, branch="old", revision=first)
        api.create_branch(repo, branch="old", exist_ok=True)
        out["taken"] = told(errors.HfHubHTTPError, api.create_branch, repo, branch="old")
        out["bad"] = told(errors.BadRequestError, api.create_branch, repo, branch="refs/pr/5")
        api.upload_file(repo_id=repo, path_in_repo="b", path_or_fileobj=b"b", revision="dev/x")
        out["dev"] = sorted(api.list_repo_files(repo, revision="dev/x"))
        out["main"] = sorted(api.list_repo_files(repo))
        api.create_tag(repo, tag="v1")
        api.create_tag(repo, tag="v2", revision="dev/x", tag_message="Second")
        api.create_tag(repo, tag="v1", exist_ok=True)
        out["tag"] = told(errors.HfHubHTTPError, api.create_tag, repo, tag="v1")
        out["lost"] = told(errors.RevisionNotFoundError, api.create_tag, repo, tag="v3", revision="nowhere")
        refs = api.list_repo_refs(repo)
        out["refs"] = [sorted(one.name for one in refs.branches), sorted(one.name for one in refs.tags)]
        out["v2"] = sorted(api.list_repo_files(repo, revision="v2"))
        api.delete_tag(repo, tag="v1")
        api.delete_branch(repo, branch="dev/x")
        out["default"] = told(errors.HfHubHTTPError, api.delete_branch, repo, branch="main")
        out["missing"] = told(errors.HfHubHTTPError, api.delete_branch, repo, branch="dev/x")
        api.super_squash_history(repo)
        out["history"] = [one.title for one in api.list_repo_commits(repo)]
        out["left"] = sorted(api.list_repo_files(repo))
        out["squash tag"] = told(errors.BadRequestError, api.super_squash_history, repo, branch="v2")
        """
    )
    assert out["taken"] == [409, "Reference refs/heads/old already exists"]
    assert out["bad"] == [400, "Invalid reference for a branch"]
    assert (out["dev"], out["main"]) == ([".gitattributes", "a", "b"], [".gitattributes", "a"])
    assert out["tag"][0] == 409
    assert out["lost"] == [404, "Invalid rev id: nowhere"]
    assert out["refs"] == [["dev/x", "main", "old"], ["v1", "v2"]]
    assert out["v2"] == [".gitattributes", "a", "b"]
    assert out["default"] == [403, "Cannot delete refs/heads/main"]
    assert out["missing"] == [404, "Invalid rev id: dev/x"]
    assert out["history"] == ["Super-squash branch 'main' using huggingface_hub"]
    assert out["left"] == [".gitattributes", "a"]
    assert out["squash tag"][0] == 400


def test_cards_are_pushed_and_changed(hub: Visitor) -> None:
    out = hub.run(
        """
        repo = api.create_repo("card").repo_id
        ModelCard("---\\nlicense: mit\\ntags: [a]\\n---\\n# Card\\n").push_to_hub(repo)
        metadata_update(repo, {"language": "en", "pipeline_tag": "text-generation"})
        card = ModelCard.load(repo)
        out["card"] = card.data.to_dict()
        info = api.model_info(repo)
        out["info"] = [info.pipeline_tag, "license:mit" in info.tags]
        try:
            api.upload_file(repo_id=repo, path_in_repo="README.md", path_or_fileobj=b"---\\nlicense: [\\n---\\n")
        except ValueError as error:
            out["refused"] = str(error)
        """
    )
    assert out["card"] == {"license": "mit", "tags": ["a"], "language": "en", "pipeline_tag": "text-generation"}
    assert out["info"] == ["text-generation", True]
    assert "Invalid metadata in README.md" in out["refused"]


def test_a_pull_request_is_refused_in_words(hub: Visitor) -> None:
    out = hub.run(
        """
        repo = api.create_repo("pulls").repo_id
        out["told"] = told(errors.HfHubHTTPError, api.create_commit, repo, [CommitOperationAdd("x", b"x")],
                           commit_message="s", create_pr=True)
        """
    )
    assert out["told"] == [501, "This server has no pull requests yet; commit to a branch instead."]
