"""A request is a prediction: which requests, how each ends, and that nothing of it is changed or held back."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.asgi import Meter, meter
from taximeter.asgi.ride import App, Message, Receive, Scope, Send
from tests.asgi.conversation import DISCONNECT, Client, Server, answer, request, serve

USAGE = {"prompt_tokens": 11, "completion_tokens": 7}
SOME = json.dumps({"choices": [], "usage": USAGE}).encode()
EVENT = b"data: " + SOME + b"\n\n"


# Which requests


def test_a_post_is_a_prediction(client: Client) -> None:
    serve(answer(b"{}"))
    assert client.only.status == "succeeded"


@pytest.mark.parametrize("path", ["/health", "/metrics", "/docs", "/tokenize", "/v1/models", "/predictions/p1/cancel"])
def test_what_servers_offer_beside_predictions_is_none(client: Client, path: str) -> None:
    assert serve(answer(b"{}"), request(path)).body == b"{}"
    assert client.predictions == []


def test_a_get_is_none_unless_it_is_set_so(client: Client) -> None:
    serve(answer(b"{}"), request(method="GET"))
    assert client.predictions == []
    serve(answer(b"{}"), request(method="GET"), methods=["get"])
    assert client.only.status == "succeeded"


def test_paths_say_which_are_predictions_and_skip_which_of_them_are_not(client: Client) -> None:
    for path in ("/v1/chat", "/v1/x/embed", "/predict", "/other", "/v1/cheap"):
        serve(answer(b"{}"), request(path), paths=["/v1/*", "/predict"], skip=["/v1/cheap"], headers={"pool": "path"})
    assert len(client.predictions) == 3


def test_a_path_is_taken_below_where_the_application_is_mounted(client: Client) -> None:
    scope = request("/app/health") | {"root_path": "/app"}
    serve(answer(b"{}"), scope)
    assert client.predictions == []


def test_of_two_meters_one_above_the_other_one_measures(client: Client) -> None:
    serve(Meter(Meter(answer(b"{}"))))
    assert client.only.status == "succeeded"


def test_a_request_that_is_no_prediction_is_passed_on_untouched(client: Client) -> None:
    seen: list[object] = []

    async def app(*said: object) -> None:
        seen.extend(said)

    scope = request("/health")
    receive, send = object(), object()
    asyncio.run(Meter(app)(scope, receive, send))  # type: ignore[arg-type]
    assert seen[0] is scope
    assert seen[1:] == [receive, send]


# How it ends


@pytest.mark.parametrize(
    ("status", "ended"), [(200, "succeeded"), (302, "succeeded"), (500, "failed"), (503, "failed")]
)
def test_the_status_says_how_it_ended(client: Client, status: int, ended: str) -> None:
    serve(answer(b"{}", status=status))
    assert client.only.status == ended


@pytest.mark.parametrize("status", [400, 404, 422, 429])
@pytest.mark.parametrize(("settings", "ended"), [({}, "failed"), ({"client_errors": "canceled"}, "canceled")])
def test_a_request_that_is_refused_ends_as_it_is_set(client: Client, status: int, settings: Any, ended: str) -> None:
    serve(answer(b"{}", status=status), **settings)
    assert client.only.status == ended


def test_an_exception_fails_it_and_passes_through(client: Client) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        serve(app)
    assert client.only.status == "failed"


def test_an_application_that_answers_nothing_has_failed(client: Client) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    serve(app)
    assert client.only.status == "failed"


def test_an_answer_that_is_not_whole_has_failed_and_what_was_counted_counts(client: Client) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})

    serve(app)
    assert client.only.status == "failed"
    assert client.only.units == {"token_input": 11, "token_output": 7}


def test_an_error_within_a_stream_is_a_failure_whatever_the_status_said(client: Client) -> None:
    serve(answer(EVENT, b'data: {"error":{"message":"lost the GPU"}}\n\n', content_type="text/event-stream"))
    assert client.only.status == "failed"


def test_it_ends_with_the_last_piece_and_not_with_what_comes_after(client: Client) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(b"a", b"b")(scope, receive, send)
        seen.append(client.only.status)
        raise LookupError("in the background")

    with pytest.raises(LookupError):
        serve(app)
    assert seen == ["succeeded"]
    assert client.only.status == "succeeded"


def test_the_last_piece_is_handed_on_before_it_ends(client: Client) -> None:
    server = Server()
    seen = []

    async def look(message: Message) -> None:
        seen.append((message["type"], client.only.status))

    server.sends = look
    asyncio.run(server.call(Meter(answer(EVENT, EVENT, content_type="text/event-stream")), request()))
    assert seen == [("http.response.start", None), ("http.response.body", None), ("http.response.body", None)]
    assert client.only.status == "succeeded"


# A client that is gone


def streaming_until_gone() -> App:
    """As Starlette streams: it listens for the client's end beside, and is canceled by that."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    return app


