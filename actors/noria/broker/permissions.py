"""Server configuration with least-privilege users, made from the table of channels.

NATS does not check the subject that a client names for the answer: in one account, whoever may ask JetStream or the
control API anything can have the answer stored as a fact or as a trigger. So publishers, observers and operators live in
accounts of their own, where such an answer reaches nobody, and import exactly what they need. Inside of an account each
role has an inbox prefix of its own: on a shared one every client could read all replies. Consumers are for workers only,
since wildcards match whole tokens: who may make one consumer of a stream may change all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from noria.contract.channels import CHANNELS, Role, Store
from noria.contract.subjects import Subjects
from noria.errors import DefinitionError

STORES: tuple[Store, ...] = ("runs", "triggers", "dead", "blobs", "records", "catalogue")
WATCHED: tuple[Store, ...] = ("runs", "blobs", "records", "catalogue")
PURGED: tuple[Store, ...] = ("runs", "triggers", "dead", "blobs")
LONG = "1h"  # how long the control API may take to answer: waiting for a run is a request
GUESTS: tuple[Role, ...] = ("publisher", "observer", "operator")


class Import(NamedTuple):
    """What a guest's account takes from the namespace's: `kind` service or stream, `many` answers to one request."""

    kind: str
    subject: str
    to: str = ""
    many: bool = False


class Grants(NamedTuple):
    """What a role may publish and subscribe to; everything else is refused."""

    publish: list[str]
    subscribe: list[str]


def inbox(role: Role) -> str:
    """The `inbox_prefix` with which a role connects."""
    return f"_INBOX_{role}"


def js_prefix(subjects: Subjects) -> str:
    """The `js_prefix` with which an observer connects: in its account `$JS.API` is another one's."""
    return f"$JS.{subjects.ns.upper()}.API"


def stream(subjects: Subjects, store: Store) -> str:
    """The name of a store's stream."""
    name: str = getattr(subjects, store)
    return f"KV_{name}" if store in ("records", "catalogue") else name


def imports(subjects: Subjects, role: Role) -> list[Import]:
    """What a guest's account imports; nothing for those who live in the namespace's own."""
    services = [Import("service", c.filter(subjects)) for c in CHANNELS if role in c.senders]
    streams = [Import("stream", c.filter(subjects)) for c in CHANNELS if role in c.listeners]
    match role:
        case "publisher":
            return services
        case "operator":
            return [*services, Import("service", "$SRV.>", many=True)]
        case "observer":
            reads = [Import("service", f"$JS.API.{verb}", f"{js_prefix(subjects)}.{verb}", many) for verb, many in _reads(subjects, WATCHED)]
            return [*reads, *streams]
        case "worker" | "admin":
            return []


def grants(subjects: Subjects, role: Role) -> Grants:
    """The permissions of a role's user, within its account."""
    own = f"{inbox(role)}.>"
    match role:
        case "publisher" | "observer" | "operator":
            taken = imports(subjects, role)
            publish = [i.to or i.subject for i in taken if i.kind == "service"]
            return Grants(publish, [own, *(i.subject for i in taken if i.kind == "stream")])
        case "worker":
            send = [c.filter(subjects) for c in CHANNELS if role in c.senders]
            hear = [c.filter(subjects) for c in CHANNELS if role in c.listeners]
            api = [f"$JS.API.{verb}" for verb, _ in _reads(subjects, STORES)]
            return Grants([*send, "_R_.>", own, f"{inbox('admin')}.>", *api, *_works(subjects)], [own, *hear, "$SRV.>"])
        case "admin":
            every = [f"{subjects.ns}.>", f"$KV.{subjects.records}.>", f"$KV.{subjects.catalogue}.>", "$SRV.>"]
            return Grants([*every, "$JS.>", f"{inbox('worker')}.>"], [own, "_INBOX.>", *every, "$JS.EVENT.>"])


def _reads(subjects: Subjects, stores: Iterable[Store]) -> list[tuple[str, bool]]:
    """(verb, whether one request gets many answers) of the JetStream API."""
    verbs = ("STREAM.INFO.{}", "STREAM.MSG.GET.{}", "CONSUMER.INFO.{}.*", "DIRECT.GET.{}", "DIRECT.GET.{}.>")
    return [("INFO", False), *((verb.format(stream(subjects, store)), verb == "DIRECT.GET.{}") for store in stores for verb in verbs)]


