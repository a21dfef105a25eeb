"""The page is served, and what is asked can be read before one has joined."""

from __future__ import annotations

from dataclasses import replace

from shardwork_coordinator.records import Party

from .stand import STAGE, Stand, person


async def test_the_page_and_what_it_is_made_of_are_served(stand: Stand) -> None:
    page = await stand.client.get("/people")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-cache"
    for name in ("app.js", "app.css"):
        assert f"/static/people/{name}" in page.text
        assert (await stand.client.get(f"/static/people/{name}")).status_code == 200


async def test_a_key_that_has_not_joined_reads_the_list_and_does_nothing_else(stand: Stand) -> None:
    await stand.submit()
    anna = person(stand)
    seen = (await anna.get("tasks")).json()
    assert [(one["stage"], one["open"], one["pay_msat"]) for one in seen["tasks"]] == [(STAGE, True, 10_000)]
    assert seen["me"]["votes"] == 0
    refused = await anna.post("next", job=seen["tasks"][0]["job"], stage=STAGE)
    assert (refused.status_code, refused.json()["code"]) == (403, "people.not_joined")
    assert await stand.all(Party) == []


async def test_a_key_that_was_shut_out_is_told_so(stand: Stand) -> None:
    await stand.submit()
    anna = person(stand)
    await anna.join()
    (party,) = await stand.all(Party)
    await stand.put(replace(party, revoked=True))
    assert (await anna.get("tasks")).json()["code"] == "people.barred"
