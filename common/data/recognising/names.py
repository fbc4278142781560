"""Common names of columns, in the order in which one is preferred to another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

NAMES: dict[str, tuple[str, ...]] = {
    "consumer": (
        "consumer", "consumerid", "userid", "customerid", "customer", "user", "visitorid", "visitor", "custid", "customerno",
        "customernumber", "customerkey", "userkey", "cust", "clientid", "memberid", "member", "buyerid", "buyer",
        "shopperid", "shopper", "householdid", "householdkey", "household", "personid", "uid", "userpseudoid",
        "anonymousid", "fullvisitorid", "domainuserid", "distinctid", "accountid", "account", "cardid", "loyaltyid",
        "loyaltycard", "msnoid", "usr", "who", "kunde", "kundennr", "kundennummer", "kundenid", "kundeid", "client",
        "idclient", "idcliente", "cliente", "utilisateur", "reviewerid", "customeruniqueid", "customeruserid", "email",
        "customeremail", "billingemail", "emailaddress", "deviceid", "cookieid", "sessionid", "session", "usersession",
        "用户", "用户id", "会员id", "顧客id", "ユーザーid", "id",
    ),
    "timestamp": (
        "timestamp", "eventtime", "eventtimestamp", "datetime", "time", "ts", "createdat", "occurredat", "eventdatetime",
        "timestampms", "timestampmillis", "unixtime", "unixtimestamp", "epoch", "servertime", "receivedat", "originaltimestamp",
        "collectortstamp", "derivedtstamp", "orderdate", "invoicedate", "purchasedate", "transactiontimestamp",
        "transactiondate", "transdate", "tdat", "orderpurchasetimestamp", "ordertimestamp", "ordertime", "orderdatetime",
        "saledate", "date", "eventdate", "day", "created", "creationdate", "when", "dt", "timeid", "visittime", "reviewtime",
        "zeit", "zeitpunkt", "zeitstempel", "datum", "bestelldatum", "fecha", "data", "日時", "时间", "日期", "t",
    ),
    "event": (
        "event", "eventtype", "eventname", "action", "actiontype", "behavior", "behaviour", "behaviortype", "behaviourtype",
        "activity", "activitytype", "interaction", "interactiontype", "type", "kind", "was", "aktion", "ereignis", "行为",
    ),
    "item": (
        "item", "itemid", "productid", "product", "sku", "productsku", "stockcode", "articleid", "article", "articleno",
        "articlenumber", "itemcode", "itemno", "itemsku", "productcode", "productno", "productkey", "asin", "goodsid",
        "goods", "variantid", "variantsku", "aid", "contentid", "upc", "ean", "gtin", "barcode", "lineitemsku", "itemkey",
        "materialno", "prodid", "pid", "iid", "artikel", "artikelnr", "artikelnummer", "artikelid", "articulo", "producto",
        "productnumber", "parentasin", "movieid", "商品", "商品id", "productname", "itemname",
    ),
    "category": (
        "category", "categoryid", "categoryname", "categorycode", "cat", "catid", "productcategory", "itemcategory",
        "productcategoryname", "department", "departmentid", "producttype", "productgroup", "warengruppe", "kategorie",
        "itemcategory2", "categoria", "categorie", "subcategory", "class", "品类", "类目",
    ),
    "price": (
        "price", "unitprice", "itemprice", "priceeach", "saleprice", "sellprice", "salesprice", "productprice", "amount",
        "lineitemprice", "value", "cost", "itemcost", "listprice", "preis", "einzelpreis", "stueckpreis", "precio", "prix",
        "priceusd", "priceeur", "baseprice", "价格",
    ),
    "quantity": (
        "quantity", "qty", "quantitysold", "units", "unitssold", "numberofitems", "itemquantity", "qtyordered",
        "lineitemquantity", "orderquantity", "pieces", "menge", "anzahl", "stueck", "cantidad", "quantite", "count", "数量",
    ),
    "site": (
        "site", "siteid", "store", "storeid", "shop", "shopid", "merchant", "merchantid", "seller", "sellerid", "storecode",
        "storename", "shopname", "storekey", "branch", "branchid", "outlet", "filiale", "market", "marketplace", "tenant",
        "region", "country", "tienda", "magasin", "门店",
    ),
}  # fmt: skip

CLOCKS = ("time", "timeofday", "clock", "hour", "transtime", "transactiontime", "ordertime", "eventtime", "saletime",
          "uhrzeit", "zeit", "heure", "hora", "invoicetime", "timestamp")  # fmt: skip
TOTALS = (
    "total",
    "linetotal",
    "salesvalue",
    "amount",
    "totalprice",
    "lineamount",
    "revenue",
    "grossamount",
    "netamount",
)
ORDERS = (
    "orderid", "ordernumber", "orderno", "order", "invoiceno", "invoice", "invoiceid", "transactionid", "basketid",
    "receiptid", "receiptno", "ticket", "basket", "bestellnr", "bestellnummer", "name", "incrementid",
)  # fmt: skip
NAMES_OF_ITEMS = ("description", "productname", "itemname", "title", "producttitle", "lineitemname", "bezeichnung")


def folded(name: str) -> str:
    """A name without case, blanks, hyphens, underscores and the type that RecBole writes behind it."""
    plain = re.sub(r":(token|float)(_seq)?$", "", name.strip().casefold())
    return re.sub(r"[\s_\-./()#*\"'\ufeff]+", "", plain)


def best(names: Sequence[str], header: Sequence[str], taken: Mapping[str, str]) -> str:
    """The column that is called most like one of these names and not taken; "" if none is."""
    free = [column for column in header if column not in taken.values()]
    whole = {folded(column): column for column in reversed(free)}
    ends = {folded(column.rsplit(".", 1)[-1]): column for column in reversed(free) if "." in column}
    for wanted in names:
        if wanted in whole:
            return whole[wanted]
        if wanted in ends:
            return ends[wanted]
    return ""


def is_known(name: str) -> bool:
    """Whether any role is called so."""
    plain = folded(name.rsplit(".", 1)[-1]), folded(name)
    return any(
        word in names for word in plain for names in (*NAMES.values(), ORDERS, NAMES_OF_ITEMS, CLOCKS, TOTALS)
    )