def _works(subjects: Subjects) -> list[str]:
    verbs = ("API.CONSUMER.CREATE.{}", "API.CONSUMER.CREATE.{}.>", "API.CONSUMER.DELETE.{}.*", "API.CONSUMER.MSG.NEXT.{}.*", "ACK.{}.>")
    consumers = [f"$JS.{verb.format(stream(subjects, store))}" for store in STORES for verb in verbs]
    return [*consumers, *(f"$JS.API.STREAM.PURGE.{stream(subjects, store)}" for store in PURGED)]


def server_files(namespace: str, nodes: int = 3, tls: bool = True) -> dict[str, str]:
    """Files of a configuration directory: `accounts.conf`, shared by `single.conf` and a `cluster-<n>.conf` per node.

    Addresses, certificates and passwords (NORIA_<ROLE>_PASSWORD) come from the server's environment: no secret is in a file.
    """
    if nodes < 1:
        raise DefinitionError("a cluster needs at least one node")
    subjects = Subjects(namespace)
    files = {"accounts.conf": _accounts(subjects), "single.conf": _single(tls)}
    return {**files, **{f"cluster-{n}.conf": _node(n, nodes, tls) for n in range(1, nodes + 1)}}


def _accounts(subjects: Subjects) -> str:
    home = subjects.ns.upper()
    members = "\n".join(_user(subjects, role) for role in ("worker", "admin"))
    exports = "\n".join(sorted({_export(home, role, i) for role in GUESTS for i in imports(subjects, role)}))
    guests = "\n".join(_guest(subjects, home, role) for role in GUESTS)
    return (
        f"# Accounts and users of namespace {subjects.ns}. Generated: noria infra export --namespace {subjects.ns}\n"
        f"# Connect with inbox_prefix _INBOX_<user>, as observer also with js_prefix {js_prefix(subjects)}.\n"
        f"accounts {{\n  {home} {{\n    jetstream: enabled\n    users: [\n{members}\n    ]\n    exports: [\n{exports}\n    ]\n  }}\n{guests}\n"
        "  SYS { users: [ { user: system, password: $NORIA_SYSTEM_PASSWORD } ] }\n}\nsystem_account: SYS\n"
    )


def _export(home: str, role: Role, taken: Import) -> str:
    kind = ", response_type: stream" if taken.many else f', threshold: "{LONG}"' if role == "operator" else ""
    return f'      {{ {taken.kind}: "{taken.subject}", accounts: [{home}_{role.upper()}]{kind} }}'


def _import(home: str, taken: Import) -> str:
    to = f', to: "{taken.to}"' if taken.to else ""
    return f'      {{ {taken.kind}: {{ account: {home}, subject: "{taken.subject}" }}{to} }}'


def _guest(subjects: Subjects, home: str, role: Role) -> str:
    lines = "\n".join(_import(home, i) for i in imports(subjects, role))
    return f"  {home}_{role.upper()} {{\n    users: [\n{_user(subjects, role)}\n    ]\n    imports: [\n{lines}\n    ]\n  }}"


def _user(subjects: Subjects, role: Role) -> str:
    given = grants(subjects, role)
    return (
        f"      {{ user: {role}, password: $NORIA_{role.upper()}_PASSWORD, permissions: {{\n"
        f"          publish: {{ allow: {_listed(given.publish)} }}\n"
        f"          subscribe: {{ allow: {_listed(given.subscribe)} }}\n      }} }}"
    )


def _listed(names: list[str]) -> str:
    lines = "".join(f'\n            "{name}"' for name in names)
    return f"[{lines}\n          ]"


def _tls(tls: bool, indent: str = "") -> str:
    return f"{indent}tls {{ cert_file: $NORIA_TLS_CERT, key_file: $NORIA_TLS_KEY, ca_file: $NORIA_TLS_CA }}\n" if tls else ""


def _base(name: str, tls: bool) -> str:
    return (
        f"server_name: {name}\nlisten: $NORIA_LISTEN\nhttp: $NORIA_MONITOR\n"
        "# sync_interval always: what was acknowledged survives a power loss, at about three times the latency of one node\n"
        f"jetstream {{ store_dir: $NORIA_STORE, sync_interval: always }}\n{_tls(tls)}"
    )


def _single(tls: bool) -> str:
    return f"# One node. Generated: noria infra export\n{_base('noria-1', tls)}include ./accounts.conf\n"


def _node(number: int, nodes: int, tls: bool) -> str:
    routes = ", ".join(f"$NORIA_ROUTE_{n}" for n in range(1, nodes + 1))
    cluster = f"cluster {{\n  name: noria\n  listen: $NORIA_CLUSTER_LISTEN\n  routes: [{routes}]\n{_tls(tls, '  ')}}}\n"
    return f"# Node {number} of {nodes}. Generated: noria infra export\n{_base(f'noria-{number}', tls)}{cluster}include ./accounts.conf\n"
