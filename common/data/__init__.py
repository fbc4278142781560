"""Event logs, cleaning, public features, and one row per consumer."""

from common.data.catalogue import DECLARED, Catalogue, catalogue_from_events, read_catalogue, write_catalogue
from common.data.cleaning import NO_SITE, CleaningReport
from common.data.events import (
    EVENT_TYPES,
    EventLog,
    concatenate,
    joined,
    load_events,
    mappings_of,
    original_ids,
    pseudonym,
    refuse_auto,
    schema,
)
from common.data.features import FeatureSpec, feature_spec, hashed_bucket, value_name
from common.data.formats import MAX_PRICE, Mapping, load_mapping
from common.data.recognising import said_of
from common.data.rules import EARLIEST, LATEST
from common.data.sequences import ConsumerSequences, build_sequences, holdout_mask
from common.data.split import Sides, Split, parts_of
from common.data.values.single import one_id, one_number, one_time, whole_characters
from common.data.values.words import event_type

__all__ = [
    "DECLARED",
    "EARLIEST",
    "EVENT_TYPES",
    "LATEST",
    "MAX_PRICE",
    "NO_SITE",
    "Catalogue",
    "CleaningReport",
    "ConsumerSequences",
    "EventLog",
    "FeatureSpec",
    "Mapping",
    "Sides",
    "Split",
    "build_sequences",
    "catalogue_from_events",
    "concatenate",
    "event_type",
    "feature_spec",
    "hashed_bucket",
    "holdout_mask",
    "joined",
    "load_events",
    "load_mapping",
    "mappings_of",
    "one_id",
    "one_number",
    "one_time",
    "original_ids",
    "parts_of",
    "pseudonym",
    "read_catalogue",
    "refuse_auto",
    "said_of",
    "schema",
    "value_name",
    "whole_characters",
    "write_catalogue",
]
