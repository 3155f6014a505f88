"""From the real ledger to a real nats-server: what its stream holds is what the ledger holds, each record once."""

import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy

from taximeter.errors import SinkError
from taximeter.shipping.sinks import nats_link
from taximeter.shipping.sinks.nats import NatsSink
from tests.require import require_program
from tests.shipping.nats_keys import USER, Key, Realm
from tests.shipping.nats_servers import STREAM, SUBJECT, NatsServer, kept, serving
from tests.shipping.receiver import event, events
from tests.system import agents
from tests.system.test_shipping_http import Node, node, shipping

__all__ = ["node"]  # a fixture

pytestmark = [pytest.mark.anyio, pytest.mark.system]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with serving(tmp_path) as server:
        yield server


async def refused(sink: NatsSink, bodies: Sequence[bytes] = ()) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await sink.send(bodies or events(2))
    await sink.close()
    return caught.value


async def test_what_the_ledger_holds_is_delivered_whole_and_in_order(server: NatsServer, node: Node) -> None:
    await node.run(60)
    async with shipping(node, NatsSink("billing", server.url, SUBJECT)):
        await node.drained("billing")
    assert await server.messages() == await node.bodies()


async def test_a_message_says_what_it_is(server: NatsServer) -> None:
    sink = NatsSink("billing", server.url, SUBJECT)
    await sink.send(events(1))
    await sink.close()
    async with server.asked() as streams:
        headers = (await streams.get_msg(STREAM, 1)).headers
    assert headers == {"Nats-Msg-Id": "r-00000001", "content-type": "application/cloudevents+json"}


