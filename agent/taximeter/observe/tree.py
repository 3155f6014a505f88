"""A tree of calls as a JSON-able dict: `tree` of a receipt, and the notes of an audit. Pure; owns this shape.

    root                    the first caller of all
    path[]                  from there to who called this one: {"prediction", "link"}; [] for the root; at most
                            LISTED_MAX, the nearest
    own, downstream, total  sums of this one, of all that it led to, and of both: {"predictions", "pending" (they still
                            run), "unrated" (they have no price), "informative" (billed with the instance they ran on,
                            and not in these amounts), "active_ns", "share_ns", "amounts": by currency}
    payers[]                the same sums by account: {"account", …}, all of which come to the total; a prediction that
                            several accounts ran under one id is one of each; at most LISTED_MAX
    nodes[]                 this one and all below, each before what it called, siblings by their start; at most
                            LISTED_MAX, those nearest to this one: {"prediction", "depth" (0: this one), "under" (whom
                            it stands under), "link", "parent", "root", "account", "model", "class", "status",
                            "pending", "started_utc", "instance", "runs", "active_ns", "share_ns", "billing", "amount",
                            "currency", "calls" (how many stand right below it), "downstream" (sums)}
    more                    how many are not listed; all of them are in the sums
    findings[]              what is worth a look, and changes no bill: {"kind", "prediction", "text"}; at most
                            LISTED_MAX
    findings_total          how many there are, by kind

`link` says why it stands there: root, call (it names this parent), loose (it names its root and no parent), cut (its
parents lead back to it, so it stands under the root), elsewhere (others name it, and it has no record here: all else of
it is null). Kinds of findings: cycle, orphan, root_mismatch, account, duplicate.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from taximeter.billing.calls import NO_SUMS, Finding, Kind, Node, Row, Sums
from taximeter.billing.money import plain
from taximeter.observe.calling import Calls
from taximeter.observe.sums import LISTED_MAX
from taximeter.observe.words import plural, safe

Json = dict[str, Any]

_NOBODY = Row("", "", "", runs=0)
_BELOW = ("prediction", "account", "model", "class", "status", "pending", "started_utc", "active_ns", "share_ns")


def told(calls: Calls, asked: str) -> Json:
    """Tell the part of a tree that begins with `asked`."""
    part = calls.tree.part(asked)
    if part is None:
        raise KeyError(asked)
    top, nodes = part.top, part.listed(LISTED_MAX)
    is_root = top.under is None
    beyond = calls.beyond if is_root else {}
    downstream, payers = top.downstream, part.payers()
    for account, sums in beyond.items():
        downstream = downstream.plus(sums)
        payers[account] = payers.get(account, NO_SUMS).plus(sums)
    listed = sorted(payers.items(), key=lambda item: item[0] or "")[:LISTED_MAX]
    return {
        "root": calls.tree.top.prediction,
        "path": [
            {"prediction": node.prediction, "link": node.link.value} for node in calls.tree.path(asked)[-LISTED_MAX:]
        ],
        "own": _sums(top.own),
        "downstream": _sums(downstream),
        "total": _sums(top.own.plus(downstream)),
        "payers": [{"account": account} | _sums(sums) for account, sums in listed],
        "nodes": [_node(node, top.depth) for node in nodes],
        "more": downstream.predictions - sum(node.row is not None for node in nodes[1:]),
        **found(part.findings),
    }


def below(tree: Json) -> list[Json]:
    """Those that a tree lists below its first, as a receipt's `downstream` has them."""
    keys = (*_BELOW, "amount", "currency")
    return [{key: node[key] for key in keys} for node in tree["nodes"][1:] if node["link"] != "elsewhere"]


def found(findings: Iterable[Finding]) -> Json:
    """Tell what is worth a look."""
    listed: list[Json] = []
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding.kind.value] += 1
        if len(listed) < LISTED_MAX:
            listed.append({"kind": finding.kind.value, "prediction": finding.prediction, "text": _text(finding)})
    return {"findings": listed, "findings_total": dict(counts)}


def _node(node: Node, from_depth: int) -> Json:
    row = node.row or _NOBODY
    known = node.row is not None
    ((currency, amount),) = row.amounts.items() if len(row.amounts) == 1 else ((None, None),)
    return {
        "prediction": node.prediction,
        "depth": node.depth - from_depth,
        "under": node.under if node.depth > from_depth else None,
        "link": node.link.value,
        "parent": row.parent,
        "root": row.root,
        "account": row.account,
        "model": row.model,
        "class": row.service_class,
        "status": row.status,
        "pending": row.pending if known else None,
        "started_utc": row.started or None,
        "instance": row.instance or None,
        "runs": row.runs,
        "active_ns": row.active_ns if known else None,
        "share_ns": row.share_ns if known else None,
        "billing": row.billing,
        "amount": None if amount is None else plain(amount),
        "currency": currency,
        "calls": node.calls,
        "downstream": _sums(node.downstream),
    }


def _sums(sums: Sums) -> Json:
    amounts = {currency: plain(amount) for currency, amount in sorted(sums.amounts.items())}
    return sums._asdict() | {"amounts": amounts}


def _text(finding: Finding) -> str:
    said, expected = safe(finding.said), safe(finding.expected)
    match finding.kind:
        case Kind.CYCLE:
            return f"names {said} as parent, and is among that one's callers"
        case Kind.ORPHAN:
            return f"names {said} as parent, which has no record here"
        case Kind.ROOT_MISMATCH:
            return f"names {said} as root; its parent's is {expected}"
        case Kind.ACCOUNT:
            return f"is charged to {_account(finding.said)}, its parent to {_account(finding.expected)}"
        case Kind.DUPLICATE:
            return f"is the id of {plural(int(finding.said or 0), 'run')}"


def _account(name: str | None) -> str:
    return "nobody" if name is None else safe(name)
