"""What the tests of a dishonest server share: a request that a site must refuse and forget, and honest advertisements."""

from __future__ import annotations

import pytest

from common.errors import FedcartError
from common.secagg import messages
from common.secagg.messages import Advertisement
from tests.secagg_rounds import Federation

KINDS = {
    "advertise": messages.Params,
    "share": messages.AdvertisementList,
    "accept": messages.ShareDelivery,
    "mask": messages.AcceptedList,
    "confirm": messages.SurvivorList,
    "unmask": messages.ConfirmationList,
}

S = [f"site-{i}" for i in range(10)]


def refused_without_a_trace(federation: Federation, site: str, request, error: type[FedcartError]) -> FedcartError:
    """The site raises and stays exactly where it was; the honest request still works afterwards."""
    before = federation.clients[site].to_state()
    with pytest.raises(error) as caught:
        federation.answer(site, request)
    assert federation.clients[site].to_state() == before
    return caught.value


def advertised(federation: Federation) -> tuple[Advertisement, ...]:
    return next(iter(federation.run_until("share").requests().values())).advertisements
