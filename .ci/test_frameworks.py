"""The module in the frameworks that take `background=`, each served by uvicorn and called over a socket."""

import asyncio
import itertools
import socket
import sys
from collections import Counter
from urllib.parse import urlsplit

import fastapi
import fastapi.exceptions
import httpx
import pytest
from apps.serving import APPS, CLIENT, PATIENCE, README, serving, until

from background import BackgroundTask, BackgroundTasks

FRAMEWORKS = ["starlette", "fastapi", "lilya", "ravyn", "litestar"]
ADA = {"email": "ada@example.org"}
SNIPPETS = [  # of the README: the heading, where it listens, and what it is sent
    ("FastAPI", "/register", ADA),
    ("FastAPI", "/injected", ADA),
    ("Starlette", "/register", ADA),
    ("Lilya", "/invite", ["ada@example.org", "grace@example.org"]),
    ("Esmerald / Ravyn", "/register", ADA),
    ("Litestar", "/register", ADA),
]
DECORATED = ["Esmerald / Ravyn", "Litestar"]  # whose snippets have a task in a decorator, too: /visit
KINDS = {"async": ["a"], "sync": ["b"], "in-order": ["a", "b", "c"], "as-group": ["a", "b", "c"]}
INJECTED = {  # in FastAPI, the tasks that run
    "with-ours-added": ["theirs", "a", "b", "c"],
    "with-ours-in-the-response": ["a", "b", "c"],  # its rule: such a response replaces what was injected
    "into-ours": ["a", "b", "c", "theirs"],
}
UVICORN = (sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", "0")
names = (f"request {number}" for number in itertools.count())


class Request:
    """One request, or several under one name, to a framework's app: its journal and its tasks' release."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.headers = {"x-request-name": next(names)}

    def post(self, path: str) -> httpx.Response:
        return self.client.post(path, headers=self.headers)

    def journal(self) -> list[str]:
        return self.client.get("/journal", headers=self.headers).json()

    def release(self) -> None:
        self.client.get("/release", headers=self.headers).raise_for_status()

    def journal_with(self, event: str, times: int = 1) -> list[str]:
        until(lambda: self.journal().count(event) >= times, f"{times} times {event!r} in {self.journal()}")
        return self.journal()

    def ended(self) -> list[str]:
        """The journal without the two events that every request has."""
        return [
            event for event in self.journal_with("request ended") if event not in ("response sent", "request ended")
        ]


@pytest.fixture(scope="module", params=FRAMEWORKS)
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with serving(folder, *UVICORN, "--factory", f"apps.frameworks:{request.param}") as server:
        server.framework = request.param
        yield server


@pytest.fixture
def request_to(server):
    return lambda: Request(server.client)


def is_created(response: httpx.Response) -> bool:
    return response.is_success and response.json() == {"message": "Created"}


def events(server) -> list[str]:
    """What the app of a snippet has printed, in order."""
    words = ("answered", "mail", "one more visit")
    return [line for line in server.printed().splitlines() if line.startswith(words)]


def begun_and_ended(*tasks: str) -> list[str]:
    return [f"{task} {event}" for task in tasks for event in ("began", "ended")]


@pytest.mark.parametrize(("heading", "path", "sent"), SNIPPETS)
def test_a_snippet_of_the_readme_sends_mail_to_whom_the_request_names_after_the_response(heading, path, sent, tmp_path):
    with serving(tmp_path, sys.executable, "-m", "apps.serve", APPS[heading], "async") as server:
        response = server.client.post(path, json=sent)
        assert response.status_code == 202
        addresses = sent if isinstance(sent, list) else [sent["email"]]
        for address in addresses:
            assert server.prints(f"mail begun: {address}\n")
        assert "mail sent" not in server.printed()
        (tmp_path / "release").touch()
        for address in addresses:
            assert server.prints(f"mail sent: {address}\n")
        first, *rest = events(server)
        assert first == "answered"
        assert len(rest) == 2 * len(addresses)


@pytest.mark.parametrize("heading", DECORATED)
def test_the_task_of_a_decorator_runs_after_each_response(heading, tmp_path):
    with serving(tmp_path, sys.executable, "-m", "apps.serve", APPS[heading], "unchanged") as server:
        for times in range(1, 4):
            response = server.client.post("/visit")
            assert response.status_code == 201
            assert response.json() == {"status": "counted"}
            assert server.prints("one more visit", times)
        assert events(server) == ["answered", "one more visit"] * 3


@pytest.mark.parametrize("heading", dict.fromkeys(heading for heading, *_ in SNIPPETS))
def test_the_app_of_the_snippets_runs_as_it_stands(heading, tmp_path):
    with serving(tmp_path, *UVICORN, f"apps.{APPS[heading]}:app") as server:
        for number, (path, sent) in enumerate([with_it[1:] for with_it in SNIPPETS if with_it[0] == heading], 1):
            assert server.client.post(path, json=sent).status_code == 202
            assert server.prints("e-mail to ada@example.org\n", number)


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_has_the_whole_response_while_the_task_is_still_held(request_to, kind):
    request = request_to()
    assert is_created(request.post(f"/held/{kind}"))
    first = KINDS[kind][0]
    assert request.journal_with(f"{first} began")[:2] == ["response sent", f"{first} began"]
    if kind == "as-group":
        until(lambda: sum("began" in event for event in request.journal()) == 3, "all tasks of the group at work")
    assert not [event for event in request.journal() if "ended" in event]

    request.release()
    journal = request.journal_with("request ended")
    assert journal[-1] == "request ended"
    if kind == "as-group":
        assert sorted(journal[1:-1]) == sorted(begun_and_ended(*KINDS[kind]))
    else:
        assert journal[1:-1] == begun_and_ended(*KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_one_shared_instance_serves_200_concurrent_requests_and_runs_200_times(server, request_to, kind):
    request = request_to()

    async def post(times: int) -> None:
        async with httpx.AsyncClient(
            base_url=server.url, limits=httpx.Limits(max_connections=None), **CLIENT
        ) as client:
            posts = (client.post(f"/held/{kind}", headers=request.headers) for _ in range(times))
            assert all(is_created(response) for response in await asyncio.gather(*posts))

    async def post_200_times() -> None:
        # One client's pool needs a time that grows with the square of its connections.
        await asyncio.gather(*(post(20) for _ in range(10)))

    asyncio.run(post_200_times())
    while_held = Counter(request.journal())
    assert while_held["response sent"] == 200
    assert not [event for event in while_held if "ended" in event]

    request.release()
    runs = Counter(request.journal_with("request ended", times=200))
    assert runs == dict.fromkeys(["response sent", *begun_and_ended(*KINDS[kind]), "request ended"], 200)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failing_task_is_logged_under_its_name_and_the_server_goes_on(server, request_to, kind):
    def logged() -> int:
        named = "raised by BackgroundTask(apps.frameworks.fail{})"
        return server.printed().count(named.format("_in_thread" if kind == "sync" else ""))

    before = logged()
    request = request_to()
    assert is_created(request.post(f"/fail/{kind}"))
    request.journal_with("request ended")
    until(lambda: logged() > before, f"the name of the failed task in\n{server.printed()[-3000:]}")
    assert "ConnectionError: " in server.printed()

    request = request_to()
    assert is_created(request.post("/context/async"))
    assert request.ended() == [f"a signed {request.headers['x-request-name']}"]


@pytest.mark.parametrize("moment", ["before the response", "during the response"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_disconnects_early_does_not_lose_the_task(server, request_to, kind, moment):
    request = request_to()
    where = urlsplit(server.url)
    headers = request.headers | {"host": where.netloc, "x-leaves": moment, "content-length": "0"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((where.hostname, where.port), timeout=PATIENCE) as client:
        client.sendall(f"POST /held/{kind} HTTP/1.1\r\n{head}\r\n".encode())
        if moment == "during the response":
            received = b""
            while b'{"mess' not in received:
                received += client.recv(1024)
            assert b"}" not in received
    request.journal_with(f"{KINDS[kind][0]} began")
    request.release()

    journal = request.journal_with("request ended")
    assert journal[:2] == ["client left", "response sent"]
    assert sorted(journal[2:-1]) == sorted(begun_and_ended(*KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_see_the_context_variables_that_middleware_and_endpoint_have_set(request_to, kind):
    for _ in range(2):
        request = request_to()
        assert is_created(request.post(f"/context/{kind}"))
        signed = f"signed {request.headers['x-request-name']}"
        assert sorted(request.ended()) == [f"{task} {signed}" for task in KINDS[kind]]


def test_our_containers_run_inside_the_frameworks_own(server, request_to):
    ways = {"added": 2, "listed": 2, "wrapped": 1}
    if server.framework == "litestar":
        del ways["added"]  # its container has no add_task
    for way, containers in ways.items():
        request = request_to()
        assert is_created(request.post(f"/theirs/{way}"))
        request.journal_with("a began")
        request.release()
        assert Counter(request.ended()) == dict.fromkeys(begun_and_ended("a", "b", "c"), containers), way


@pytest.mark.parametrize("server", ["fastapi"], indirect=True)
@pytest.mark.parametrize("where", INJECTED)
def test_tasks_injected_by_fastapi_run_beside_ours(request_to, where):
    request = request_to()
    assert is_created(request.post(f"/injected/{where}"))
    assert [event.split()[0] for event in request.ended()] == INJECTED[where]


# ---- what the README says of FastAPI


@pytest.mark.parametrize("ours", [BackgroundTask, BackgroundTasks])
def test_ours_as_the_annotation_of_a_parameter_is_refused_by_fastapi(ours):
    async def register(data: dict[str, str], tasks: ours) -> None: ...

    refusal = "Invalid args for response field!"
    assert f"`{refusal}`" in README.read_text()
    with pytest.raises(fastapi.exceptions.FastAPIError, match=refusal):
        fastapi.FastAPI().post("/register")(register)


@pytest.mark.parametrize("server", ["fastapi"], indirect=True)
@pytest.mark.parametrize("how", ["attached-to-no-response", "set-on-the-injected-response"])
def test_fastapi_runs_nothing_of_what_is(request_to, how):
    request = request_to()
    assert is_created(request.post(f"/nothing/{how}"))
    assert request.ended() == []


@pytest.mark.parametrize("server", ["fastapi"], indirect=True)
def test_a_plain_def_endpoint_of_fastapi_gives_its_task_to_the_response(request_to):
    request = request_to()
    assert is_created(request.post("/plain/response"))
    assert request.journal_with("a began") == ["response sent", "a began"]
    request.release()
    assert request.ended() == ["a began", "a ended"]


@pytest.mark.parametrize("server", ["fastapi"], indirect=True)
def test_a_plain_def_endpoint_of_fastapi_cannot_start_its_task(server, request_to):
    request = request_to()
    assert request.post("/plain/start").status_code == 500
    assert request.ended() == []
    until(lambda: "RuntimeError: no running event loop" in server.printed(), "the error in the log")
    assert "call start() on the event loop, or hand the task to a response" in server.printed()


# ---- what it says of Ravyn


@pytest.mark.parametrize("server", ["ravyn"], indirect=True)
def test_ravyn_runs_ours_wherever_it_runs_its_own(request_to):
    def ran(task: str, returned: str) -> bool:
        request = request_to()
        created = is_created(request.post(f"/returns/{task}/{returned}"))
        return created and len(request.ended()) == 1

    for returned in ["data", "response", "response-with-it", "container"]:
        assert ran("ours", returned) == ran("theirs", returned), returned
    assert ran("ours", "data")
    assert not ran("ours", "response")
    assert not ran("ours", "container-with-it")
    assert ran("ours", "response-with-it")
    assert ran("theirs", "container-with-it")
    assert ran("ours-wrapped", "container-with-it")