def test_a_client_that_leaves_cancels_it_and_what_was_counted_counts(client: Client) -> None:
    serve(streaming_until_gone(), None, {"type": "http.request", "body": b""}, DISCONNECT)
    assert client.only.status == "canceled"
    assert client.only.units == {"token_input": 11, "token_output": 7}


def test_work_for_a_client_that_is_gone_lasts_until_it_is_done(client: Client) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen.append(client.only.status)
        await answer(b"{}")(scope, receive, send)

    serve(app, None, DISCONNECT)
    assert seen == [None]
    assert client.only.status == "canceled"


@pytest.mark.parametrize("error", [OSError, ConnectionResetError, BrokenPipeError])
def test_a_send_that_says_that_nobody_listens_cancels_it(client: Client, error: type[OSError]) -> None:
    async def nobody(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise error

    with pytest.raises(error):
        asyncio.run(Server(sends=nobody).call(Meter(answer(b"a", b"b")), request()))
    assert client.only.status == "canceled"


def test_what_an_application_raises_since_its_client_is_gone_is_no_failure(client: Client) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == DISCONNECT
        raise LookupError

    with pytest.raises(LookupError):
        serve(app, None, DISCONNECT)
    assert client.only.status == "canceled"


def test_a_server_that_cancels_the_task_cancels_it(client: Client) -> None:
    async def main() -> None:
        streams = asyncio.Event()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.body":
                streams.set()

        task = asyncio.create_task(Server(sends=sent).call(Meter(streaming_until_gone()), request()))
        await streams.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert client.only.status == "canceled"
    assert client.only.units == {"token_input": 11, "token_output": 7}


def test_a_disconnect_after_the_whole_answer_changes_nothing(client: Client) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(b"{}")(scope, receive, send)
        await receive()

    serve(app, None, DISCONNECT)
    assert client.only.status == "succeeded"


# What is counted


def test_tokens_of_a_plain_answer_count(client: Client) -> None:
    serve(answer(SOME))
    assert client.only.units == {"token_input": 11, "token_output": 7}


@pytest.mark.parametrize("settings", [{"usage": False}])
def test_nothing_is_counted_where_it_is_set_so(client: Client, settings: Any) -> None:
    serve(answer(SOME), **settings)
    assert client.only.units == {}


def test_an_answer_that_is_an_error_counts_nothing(client: Client) -> None:
    serve(answer(SOME, status=500))
    assert client.only.units == {}


def test_a_compressed_answer_is_not_read_and_counted_so(client: Client) -> None:
    serve(answer(SOME, content_encoding="gzip"))
    assert client.only.units == {"usage_unread": 1}
    assert client.only.status == "succeeded"


# Nothing is changed, nothing held back


@given(
    pieces=st.lists(st.sampled_from([EVENT, b"data: ", b'{"usage":', b"{}", b"\n\n", b"", b"\xff", b'"']), max_size=9),
    content_type=st.sampled_from(["application/json", "text/event-stream", "image/png", ""]),
)
def test_every_message_is_passed_on_at_once_and_every_byte_unchanged(pieces: list[bytes], content_type: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meter, "client", Client())
        server = serve(answer(*pieces, content_type=content_type))
    assert [message["body"] for message in server.heard[1:]] == (pieces or [b""])
    assert server.headers[0] == (b"content-type", content_type.encode())


@pytest.mark.parametrize(
    "start",
    [{}, {"status": "x"}, {"status": 200, "headers": 7}, {"status": 200, "headers": [(1, 2)]}, {"status": 200}],
)
def test_what_is_no_asgi_is_left_to_the_server(client: Client, start: Message) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": None})

    assert serve(app).heard[1] == {"type": "http.response.body", "body": None}


def test_the_answer_names_the_prediction(client: Client) -> None:
    assert (b"taximeter-prediction", b"made-0") in serve(answer(b"{}")).headers


def test_the_name_of_a_prediction_downstream_is_replaced_by_ones_own(client: Client) -> None:
    said = serve(answer(b"{}", taximeter_prediction="another's")).headers
    assert [value for name, value in said if name == b"taximeter-prediction"] == [b"made-0"]


def test_an_answer_names_nothing_where_it_is_set_so(client: Client) -> None:
    assert serve(answer(b"{}"), headers={"prediction": ""}).headers == [(b"content-type", b"application/json")]


# Around it


def test_within_a_request_it_is_the_current_prediction(client: Client) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(client.current())
        await answer(b"{}")(scope, receive, send)

    serve(app)
    assert seen == [client.only]
    assert client.current() is None


def test_a_request_that_a_server_begins_within_anothers_context_has_no_parent(client: Client) -> None:
    metered = Meter(answer(b"{}"))

    async def next_one(message: Message) -> None:
        if message["type"] == "http.response.body" and len(client.predictions) == 1:
            await asyncio.create_task(Server().call(metered, request()))

    asyncio.run(Server(sends=next_one).call(metered, request()))
    assert [told.parent for told in client.predictions] == [None, None]


def test_requests_at_once_are_predictions_of_their_own(client: Client) -> None:
    arrived = []
    all_there = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.append(client.current())
        if len(arrived) == 5:
            all_there.set()
        await all_there.wait()
        assert client.current() in arrived
        await answer(SOME)(scope, receive, send)

    async def main() -> None:
        metered = Meter(app)
        await asyncio.gather(*(Server().call(metered, request(taximeter_account=f"cus_{n}")) for n in range(5)))

    asyncio.run(main())
    assert {told.said["account"]: (told.status, told.units["token_output"]) for told in client.predictions} == {
        f"cus_{n}": ("succeeded", 7) for n in range(5)
    }


def test_an_id_that_is_still_running_here_is_not_taken_twice(client: Client) -> None:
    metered: list[Meter] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if len(client.predictions) == 1:
            await Server().call(metered[0], request(taximeter_prediction="p1"))
        await answer(b"{}")(scope, receive, send)

    metered.append(Meter(app))
    for _ in range(2):
        asyncio.run(Server().call(metered[0], request(taximeter_prediction="p1")))
    assert [told.id for told in client.predictions] == ["p1", "made-1", "p1"]


def test_a_fast_boot_is_active_at_the_latest_when_it_answers(client: Client) -> None:
    serve(answer(b"{}"), request(taximeter_class="fast_boot"))
    assert client.only.was_active


# Other connections


def lifespan(app: App, *said: str, **settings: Any) -> Server:
    scope = {"type": "lifespan"}
    server = Server()
    asyncio.run(server.call(Meter(app, **settings), scope, *({"type": f"lifespan.{word}"} for word in said)))
    return server


async def living(scope: Scope, receive: Receive, send: Send) -> None:
    while True:
        word = (await receive())["type"]
        await send({"type": f"{word}.complete"})
        if word == "lifespan.shutdown":
            return


def test_the_servers_startup_says_ready_and_its_shutdown_stopping(client: Client) -> None:
    server = lifespan(living, "startup", "shutdown")
    assert client.words == ["ready", "stopping drain"]
    assert [message["type"] for message in server.heard] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_startup_that_failed_is_not_ready(client: Client) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})

    lifespan(app, "startup")
    assert client.words == []


