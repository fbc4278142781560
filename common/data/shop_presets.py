"""Mappings of what shops, trackers and researchers export. Columns that an export may lack are optional by role."""

from __future__ import annotations

from common.data.formats import CancelRule, Mapping

_EXTRAS = ("item", "category", "price", "quantity", "site")

SHOP_PRESETS: dict[str, tuple[Mapping, ...]] = {
    "online-retail-2": (
        Mapping(
            name="online-retail-2",
            columns={"consumer": "Customer ID", "timestamp": "InvoiceDate", "item": "StockCode", "price": "Price",
                     "quantity": "Quantity", "site": "Country"},
            default_event="purchase",
            time_formats=("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M", "%Y-%m-%d %H:%M", "%m/%d/%y %H:%M"),
            cancel=CancelRule(column="Invoice", prefix="C"),
            item_name="Description",
        ),
    ),
    "recbole": (
        Mapping(
            name="recbole",
            columns={"consumer": "user_id:token", "timestamp": "timestamp:float", "item": "item_id:token"},
            default_event="view",
        ),
    ),
    "otto": (
        Mapping(
            name="otto",
            columns={"consumer": "session", "timestamp": "events.ts", "event": "events.type", "item": "events.aid"},
            events={"clicks": "view", "carts": "cart", "orders": "purchase"},
            time="milliseconds",
        ),
    ),
    "ga4": (
        Mapping(
            name="ga4",
            columns={"consumer": "user_pseudo_id", "timestamp": "event_timestamp", "event": "event_name",
                     "item": "items.item_id", "category": "items.item_category", "price": "items.price",
                     "quantity": "items.quantity"},
            events={"view_item": "view", "select_item": "view", "view_item_list": "view", "add_to_cart": "cart",
                    "purchase": "purchase", "add_to_wishlist": "favourite", "refund": "cancel", "session_start": "login",
                    "login": "login", "sign_up": "login", "search": "search", "view_search_results": "search",
                    **dict.fromkeys(("page_view", "scroll", "user_engagement", "first_visit", "begin_checkout", "view_cart",
                                     "add_payment_info", "add_shipping_info", "remove_from_cart", "view_promotion",
                                     "select_promotion", "click"), "other")},
            time="microseconds",
        ),
    ),
    "segment": (
        Mapping(
            name="segment",
            columns={"consumer": "anonymousId", "timestamp": "timestamp", "event": "event",
                     "item": "properties.product_id", "category": "properties.category", "price": "properties.price",
                     "quantity": "properties.quantity"},
            events={"Product Viewed": "view", "Product Clicked": "view", "Product Added": "cart",
                    "Product Added to Wishlist": "favourite", "Products Searched": "search", "Order Completed": "purchase",
                    "Order Refunded": "cancel", "Product Reviewed": "review", "Signed In": "login", "Signed Up": "login",
                    "Product Removed": "other", "Cart Viewed": "other", "Checkout Started": "other"},
        ),
    ),
    "snowplow": (
        Mapping(
            name="snowplow",
            columns={"consumer": "domain_userid", "timestamp": "collector_tstamp", "event": "event_name",
                     "item": "ti_sku", "category": "ti_category", "price": "ti_price", "quantity": "ti_quantity"},
            events={"page_view": "other", "page_ping": "other", "transaction_item": "purchase", "product_view": "view",
                    "add_to_cart": "cart", "site_search": "search", "transaction": "other", "remove_from_cart": "other"},
        ),
    ),
    "matomo": (
        Mapping(
            name="matomo",
            columns={"consumer": "visitorId", "timestamp": "actionDetails.timestamp", "event": "actionDetails.type",
                     "item": "actionDetails.productViewSku", "category": "actionDetails.productViewCategories",
                     "price": "actionDetails.productViewPrice"},
            events={"action": "view", "search": "search", "ecommerceOrder": "purchase", "ecommerceAbandonedCart": "cart",
                    **dict.fromkeys(("goal", "event", "download", "outlink", "content"), "other")},
            time="seconds",
        ),
    ),
    "shopify-orders": (
        Mapping(
            name="shopify-orders",
            columns={"consumer": "Email", "timestamp": "Created at", "item": "Lineitem sku", "price": "Lineitem price",
                     "quantity": "Lineitem quantity"},
            default_event="purchase",
            fill_by="Name",
            item_name="Lineitem name",
        ),
    ),
    "woocommerce-orders": (
        Mapping(
            name="woocommerce-orders",
            columns={"consumer": "Email (Billing)", "timestamp": "Order Date", "item": "SKU", "price": "Item Cost",
                     "quantity": "Quantity"},
            default_event="purchase",
            fill_by="Order Number",
            item_name="Item Name",
        ),
    ),
    "magento-orders": (
        Mapping(
            name="magento-orders",
            columns={"consumer": "customer_email", "timestamp": "created_at", "item": "sku", "price": "price",
                     "quantity": "qty_ordered", "site": "store_id"},
            default_event="purchase",
            item_name="name",
        ),
    ),
}  # fmt: skip
"""Read like every preset of ``presets``."""

SHOP_OPTIONAL: dict[str, tuple[str, ...]] = {
    "online-retail-2": ("site",),
    "ga4": _EXTRAS,
    "segment": _EXTRAS,
    "snowplow": ("category", "price", "quantity"),
    "matomo": _EXTRAS,
    "shopify-orders": ("price",),
    "woocommerce-orders": ("price",),
    "magento-orders": ("site", "price"),
}