async def test_killed_and_started_again_in_mid_shipping_the_stream_has_each_record_once(
    server: NatsServer, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged, kills = 0, [150, 140, 101, 60, 1]  # all of a batch is on its way by then

    async def answered(link: nats_link.Link, message: Msg) -> None:
        nonlocal acknowledged
        acknowledged += 1
        if kills and acknowledged > kills[-1]:
            kills.pop()
            server.kill()
            await server.start()
        await heard(link, message)

    heard = nats_link.Link._answered
    monkeypatch.setattr(nats_link.Link, "_answered", answered)
    await node.run(120)
    async with shipping(node, NatsSink("billing", server.url, SUBJECT, timeout_s=20)):
        await node.drained("billing")
    assert not kills
    assert sorted(await server.messages()) == sorted(await node.bodies())


async def test_a_server_that_hangs_is_a_timeout_and_what_it_took_is_not_taken_twice(server: NatsServer) -> None:
    sink = NatsSink("billing", server.url, SUBJECT, timeout_s=1)
    await sink.send(events(1))
    server.hang()
    assert (await refused(sink)).reason == "timeout"
    server.go_on()
    await sink.send(events(3))
    await sink.close()
    assert await server.messages() == events(3)


async def test_with_the_id_in_the_subject_a_record_is_taken_once_however_late_it_comes_again(tmp_path: Path) -> None:
    async with forgetful(tmp_path, f"{SUBJECT}.*") as server:
        sink = NatsSink("billing", server.url, f"{SUBJECT}.{{id}}")
        await sink.send(events(3))
        await forgotten()
        await sink.send(events(5))
        await sink.close()
        assert await server.messages() == events(5)


@asynccontextmanager
async def forgetful(directory: Path, *subjects: str, **how: Any) -> AsyncIterator[NatsServer]:
    """A server whose stream takes ids for new at once."""
    async with serving(directory, *subjects, **how) as server:
        async with server.asked() as streams:
            await streams.update_stream(name=STREAM, subjects=list(subjects), duplicate_window=0.1)
        yield server


async def forgotten() -> None:
    await anyio.sleep(0.3)


async def test_another_record_under_the_same_id_is_no_repeat(tmp_path: Path) -> None:
    async with forgetful(tmp_path, f"{SUBJECT}.*") as server:
        sink = NatsSink("billing", server.url, f"{SUBJECT}.{{id}}")
        await sink.send(events(3))
        await forgotten()
        error = await refused(sink, [*events(1), event(2, source="/nodes/restored")])
        assert (error.reason, f"another record under {SUBJECT}.r-00000002" in str(error)) == ("diverged", True)
        assert await server.messages() == events(3)


async def test_subjects_that_are_mapped_to_one_do_not_count_as_delivered(tmp_path: Path) -> None:
    mapping = f'mappings = {{ "{SUBJECT}.*": "part.{{{{partition(1,1)}}}}" }}'
    async with serving(tmp_path, "part.*", config=mapping) as server:
        error = await refused(NatsSink("billing", server.url, f"{SUBJECT}.{{id}}"))
        assert (error.reason, "does not show it" in str(error)) == ("server_error", True)


async def test_who_may_not_look_whether_a_repeat_is_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("s3cret")
    async with forgetful(tmp_path, f"{SUBJECT}.*", config=USERS, secret="node:s3cret@") as server:
        sink = NatsSink("billing", server.url, f"{SUBJECT}.{{id}}", token_file=path, user="writer")
        await sink.send(events(2))
        await forgotten()
        error = await refused(sink)
        assert (error.reason, "$js.api.stream.msg.get.usage" in str(error)) == ("refused", True)


async def test_a_subject_that_no_stream_takes_is_said_and_mended_by_a_stream(server: NatsServer) -> None:
    sink = NatsSink("billing", server.url, "taximeter.other")
    error = await refused(sink)
    assert error.reason == "no_stream"
    assert "expected a JetStream stream with this subject" in str(error)
    async with server.asked() as streams:
        await streams.update_stream(name=STREAM, subjects=["taximeter.other"])
    await sink.send(events(2))
    await sink.close()
    assert await server.messages() == events(2)


async def test_a_stream_that_is_full_is_the_servers_error_and_loses_nothing(server: NatsServer) -> None:
    async with server.asked() as streams:
        full = {"name": STREAM, "subjects": [SUBJECT], "discard": DiscardPolicy.NEW}
        await streams.update_stream(**full, max_msgs=1)
        sink = NatsSink("billing", server.url, SUBJECT)
        assert (await refused(sink)).reason == "server_error"
        await streams.update_stream(**full, max_msgs=-1)
    await sink.send(events(2))
    await sink.close()
    assert sorted(await server.messages()) == events(2)


async def test_a_record_beyond_what_the_stream_takes_is_too_large(server: NatsServer) -> None:
    async with server.asked() as streams:
        await streams.update_stream(name=STREAM, subjects=[SUBJECT], max_msg_size=10)
    assert (await refused(NatsSink("billing", server.url, SUBJECT))).reason == "too_large"


async def test_records_that_the_stream_will_not_have_hold_up_no_other(server: NatsServer, node: Node) -> None:
    await node.run(10)
    bodies = await node.bodies()
    sizes = sorted(len(body) for body in bodies)
    middle = (sizes[0] + sizes[-1]) // 2
    sink = NatsSink("billing", server.url, SUBJECT)
    headers_bytes = len(b"NATS/1.0\r\n\r\n") + sum(
        len(f"{name}: {value}\r\n") for name, value in sink._message(bodies[0]).headers.items()
    )
    async with server.asked() as streams:
        await streams.update_stream(name=STREAM, subjects=[SUBJECT], max_msg_size=middle + headers_bytes)
    async with shipping(node, sink):
        await node.drained("billing")
    taken = [body for body in bodies if len(body) <= middle]
    assert 0 < len(taken) < len(bodies)
    assert sorted(await server.messages()) == sorted(taken)
    assert node.ledger.dead_letters() == {"billing": len(bodies) - len(taken)}


async def test_a_record_beyond_what_the_server_takes_is_too_large(server: NatsServer) -> None:
    sink = NatsSink("billing", server.url, SUBJECT)
    with pytest.raises(SinkError) as caught:
        await sink.send([json.dumps({"id": "r-1", "data": "x" * 1_100_000}).encode()])
    await sink.close()
    assert caught.value.reason == "too_large"


TOKEN = 'authorization { token: "s3cret" }'
USERS = """authorization { users: [
    {user: node, password: s3cret}, {user: reader, password: s3cret, permissions: {publish: "nothing"}},
    {user: writer, password: s3cret, permissions: {publish: "taximeter.usage.>", subscribe: "_INBOX.>"}}
] }"""


@pytest.mark.parametrize(("token", "reason"), [("s3cret\n", None), ("wr0ng", "refused"), (None, "refused")])
async def test_the_token_lets_in_and_another_is_refused(tmp_path: Path, token: str | None, reason: str | None) -> None:
    path = tmp_path / "token"
    path.write_text(token or "")
    async with serving(tmp_path, config=TOKEN, secret="s3cret@") as server:
        sink = NatsSink("billing", server.url, SUBJECT, token_file=path if token else None)
        if reason is None:
            await sink.send(events(2))
            await sink.close()
        else:
            error = await refused(sink)
            assert error.reason == reason
            assert "expected credentials" in str(error)
            assert not token or token not in str(error)
        assert await server.messages() == ([] if reason else events(2))


async def test_a_token_that_was_changed_is_used_for_the_next_connection(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("wr0ng")
    async with serving(tmp_path, config=TOKEN, secret="s3cret@") as server:
        sink = NatsSink("billing", server.url, SUBJECT, token_file=path)
        assert (await refused(sink)).reason == "refused"
        path.write_text("s3cret")
        await sink.send(events(2))
        await sink.close()
        assert await server.messages() == events(2)


async def test_a_user_has_the_password_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret")
    async with serving(tmp_path, config=USERS, secret="node:s3cret@") as server:
        sink = NatsSink("billing", server.url, SUBJECT, token_file=tmp_path / "password", user="node")
        await sink.send(events(2))
        await sink.close()
        assert await server.messages() == events(2)


async def test_a_user_that_may_not_publish_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret")
    async with serving(tmp_path, config=USERS, secret="node:s3cret@") as server:
        sink = NatsSink("billing", server.url, SUBJECT, token_file=tmp_path / "password", user="reader", timeout_s=60)
        error = await refused(sink)
        assert error.reason == "refused"
        assert "permissions violation" in str(error)


@pytest.mark.parametrize("with_jwt", [False, True], ids=["seed", "jwt"])
async def test_who_has_credentials_signs_the_servers_challenge(tmp_path: Path, with_jwt: bool) -> None:
    realm, key, other = Realm(), Key(USER), Key(USER)
    config = realm.config if with_jwt else f"authorization {{ users: [{{nkey: {key.public}}}] }}"
    login = realm.user.login(realm.jwt) if with_jwt else key.login()
    path = tmp_path / "creds"
    async with serving(tmp_path, config=config, login=login, nkey=key.public) as server:
        sink = NatsSink("billing", server.url, SUBJECT, creds_file=path)
        path.write_text(realm.creds.replace(realm.user.seed, other.seed) if with_jwt else other.seed)
        error = await refused(sink)
        assert error.reason == "refused"
        assert other.seed not in str(error)
        path.write_text(realm.creds if with_jwt else f"# ours\n{key.seed}\n")
        await sink.send(events(2))
        await sink.close()
        assert await server.messages() == events(2)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    openssl, path = require_program("openssl"), tmp_path / "cert.pem"
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", path.with_suffix(".key")]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    subprocess.run([openssl, "req", "-x509", *key, *name, "-out", path], check=True, capture_output=True)
    return path


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_tls_is_verified(tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    (tmp_path / "token").write_text("s3cret")
    config = f'{TOKEN}\ntls {{ cert_file: "{certificate}", key_file: "{certificate.with_suffix(".key")}" }}'
    with kept(NatsServer(tmp_path, config, "s3cret@", scheme)) as server:
        await server.start()
        sink = NatsSink("billing", server.url, SUBJECT, token_file=tmp_path / "token")
        assert (await refused(sink)).reason == "tls"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        await server.make_stream()
        await sink.send(events(2))
        await sink.close()
        assert await server.messages() == events(2)


# What an agent makes of its configuration.


async def test_an_agent_ships_to_a_stream_and_to_a_file_that_rotates(tmp_path: Path, taximeter_program: str) -> None:
    here = agents.Node(taximeter_program, tmp_path / "node")
    secret = here.path / "nats.password"
    here.state.mkdir(parents=True)
    old = b"# a note\n" * 120_000
    (here.state / "usage.ndjson").write_bytes(old)
    async with serving(tmp_path, f"{SUBJECT}.*", config=USERS, secret="node:s3cret@") as server:
        here.config = (
            f'[[sinks]]\nname = "stream"\ntype = "nats"\nurl = "{server.url}"\nsubject = "{SUBJECT}.{{id}}"\n'
            'user = "node"\ntoken_file = "nats.password"\n'
            '[[sinks]]\nname = "usage"\ntype = "file"\npath = "usage.ndjson"\nrotate_bytes = 1_048_576\nkeep = 2\n'
        )
        secret.touch(0o600)
        secret.write_text("wr0ng")
        here.run("--", "true")
        with here.agent() as agent:
            refused = 'taximeter_ship_failures_total{reason="refused",sink="stream"}'
            agents.wait_until(lambda: agent.metric(refused), "a wrong password that is refused")
            assert "reason=refused" in agent.log.read_text()
        secret.write_text("s3cret")
        with here.agent() as agent:
            for sink in ("stream", "usage"):
                pending = f'taximeter_outbox_pending{{sink="{sink}"}}'
                agents.wait_until(lambda pending=pending: agent.metric(pending) == 0, f"all records at {sink}")
            assert agent.stop() == 0
        messages = await server.messages()
    assert [json.loads(body) for body in messages] == here.records()
    assert (here.state / "usage.ndjson.1").read_bytes() == old
    assert (here.state / "usage.ndjson").read_bytes().splitlines() == messages