def test_the_lifespan_says_nothing_where_it_is_set_so(client: Client) -> None:
    lifespan(living, "startup", "shutdown", lifespan=False)
    assert client.words == []


def test_one_of_many_workers_that_ends_does_not_stop_the_instance(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "_is_the_command", lambda: False)
    lifespan(living, "startup", "shutdown")
    assert client.words == ["ready"]


def websocket(app: App, *messages: Message, **settings: Any) -> None:
    scope = {"type": "websocket", "path": "/v1/realtime", "headers": [(b"taximeter-account", b"cus_1")]}
    asyncio.run(Server().call(Meter(app, **settings), scope, {"type": "websocket.connect"}, *messages))


async def talking(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def test_a_websocket_is_passed_through_unless_it_is_set_otherwise(client: Client) -> None:
    websocket(talking, {"type": "websocket.disconnect", "code": 1000})
    assert client.predictions == []


@pytest.mark.parametrize(("code", "ended"), [(1000, "succeeded"), (1001, "succeeded"), (1006, "canceled")])
def test_a_websocket_may_be_a_prediction_from_its_connection_to_its_end(client: Client, code: int, ended: str) -> None:
    websocket(
        talking,
        {"type": "websocket.receive", "text": "x"},
        {"type": "websocket.disconnect", "code": code},
        websockets=True,
    )
    assert client.only.said["account"] == "cus_1"
    assert client.only.status == ended


@pytest.mark.parametrize(
    ("accepts", "code", "ended"), [(True, 1000, "succeeded"), (True, 1011, "failed"), (False, 1000, "failed")]
)
def test_a_websocket_that_the_application_closes_ends_as_its_code_says(
    client: Client, accepts: bool, code: int, ended: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if accepts:
            await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": code})

    websocket(app, websockets=True)
    assert client.only.status == ended
