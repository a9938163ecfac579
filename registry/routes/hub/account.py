"""Who the sender is, and cheap answers to what every client asks before it begins."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from registry.errors import BadToken, NeedsLogin
from registry.frontmatter import Json
from registry.profiles import Overview, Profile, Profiles
from registry.routes.auth import Auth

_NOT_HERE = b'{"error":"This server does not have that."}'


class AccountDoor:
    """Tells people what the server knows of them."""

    def __init__(self, *, auth: Auth, profiles: Profiles) -> None:
        self._auth = auth
        self._profiles = profiles

    def whoami(self, request: Request) -> Response:
        """Tell who the sender is: name, organisations, and what the token may do."""
        actor = self._auth.actor(request)
        if actor.anonymous:
            # Clients must not take this for a missing repo, which a 401 with that code would mean.
            raise BadToken("Log in with a token.")
        return JSONResponse(_whoami(self._profiles.me(actor)))

    def user(self, request: Request) -> Response:
        """Tell of a user: names, organisations, number of public repos."""
        self._known(request)
        found = self._profiles.user(request.path_params["name"])
        return JSONResponse({"user": found.name, "type": "user", "orgs": _people(found), **_public(found)})

    def org(self, request: Request) -> Response:
        """Tell of an organisation: names, number of members and public repos."""
        self._known(request)
        found = self._profiles.org(request.path_params["name"])
        return JSONResponse({"name": found.name, "type": "org", "numUsers": len(found.people), **_public(found)})

    def members(self, request: Request) -> Response:
        """List the members of an organisation."""
        self._known(request)
        return JSONResponse(_people(self._profiles.org(request.path_params["name"]), "user"))

    def _known(self, request: Request) -> None:
        """Who is here is told only to people who are here themselves."""
        if self._auth.actor(request).anonymous:
            raise NeedsLogin("Log in with a token to see accounts.")

    async def nothing(self, request: Request) -> Response:
        """Answer calls for services of the Hub that this server does not have, at no cost."""
        return Response(_NOT_HERE, 404, media_type="application/json")

    def routes(self) -> list[Route]:
        """List the routes of this door."""
        return [
            Route("/api/whoami-v2", self.whoami, methods=["GET"]),
            Route("/api/users/{name}/overview", self.user, methods=["GET"]),
            Route("/api/organizations/{name}/overview", self.org, methods=["GET"]),
            Route("/api/organizations/{name}/members", self.members, methods=["GET"]),
            Route("/api/agent-harnesses", self.nothing, methods=["GET"]),
            Route("/api/telemetry/{topic:path}", self.nothing, methods=["GET", "HEAD", "POST"]),
        ]


def _whoami(found: Profile) -> dict[str, Json]:
    orgs: list[Json] = [
        {
            "type": "org",
            "id": format(org.id, "024x"),
            "name": org.name,
            "fullname": org.fullname or org.name,
            "email": None,
            "avatarUrl": "",
            "isEnterprise": False,
            "roleInOrg": org.role,
        }
        for org in found.orgs
    ]
    token: dict[str, Json] = {"displayName": found.token_label, "role": found.token_role}
    return {
        "type": "user",
        "id": format(found.id, "024x"),
        "name": found.name,
        "fullname": found.fullname or found.name,
        "email": found.email,
        "emailVerified": found.email is not None,
        "canPay": False,
        "isPro": False,
        "avatarUrl": "",
        "orgs": orgs,
        "auth": {"type": "access_token", "accessToken": token},
    }


def _people(found: Overview, key: str = "name") -> list[dict[str, Json]]:
    return [
        {key: one.name, "fullname": one.fullname or one.name, "avatarUrl": "", "role": one.role} for one in found.people
    ]


def _public(found: Overview) -> dict[str, Json]:
    return {
        "fullname": found.fullname or found.name,
        "avatarUrl": "",
        "isPro": False,
        "numModels": found.repos.get("model", 0),
        "numDatasets": found.repos.get("dataset", 0),
        "numSpaces": found.repos.get("space", 0),
        "numLikes": 0,
    }
